"""Content Credentials (C2PA): a signed statement in a published picture that it holds synthetic parts, and nothing of its source.

What is signed are the bytes of the anonymized picture; the original is not an ingredient, not hashed, not shown as a thumbnail, and neither
its name nor path is told. Needs `pip install mfmc-ray[c2pa]`.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import mfmc_ray
from mfmc_ray import tiff
from mfmc_ray.codec import png_chunks, riff_chunks
from mfmc_ray.config import ConfigError, OutputConfig

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_TELLING = (b"c2pa.ingredient", b"c2pa.thumbnail", b"c2pa.metadata", b"c2pa.opened", b"stds.exif", b"stds.iptc")
_CURVES = {256: "es256", 384: "es384", 521: "es512"}


LARGEST = 1 << 16
"""Bytes; a manifest of one action and a certificate chain has a few thousand. More would have room for a picture."""


class CredentialError(RuntimeError):
    """A picture could not be signed as it should be; it must not be published."""


@dataclass(frozen=True)
class Credential:
    """Who signs.

    Attributes:
        certificates: PEM, the signer's first, then those that vouch for it.
        key: PEM, unencrypted; the signer's private key.
    """

    certificates: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Credential(…)"  # never the key

    @classmethod
    def of(cls, output: OutputConfig) -> Credential | None:
        """What the settings say; None if nothing is to be signed.

        Raises:
            ConfigError: the files cannot be read or do not belong together, or the library is not installed.
        """
        if output.c2pa_certificate is None or output.c2pa_key is None:
            if output.c2pa_certificate is None and output.c2pa_key is None:
                return None
            raise ConfigError("output.c2pa_certificate and output.c2pa_key are wanted together, or neither")
        try:
            found = cls(Path(output.c2pa_certificate).read_bytes(), Path(output.c2pa_key).read_bytes())
        except OSError as error:
            raise ConfigError(f"output.c2pa_certificate or output.c2pa_key cannot be read: {error}") from error
        try:
            import c2pa  # noqa: F401
        except ImportError as error:
            raise ConfigError("signing needs the package c2pa-python: pip install mfmc-ray[c2pa]") from error
        try:
            found._algorithm()
        except Exception as error:  # whatever a PEM parser raises
            raise ConfigError(f"output.c2pa_key is no key that can sign for output.c2pa_certificate: {type(error).__name__}") from error
        return found

    def signed(self, file: bytes, kind: str, source_type: str) -> bytes:
        """The same file with a C2PA manifest: one action, `c2pa.created` with this digital source type, and a hash of the file itself.

        Args:
            file: an anonymized picture as it is to be published.
            kind: JPEG, PNG, WEBP or TIFF.
            source_type: the IRI of an IPTC digital source type.

        Raises:
            CredentialError: the result is not the file plus a valid manifest that tells nothing else.
        """
        import c2pa

        action = {"action": "c2pa.created", "digitalSourceType": source_type}
        manifest = {
            "claim_generator_info": [{"name": "mfmc-ray", "version": mfmc_ray.__version__}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        out = io.BytesIO()
        try:
            context = c2pa.Context.from_dict(_SETTINGS)
            info = c2pa.C2paSignerInfo(self._algorithm(), self.certificates, self.key, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context) as builder:
                builder.sign(signer, _MIME[kind], io.BytesIO(file), out)
            with c2pa.Reader(_MIME[kind], io.BytesIO(out.getvalue()), context=context) as reader:
                read = json.loads(reader.json())
        except Exception as error:
            raise CredentialError(f"the picture could not be signed: {type(error).__name__}") from error
        result = out.getvalue()
        if unsigned(result, kind) != file:
            raise CredentialError("signing has changed more than the manifest")
        if fault(result, kind) or len(read["manifests"]) != 1 or read["validation_state"] not in ("Valid", "Trusted"):
            raise CredentialError("the manifest is not valid, or tells more than it should")
        return result

    def _algorithm(self) -> str:
        """C2PA's name of the signature algorithm that fits the key, which must be that of the first certificate."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key: Any = load_pem_private_key(self.key, None)
        if x509.load_pem_x509_certificates(self.certificates)[0].public_key() != key.public_key():
            raise ValueError("the key is not the certificate's")
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return _CURVES[key.curve.key_size]
        if isinstance(key, rsa.RSAPrivateKey):
            return "ps256"
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return "ed25519"
        raise ValueError("C2PA knows no such key")


def fault(file: bytes, kind: str) -> str | None:
    """What a manifest tells that it should not: an ingredient, a thumbnail, metadata; None if nothing, or if there is no manifest."""
    manifest = stored(file, kind)
    if found := [word.decode() for word in _TELLING if word in manifest]:
        return f"a C2PA manifest with {', '.join(found)}"
    return f"a C2PA manifest of {len(manifest)} bytes" if len(manifest) > LARGEST else None


def stored(file: bytes, kind: str) -> bytes:
    """The bytes of a picture's C2PA manifests (JUMBF); empty if it has none. (C2PA 2.2, annex A: embedding manifests.)"""
    if kind == "JPEG":
        return b"".join(body[16:] for marker, body, _, _ in _segments(file) if marker == 0xEB)
    if kind == "PNG":
        return b"".join(body for name, body in png_chunks(file) if name == b"caBX")
    if kind == "WEBP":
        return b"".join(body for name, body in riff_chunks(file) if name == b"C2PA")
    return tiff.value(file, tiff.C2PA_TAG) if kind == "TIFF" else b""


def unsigned(file: bytes, kind: str) -> bytes:
    """The picture without its C2PA manifests, byte for byte as it was before `signed` for what `codec.encode` writes."""
    if not stored(file, kind):
        return file
    if kind == "JPEG":
        kept, at = [], 0
        for marker, _, start, end in _segments(file):
            if marker == 0xEB:
                kept.append(file[at:start])
                at = end
        return b"".join([*kept, file[at:]])
    if kind == "PNG":
        out, at = [file[:8]], 8
        for name, body in png_chunks(file):
            out.append(b"" if name == b"caBX" else file[at : at + 12 + len(body)])
            at += 12 + len(body)
        return b"".join([*out, file[at:]])
    if kind == "WEBP":
        chunks = [
            name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in riff_chunks(file) if name != b"C2PA"
        ]
        inside = b"WEBP" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(inside)) + inside + file[8 + int.from_bytes(file[4:8], "little") :]
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return tiff.cut(file, image.mode, 1, profile=True, keep=(tiff.XMP_TAG,)) or file


def _segments(file: bytes) -> list[tuple[int, bytes, int, int]]:
    """The segments of a JPEG before its first scan: marker, payload, and where they start and end."""
    found, at = [], 2
    while file[at : at + 1] == b"\xff" and at + 4 <= len(file) and file[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        found.append((file[at + 1], file[at + 4 : end], at, end))
        at = end
    return found
