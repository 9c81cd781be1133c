from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate.synth.classes import PARTS, Class, Wish, class_of, equal
from mfmc_ray.evaluate.synth.groups import SIZES, circles, planned, said
from mfmc_ray.evaluate.synth.latent import Latent
from mfmc_ray.evaluate.synth.photos import Camera, shot
from mfmc_ray.evaluate.synth.settings import Making, Settings, too_alike
from mfmc_ray.evaluate.synth.studio import Person


def person(number: int, looks: list[float]) -> Person:
    return Person(number, 1, [0.0] * 512, 0.1, 30, 45, 0.0, looks)


@pytest.mark.parametrize(("people", "parts", "made"), [(200, PARTS, 216), (216, PARTS, 216), (5, ("sex", "age"), 6), (1, ("tone",), 6)])
def test_classes_are_exactly_equal(people: int, parts: tuple[str, ...], made: int) -> None:
    wishes = equal(people, parts, np.random.default_rng(0))
    cells = Counter((wish.sex, wish.age, wish.tone) for wish in wishes)
    assert len(wishes) == made
    assert len(set(cells.values())) == 1
    assert all((cell[i] is not None) == (part in parts) for cell in cells for i, part in enumerate(PARTS))


def test_classes_are_read_from_sex_age_and_tone() -> None:
    assert class_of(0.1, 20, 50) == Class(0, 0, 1)
    assert class_of(0.9, 35, -40) == Class(1, 1, 5)
    assert class_of(0.9, 88, 60) == Class(1, 2, 0)
    assert class_of(0.5, 40, 50) is None  # no clear sex
    assert class_of(0.1, 17, 50) is None  # nobody is a child
    assert str(Class(1, 2, 3)) == "man / 55+ / tan"


def test_a_wish_aims_at_what_grants_it() -> None:
    for wish in equal(36, PARTS, np.random.default_rng(1)):
        aims = wish.aims()
        assert wish.granted(0.95 if aims["man"] > 0 else 0.05, aims["age"], aims["tone"])
    assert not Wish(0, 0, 1).granted(0.05, 34.5, 48)  # too near the band's edge
    assert not Wish(0, 0, 1).granted(0.05, 30, 54.5)


def test_styles_move_as_asked() -> None:
    latent = Latent()
    base = np.zeros((1, 512), np.float32)
    older = latent.read(latent.towards(base, {"age": 60.0, "yaw": 0.0}))
    assert older["age"] == pytest.approx(60, abs=3)
    assert latent.read(latent.moved(base, {"yaw": 1.0}))["yaw"] > latent.read(base)["yaw"] + 0.5 * latent.spread("yaw")


def test_groups_are_of_one_circle_and_whole() -> None:
    of = {one: i for i, circle in enumerate(circles(20, 3)) for one in circle}
    assert sorted(of) == list(range(20))
    groups = planned(9, 20, 3)
    assert groups == planned(9, 20, 3)
    for group in groups:
        assert len(set(group.people)) == len(group.people) <= SIZES[group.number % len(SIZES)]
        assert len({of[one] for one in (*group.people, group.by)}) == 1
    assert len(planned(2, 1, 0)[0].people) == 1  # of one person there is no group to be had


def test_people_say_who_is_in_a_photo() -> None:
    photos = [{"path": f"groups/{n}.jpg", "by": "p0001"} for n in range(200)]
    rows = said(photos, {photo["path"]: ["p0001", "p0002"] for photo in photos}, 9, 0)
    tagged = [row for row in rows["tags"] if row["allow"]]
    assert 250 < len(tagged) < 390
    assert {row["by"] for row in rows["tags"] if not row["allow"]} == {"p0001", "p0002"}  # who untags does so themselves
    assert {row["person"] for row in rows["consents"]} == {"p0001", "p0002"}
    assert all(row["person"] != row["trusts"] for row in rows["trust"])


def test_the_later_of_two_look_alikes_is_cast_anew() -> None:
    people = [person(0, [1, 0]), person(1, [0.9, 0.436]), person(2, [0, 1]), person(3, [0.6, 0.8])]
    assert too_alike(people) == [1, 3]  # the third is like nobody who stays before it


def test_a_camera_shows_the_middle_turned_and_lit() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[90:110, 90:110] = 200
    camera = Camera(0, 0.9, 0.5, 0.5, 1.0, 1.1, 0, 0, 90)
    seen = shot(picture, camera, 100, np.random.default_rng(0)).astype(int)
    assert seen.shape == (100, 100, 3)
    assert seen[50, 50, 0] > seen[50, 50, 2] > 150  # warm
    assert seen[50, 70].max() < 20
    moved = shot(picture, Camera(0, 0.9, 0.0, 0.5, 1.0, 1.0, 0, 0, 90), 100, np.random.default_rng(0))
    assert np.argmax(moved[50].sum(1)) > 50  # the window lies to the left


def test_a_collection_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    making, settings = Making(tmp_path / "out"), Settings(people=2)
    assert making.begin(settings)
    making.done("cast-0", {"a": 1}, {"photos/people/x.jpg": b"x"})
    again = Making(tmp_path / "out")
    assert again.begin(settings)
    assert again.has("cast-0")
    assert not again.has("cast-1")
    with pytest.raises(ConfigError, match="other options"):
        again.begin(Settings(people=3))
    (tmp_path / "out/photos/people/.y.jpg.1").write_bytes(b"half")
    making.end({"settings": settings.plain()})
    making.tidy()
    assert not again.begin(settings)
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["collection.json", "x.jpg"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        Making(tmp_path / "other").begin(settings)
