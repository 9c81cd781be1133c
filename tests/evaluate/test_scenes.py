from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ExifTags, ImageOps

from mfmc_ray.evaluate.people import PersonGenerator
from mfmc_ray.evaluate.scenes import DemoCollection, make_demo_collection
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Image

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoCollection:
    return make_demo_collection(tmp_path_factory.mktemp("demo"), portraits=12, groups=4)


def digests(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def test_groups_show_the_people_they_name(demo: DemoCollection) -> None:
    detector = YuNet(min_score=0.85)  # all are clear frontal faces
    groups = {photo: people for photo, people in demo.people.items() if photo.startswith("groups/")}
    assert [len(people) for people in groups.values()] == [3, 5, 2, 6]
    for photo, people in groups.items():
        assert len(set(people)) == len(people)
        faces = detector.detect(np.asarray(PIL.Image.open(demo.photos / photo)))
        assert len(faces) == len(people), photo
        assert 50 < faces.sizes.min() <= faces.sizes.max() < 240


def test_portraits_are_as_mixed_as_a_real_collection(demo: DemoCollection) -> None:
    pictures = {f.name: PIL.Image.open(f) for f in sorted((demo.photos / "portraits").iterdir())}
    assert Counter(p.format for p in pictures.values()) == {"JPEG": 10, "PNG": 1, "WEBP": 1}
    assert Counter(p.mode for p in pictures.values()) == {"RGB": 11, "L": 1}
    assert min(p.height for p in pictures.values()) == 300
    assert max(p.height for p in pictures.values()) == 1024
    rotated = [p for p in pictures.values() if p.getexif().get(ExifTags.Base.Orientation) == 6]
    assert len(rotated) == 1
    assert len(YuNet(min_score=0.7).detect(np.asarray(ImageOps.exif_transpose(rotated[0])))) >= 1
    (named,) = [p for p in pictures.values() if b"PersonInImage" in p.info.get("xmp", b"")]
    assert named.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert sum(np.asarray(p.convert("L")).mean() < 60 for p in pictures.values()) >= 1


def test_the_gallery_has_other_pictures_and_a_stranger(demo: DemoCollection) -> None:
    seen = {person for people in demo.people.values() for person in people}
    enrolled = {folder.name for folder in demo.known.iterdir()}
    assert enrolled - seen == {demo.stranger}
    assert all(len(list(folder.iterdir())) == 3 for folder in demo.known.iterdir())
    assert not set(digests(demo.known).values()) & set(digests(demo.photos).values())


@pytest.mark.parametrize("name", ["truncated.jpg", "empty.jpg", "text.jpg"])
def test_broken_files_do_not_decode(demo: DemoCollection, name: str) -> None:
    with pytest.raises(OSError, match=r"cannot identify|truncated|Truncated"):
        PIL.Image.open(demo.photos / "broken" / name).load()


def test_the_readme_tells_the_licences(demo: DemoCollection) -> None:
    text = (demo.photos.parent / "README.md").read_text()
    assert "NON-COMMERCIAL" in text
    assert "Eileen Collins" in text


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bytes, Image] = {}  # that a style gives the same picture again is shown in test_people
    render = PersonGenerator.render

    def once(self: PersonGenerator, *styles: F32) -> Image:
        key = np.stack(styles).tobytes()
        if key not in drawn:
            drawn[key] = render(self, *styles)
        return drawn[key].copy()

    monkeypatch.setattr(PersonGenerator, "render", once)
    steps: list[tuple[int, int]] = []
    make_demo_collection(tmp_path / "a", portraits=6, groups=1, seed=3, progress=lambda *step: steps.append(step))
    make_demo_collection(tmp_path / "b", portraits=6, groups=1, seed=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert steps == [(n + 1, len(steps)) for n in range(len(steps))]
    assert (tmp_path / "a/photos/groups/000.jpg").exists()


def test_too_few_portraits_for_groups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least that many portraits, not 3"):
        make_demo_collection(tmp_path, portraits=3)
