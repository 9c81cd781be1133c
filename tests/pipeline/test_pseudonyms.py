"""What is noted of who wears which fake: for the owner of the key only, and gone with it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mfmc_ray.key import ASSIGNED, destroy, obtain, rotate
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.pseudonyms import Book, Pseudonym, assigned_in, fault_of, same_access, version_of

BOOK = Book(
    (
        Pseudonym("a" * 32, True, ("mfmc-000000000007", "mfmc-000000000009"), (("i1", 0), ("i10", 0), ("i2", 1)), ((1, 5), (), (16,))),
        Pseudonym("b" * 32, False, ("mfmc-000000000008",), (("i2", 0),), ((),)),
        Pseudonym("c" * 32, False, (), (("i3", 0),), ((),)),
    ),
    frozenset({"mfmc-000000000001"}),
)


def test_it_is_read_as_it_was_noted_by_the_same_key_only(tmp_path: Path) -> None:
    key = obtain(tmp_path)
    BOOK.write(tmp_path, key)
    path = tmp_path / ASSIGNED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Book.read(tmp_path, key) == BOOK
    assert Book.read(tmp_path, b"other" * 6 + b"xx") == Book()
    assert Book.read(tmp_path, None) == Book()
    assert key not in path.read_bytes()
    path.write_bytes(b"something else")
    with pytest.raises(LedgerError, match="key rotate"):
        Book.read(tmp_path, key)


def test_it_goes_with_the_key_and_its_bytes_are_overwritten(tmp_path: Path) -> None:
    key = obtain(tmp_path)
    BOOK.write(tmp_path, key)
    (tmp_path / "other-name").hardlink_to(tmp_path / ASSIGNED)
    BOOK.write(tmp_path, key)
    assert not any((tmp_path / "other-name").read_bytes())  # what was noted before
    (tmp_path / "kept").hardlink_to(tmp_path / ASSIGNED)
    (tmp_path / "fitting").mkdir()
    (tmp_path / "fitting" / "part-00000.parquet").write_bytes(b"who was tried on")
    assert destroy(tmp_path)
    assert not (tmp_path / ASSIGNED).exists()
    assert not any((tmp_path / "kept").read_bytes())
    assert list((tmp_path / "fitting").iterdir()) == []
    assert assigned_in(tmp_path).of("i1", 0) == ((), ())
    BOOK.write(tmp_path, obtain(tmp_path))
    assert rotate(tmp_path) != key
    assert not (tmp_path / ASSIGNED).exists()


def test_workers_are_told_of_each_face(tmp_path: Path) -> None:
    assigned = BOOK.assigned()
    assert assigned.of("i1", 0) == (("mfmc-000000000007", "mfmc-000000000009"), (1, 5))
    assert assigned.of("i2", 1) == (("mfmc-000000000007", "mfmc-000000000009"), (16,))
    assert assigned.of("i2", 0) == (("mfmc-000000000008",), ())
    assert assigned.of("i3", 0) == ((), ())
    for face in (("i1", 1), ("i", 0), ("i4", 0)):
        assert assigned.of(*face) == ((), ())
    assert Book().assigned().of("i1", 0) == ((), ())


def test_an_image_is_made_anew_when_somebody_in_it_gets_another_fake() -> None:
    access = version_of(lambda image, path: "rows", BOOK.assigned())
    first, *others = BOOK.people
    spare = version_of(lambda *_: "rows", Book((Pseudonym(*first_but(first, ("mfmc-000000000007",))), *others)).assigned())
    other = version_of(lambda *_: "rows", Book((Pseudonym(*first_but(first, ("mfmc-000000000009",))), *others)).assigned())
    assert access("i1", "p") == spare("i1", "p") != other("i1", "p")
    assert access("i2", "p") != other("i2", "p")
    assert access("i3", "p") == other("i3", "p")
    assert access("nobody's", "p") == "rows"
    assert access(None, "p") == "rows"
    assert same_access(access("i1", "p"), other("i1", "p"))
    assert not same_access(access("i1", "p"), version_of(lambda *_: "others", BOOK.assigned())("i1", "p"))
    assert version_of(lambda *_: "rows", None)("i1", "p") == "rows"


def first_but(one: Pseudonym, identities: tuple[str, ...]) -> tuple[object, ...]:
    return one.name, one.enrolled, identities, one.faces, one.steps


def test_the_audit_knows_who_wears_what_as_long_as_the_key_is_there(tmp_path: Path) -> None:
    BOOK.write(tmp_path, obtain(tmp_path))
    row = {"image_id": "i2", "face_no": 0, "identity_id": "mfmc-000000000008"}
    fault = fault_of("person", tmp_path)
    assert fault(row) is None
    assert fault(row | {"face_no": 1}) == fault(row | {"identity_id": "mfmc-000000000007"}) == "it wears what is not its person's"
    assert fault_of("image", tmp_path)(row | {"face_no": 1}) is None
    destroy(tmp_path)
    assert fault_of("person", tmp_path)(row | {"face_no": 1}) is None
