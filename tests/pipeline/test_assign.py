"""Giving everybody fakes of their own: nobody shares one, who has one keeps it, and what holds on most photos is taken."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import GUARDS, face, pool_of, scanned

from mfmc_ray.identities.pool import Pool
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.sightings import RECOGNISED, Sighting, Sightings
from mfmc_ray.pipeline.assign import CANDIDATES, RESERVES, Assigner, by_use, pool_for
from mfmc_ray.pipeline.fitting import FITTING
from mfmc_ray.pipeline.persons import persons, scanned_faces
from mfmc_ray.pipeline.pseudonyms import Book, Pseudonym
from mfmc_ray.pipeline.recognise import NOBODY
from mfmc_ray.pipeline.workers import ANONYMIZE
from mfmc_ray.tables import FITTING as ROWS
from mfmc_ray.tables import published_schema

KEY = b"k" * 32
SIZE = 120
POOL = pool_of(SIZE)
NAMES = {one.identity_id for one in POOL.identities}
Holds = Callable[[str, str], bool]
"""(identity_id, image_id) → whether the identity holds there."""


class Fitter:
    """Stands for `FittingWorker`: writes what it would write."""

    def __init__(self, ledger: Ledger, holds: Holds) -> None:
        self.ledger, self.holds = ledger, holds
        self.asked: list[dict[str, Any]] = []

    def __call__(self, parts: list[dict[str, Any]]) -> None:
        for part in parts:
            self.asked += part["people"]
            rows = []
            for person in part["people"]:
                for name in person["candidates"]:
                    rooms = [0.1 if self.holds(name, image) else -0.1 for image, *_ in person["faces"]]
                    faces = [
                        {"image_id": face[0], "face_no": face[1], "room": room, "steps": [3]}
                        for face, room in zip(person["faces"], rooms, strict=True)
                    ]
                    rows.append({"name": person["name"], "identity_id": name, "faces": faces})
                    if min(rooms) > 0:
                        break
            self.ledger.commit_part(FITTING, part["part"], {"fitting": pa.Table.from_pylist(rows, schema=ROWS)}, {})


def assigned(
    folder: Path,
    photos: dict[str, list[int]],
    *,
    book: Book | None = None,
    fallen: Set[int] = frozenset(),
    pool: Callable[[int], Pool] | None = None,
    holds: Holds = lambda name, image: True,
    key: bytes = KEY,
    enrolled: dict[str, str] | None = None,
) -> tuple[Book, Fitter]:
    """Who wears what in a collection: image → who is in it; the identities of some seeds hold no more, and as the first face of some images
    somebody enrolled is recognised."""
    holding = NAMES - {f"mfmc-{seed:012d}" for seed in fallen}
    pool = pool or (lambda _: pool_of(SIZE, fallen) if fallen else POOL)
    images = [(image, [face(who, hash(image) % 1000) for who in people]) for image, people in photos.items()]
    ledger = scanned(folder, images)
    faces = scanned_faces(ledger, GUARDS, 20.0)
    before = book or Book()
    seen = Sightings({i: (Sighting(p, 0.9, 0.5, RECOGNISED),) for i, p in enrolled.items()}, "seen") if enrolled else NOBODY
    salts = {person: person.encode() * 4 for person in (enrolled or {}).values()}
    people = by_use(persons(faces, before.people, seen, salts, key, Calibration()), ledger)
    fitter = Fitter(ledger, holds)
    folder.joinpath("out-work").mkdir(exist_ok=True, parents=True)
    return Assigner(ledger, key, ledger.work, faces, lambda: holding, pool, fitter)(people, before), fitter


def of(book: Book, image: str, number: int = 0) -> Pseudonym:
    return next(one for one in book.people if (image, number) in one.faces)


def seed(name: str) -> int:
    return int(name.removeprefix("mfmc-"))


def nobody_shares(book: Book) -> bool:
    worn = [name for one in book.people for name in one.identities]
    return len(worn) == len(set(worn)) and not set(worn) & book.retired


TWO = {"a1": [1], "a2": [1], "b1": [2], "c1": [3], "g": [1, 2, 3]}


def test_everybody_gets_their_own_and_a_reserve(tmp_path: Path) -> None:
    book, fitter = assigned(tmp_path, TWO)
    assert nobody_shares(book)
    assert sorted(len(one.faces) for one in book.people) == [2, 2, 3]
    assert all(len(one.identities) == 1 + RESERVES for one in book.people)
    assert of(book, "a1") == of(book, "g")
    assert len(fitter.asked) == 3
    assert of(book, "a1").steps == ((3,),) * 3
    assert Book.read(tmp_path / "out-work", KEY) == book
    assert Ledger(str(tmp_path / "out"), str(tmp_path / "out-work")).done(FITTING) == {}


def test_the_same_key_gives_the_same_and_another_one_another(tmp_path: Path) -> None:
    one, _ = assigned(tmp_path / "1", TWO)
    same, _ = assigned(tmp_path / "2", TWO)
    other, _ = assigned(tmp_path / "3", TWO, key=b"l" * 32)
    assert {(p.name, p.identities) for p in one.people} == {(p.name, p.identities) for p in same.people}
    assert not {p.name for p in one.people} & {p.name for p in other.people}
    assert {p.identities for p in one.people} != {p.identities for p in other.people}


def test_enrolled_people_have_the_same_fake_in_another_release_by_the_same_key(tmp_path: Path) -> None:
    """Other photos of them, among other people: what was noted of the first release is theirs by name, which the key and the salt make."""
    first, _ = assigned(tmp_path / "1", TWO, enrolled={"a1": "ada"})
    second, _ = assigned(tmp_path / "2", {"x1": [1], "x2": [7], "x3": [2]}, book=first, enrolled={"x1": "ada"})
    assert of(second, "x1").identities == of(first, "a1").identities
    assert not set(of(second, "x3").identities) & {name for one in first.people for name in one.identities}
    other, _ = assigned(tmp_path / "3", {"x1": [1], "x2": [7]}, key=b"l" * 32, enrolled={"x1": "ada"})
    assert of(other, "x1").name != of(first, "a1").name


def test_what_holds_on_most_photos_is_taken(tmp_path: Path) -> None:
    plain, fitter = assigned(tmp_path / "1", TWO)
    first = of(plain, "a1").identities[0]
    candidates = next(person["candidates"] for person in fitter.asked if person["candidates"][0] == first)
    assert len(candidates) == CANDIDATES
    best = candidates[2]
    book, _ = assigned(tmp_path / "2", TWO, holds=lambda name, image: (name == best) or image == "a1")
    one = of(book, "a1")
    assert one.identities[0] == best
    assert nobody_shares(book)
    assert {steps for face, steps in zip(one.faces, one.steps, strict=True) if face[0] != "a1"} == {(3,)}
    others, _ = assigned(tmp_path / "3", TWO, holds=lambda name, image: False)
    assert nobody_shares(others)
    assert of(others, "a1").steps == ((),) * 3
    assert all(one.identities for one in others.people)


def test_a_killed_run_does_not_try_again_what_it_has_tried(tmp_path: Path) -> None:
    ledger = scanned(tmp_path, [(image, [face(who, hash(image) % 1000) for who in people]) for image, people in TWO.items()])
    faces = scanned_faces(ledger, GUARDS, 20.0)
    people = persons(faces, (), NOBODY, {}, KEY, Calibration())

    first = Fitter(ledger, lambda *_: True)

    def killed(parts: list[dict[str, Any]]) -> None:
        first(parts[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Assigner(ledger, KEY, ledger.work, faces, lambda: NAMES, lambda _: POOL, killed)(people, Book())
    second = Fitter(ledger, lambda *_: True)
    Assigner(ledger, KEY, ledger.work, faces, lambda: NAMES, lambda _: POOL, second)(people, Book())
    assert not {person["name"] for person in first.asked} & {person["name"] for person in second.asked}
    assert len(first.asked) + len(second.asked) == 3


def test_a_night_changes_nothing_for_who_is_there(tmp_path: Path) -> None:
    before, _ = assigned(tmp_path / "1", TWO)
    after, fitter = assigned(tmp_path / "2", TWO | {"a3": [1], "d1": [4], "d2": [4]}, book=before)
    for old in before.people:
        (new,) = (one for one in after.people if one.name == old.name)
        assert new.identities == old.identities
        assert set(old.faces) <= set(new.faces)
    assert [len(person["faces"]) for person in fitter.asked] == [2]
    assert nobody_shares(after)
    again, fitter = assigned(tmp_path / "3", TWO | {"a3": [1], "d1": [4], "d2": [4]}, book=after)
    assert again == after
    assert fitter.asked == []


def test_an_identity_that_falls_is_followed_by_the_reserve_if_that_holds(tmp_path: Path) -> None:
    before, _ = assigned(tmp_path / "1", TWO)
    first, reserve = of(before, "a1").identities
    after, fitter = assigned(tmp_path / "2", TWO, book=before, fallen={seed(first)})
    assert [person["candidates"][0] for person in fitter.asked] == [reserve]
    assert of(after, "a1").identities[0] == reserve
    assert of(after, "b1").identities == of(before, "b1").identities
    assert first not in of(after, "a1").identities
    assert nobody_shares(after)
    every = {name for one in before.people for name in one.identities}
    anew, _ = assigned(tmp_path / "3", TWO, book=before, fallen=set(map(seed, every)))
    assert nobody_shares(anew)
    assert all(one.identities and not set(one.identities) & every for one in anew.people)


def test_what_somebody_wore_who_is_gone_nobody_gets_again(tmp_path: Path) -> None:
    book, gone = None, set()
    for k in range(12):
        book, _ = assigned(tmp_path / str(k), {f"x{k}": [100 + k]}, book=book)
        (one,) = book.people
        assert not gone & set(one.identities)
        assert gone == book.retired
        gone |= set(one.identities)


def test_the_pool_grows_until_everybody_finds_something(tmp_path: Path) -> None:
    sizes = []

    def pool(wanted: int) -> Pool:
        sizes.append(wanted)
        return pool_of(6) if len(sizes) < 2 else POOL

    book, _ = assigned(tmp_path, {f"x{k}": [k] for k in range(12)}, pool=pool)
    assert all(one.identities for one in book.people)
    assert sizes[0] == pool_for(12)
    assert len(sizes) == 2
    assert nobody_shares(book)
    few, _ = assigned(tmp_path / "few", {f"x{k}": [k] for k in range(12)}, pool=lambda _: pool_of(6))
    assert 0 < sum(bool(one.identities) for one in few.people) < 12  # the others are covered
    assert nobody_shares(few)
    later, _ = assigned(tmp_path / "later", {f"x{k}": [k] for k in range(12)}, book=few)
    assert all(one.identities for one in later.people)
    assert all(of(later, f"x{k}").identities[:1] == of(few, f"x{k}").identities[:1] or not of(few, f"x{k}").identities for k in range(12))
    assert pool_for(1000) > 1000


def test_the_identity_that_most_photos_wear_becomes_the_first(tmp_path: Path) -> None:
    before, _ = assigned(tmp_path / "1", {"a1": [1], "b1": [2]})
    first, reserve = of(before, "a1").identities
    folder = tmp_path / "2"
    work = Ledger(str(folder / "out"), str(folder / "out-work"))
    row = {"image_id": "a1", "path": "a1.jpg", "face_no": 0, "identity_id": reserve}
    tables = {name: pa.table({"path": ["a1.jpg"]}) for name in (*ANONYMIZE.tables, *ANONYMIZE.kept)}
    tables["published"] = pa.Table.from_pylist([row], schema=published_schema(GUARDS))
    work.commit_part(ANONYMIZE, 0, tables, {})
    after, fitter = assigned(folder, {"a1": [1], "a2": [1], "b1": [2]}, book=before)
    assert of(after, "a2").identities == (reserve, first)
    assert fitter.asked == []
    same, _ = assigned(tmp_path / "3", {"a1": [1], "a2": [1], "b1": [2]}, book=before)
    assert of(same, "a2").identities == (first, reserve)


@settings(deadline=None, max_examples=10)
@given(
    photos=st.lists(st.lists(st.integers(1, 8), max_size=3, unique=True), min_size=1, max_size=10),
    split=st.integers(0, 10),
    fallen=st.sets(st.integers(0, SIZE - 1), max_size=60),
)
def test_whatever_comes_and_goes_nobody_shares_a_fake(
    tmp_path_factory: pytest.TempPathFactory, photos: list[list[int]], split: int, fallen: set[int]
) -> None:
    every = {f"i{k}": people for k, people in enumerate(photos)}
    folder = tmp_path_factory.mktemp("run")
    first, _ = assigned(folder / "1", dict(list(every.items())[:split]))
    book, _ = assigned(folder / "2", dict(list(every.items())[split // 2 :]), book=first, fallen=fallen)
    assert nobody_shares(book)
    for one in book.people:
        images = [image for image, _ in one.faces]
        assert len(images) == len(set(images))
        assert not fallen & set(map(seed, one.identities))
