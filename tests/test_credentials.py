"""Content Credentials: what is signed is the anonymized file, and nothing else is told."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_images import SECRET, profile, save, sideways_exif, told_images
from PIL import Image
from signers import pem_chain
from skimage.data import astronaut, chelsea

from mfmc_ray import credentials
from mfmc_ray.codec import ALTERED, SYNTHETIC, decode, encode, label
from mfmc_ray.config import ConfigError, OutputConfig, load
from mfmc_ray.credentials import Credential, CredentialError, fault, stored, unsigned
from mfmc_ray.pipeline.inspection import MetadataCheck
from mfmc_ray.scrub import scrub

c2pa = pytest.importorskip("c2pa", reason="the extra c2pa (c2pa-python) is not installed")

FACE = Image.fromarray(astronaut()[40:240, 120:360])
KINDS = ("JPEG", "PNG", "WEBP", "TIFF")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> OutputConfig:
    folder = tmp_path_factory.mktemp("keys")
    for name, content in zip(("chain.pem", "key.pem"), pem_chain(), strict=True):
        (folder / name).write_bytes(content)
    return OutputConfig(c2pa_certificate=str(folder / "chain.pem"), c2pa_key=str(folder / "key.pem"))


@pytest.fixture(scope="module")
def credential(files: OutputConfig) -> Credential:
    found = Credential.of(files)
    assert found is not None
    return found


def anonymized(kind: str, **options: Any) -> tuple[bytes, bytes]:
    """A telling source and the file that is published of it."""
    source = save(FACE, kind, icc_profile=profile(), **options)
    decoded = decode(source)
    pixels = decoded.pixels.copy()
    pixels[60:160, 60:160] = chelsea()[:100, :100]
    return source, encode(pixels, decoded)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_says_what_was_done_and_nothing_of_the_source(kind: str, credential: Credential) -> None:
    source, file = anonymized(kind)
    signed = credential.signed(file, kind, SYNTHETIC)
    with c2pa.Reader(f"image/{kind.lower()}", io.BytesIO(signed)) as reader:
        read = json.loads(reader.json())
        detailed = reader.detailed_json()
    assert read["validation_state"] == "Valid"
    assert {status["code"] for status in read["validation_status"]} == {"signingCredential.untrusted"}  # by nobody but this test
    (manifest,) = read["manifests"].values()
    assert "ingredients" not in manifest
    assert "thumbnail" not in manifest
    assert "title" not in manifest
    assert {one["label"].split(".v")[0] for one in manifest["assertions"]} == {"c2pa.actions"}
    (action,) = manifest["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", SYNTHETIC)
    for digest in (hashlib.sha256(source), hashlib.sha256(decode(source).pixels.tobytes())):
        assert digest.digest() not in signed
        assert digest.hexdigest() not in detailed
    assert credential.key not in signed
    assert b"PRIVATE KEY" not in signed
    # only the manifest has been added
    assert unsigned(signed, kind) == file
    assert scrub(signed) == scrub(file)
    assert len(signed) - len(file) < 8000
    assert Image.open(io.BytesIO(signed)).info["xmp"] == label(SYNTHETIC)


@pytest.mark.parametrize("kind", KINDS)
def test_the_audit_takes_a_signed_picture_but_none_that_tells_more(kind: str, credential: Credential) -> None:
    source, file = anonymized(kind)
    check = MetadataCheck()
    signed = credential.signed(file, kind, SYNTHETIC)
    assert check.fault(signed, 10**6, labelled=True) is None
    assert check.fault(signed, 10**6, labelled=False) is not None
    out = io.BytesIO()
    info = c2pa.C2paSignerInfo("es256", credential.certificates, credential.key, None)
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder({"claim_generator_info": [{"name": "x"}]}) as builder:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        builder.add_ingredient({"relationship": "parentOf"}, f"image/{kind.lower()}", io.BytesIO(source))
        builder.sign(signer, f"image/{kind.lower()}", io.BytesIO(file), out)
    assert fault(out.getvalue(), kind) is not None
    assert "ingredient" in (check.fault(out.getvalue(), 10**6, labelled=True) or "")


def test_the_credential_of_a_source_is_not_kept(credential: Credential) -> None:
    for kind in KINDS:
        _, file = anonymized(kind)
        signed = credential.signed(file, kind, ALTERED)
        assert stored(signed, kind)
        decoded = decode(signed)
        assert not stored(encode(decoded.pixels, decoded)[0], kind)
        assert not stored(scrub(signed), kind)
        assert np.array_equal(decode(scrub(signed)).pixels, decoded.pixels)


def test_a_picture_that_is_stored_turned_is_signed(credential: Credential) -> None:
    source = save(FACE.crop((0, 0, 203, 101)), "JPEG", exif=sideways_exif(6))
    decoded = decode(source)
    assert decoded.stored_in == 6
    file, _ = encode(decoded.pixels, decoded)
    assert unsigned(credential.signed(file, "JPEG", SYNTHETIC), "JPEG") == file


@pytest.mark.parametrize("kind", ["es256", "es384", "ps256", "ed25519"])
def test_keys_of_each_kind_sign(kind: str) -> None:
    _, file = anonymized("JPEG")
    assert stored(Credential(*pem_chain(kind)).signed(file, "JPEG", SYNTHETIC), "JPEG")


def test_what_cannot_be_signed_is_an_error(credential: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CredentialError):
        credential.signed(b"no picture", "JPEG", SYNTHETIC)
    _, file = anonymized("PNG")
    monkeypatch.setattr(credentials, "unsigned", lambda data, kind: data)
    with pytest.raises(CredentialError, match="more than the manifest"):
        credential.signed(file, "PNG", SYNTHETIC)


def test_settings_that_do_not_fit_are_named(files: OutputConfig, tmp_path: Path) -> None:
    assert Credential.of(OutputConfig()) is None
    (tmp_path / "other.pem").write_bytes(pem_chain()[1])
    for options, says in (
        ({"c2pa_certificate": files.c2pa_certificate}, "wanted together"),
        ({"c2pa_certificate": files.c2pa_certificate, "c2pa_key": str(tmp_path / "none.pem")}, "cannot be read"),
        ({"c2pa_certificate": files.c2pa_certificate, "c2pa_key": str(tmp_path / "other.pem")}, "no key that can sign"),
        ({"c2pa_certificate": files.c2pa_certificate, "c2pa_key": files.c2pa_certificate}, "no key that can sign"),
    ):
        with pytest.raises(ConfigError, match=says):
            Credential.of(OutputConfig(**options))


def test_neither_key_nor_path_is_published(files: OutputConfig, credential: Credential) -> None:
    settings = load(None, output={"c2pa_certificate": files.c2pa_certificate, "c2pa_key": files.c2pa_key})
    assert settings.to_dict()["output"]["c2pa_certificate"] == "chain.pem"
    assert "key.pem" not in str(settings.to_dict())
    assert str(Path(str(files.c2pa_key)).parent) not in str(settings.to_dict())
    assert settings.digest() != load(None).digest()
    assert "PRIVATE" not in repr(credential)


def test_a_file_that_only_looks_signed_is_cut_where_it_looks_so() -> None:
    told = told_images(FACE)
    for name, kind in (("told.jpg", "JPEG"), ("told.png", "PNG")):
        assert SECRET[-10:] in stored(told[name], kind)
        assert len(unsigned(told[name], kind)) < len(told[name])
        assert not stored(unsigned(told[name], kind), kind)
