"""The index on disk: generations, commits, and what it says of damage."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mfmc_ray.known import generations
from mfmc_ray.known.index import EMPTY_DIGEST, KnownFaces, KnownIndex, KnownIndexError, known_rows
from mfmc_ray.retry import StoreError
from mfmc_ray.tables import known_schema

F32 = NDArray[np.float32]
DIMS = {"sface": 128, "dlib": 16}


def faces(seed: int, n: int) -> tuple[list[str], list[str], dict[str, F32]]:
    rng = np.random.default_rng(seed)
    vectors = {name: rng.standard_normal((n, dim)) for name, dim in DIMS.items()}
    unit = {name: np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), np.float32) for name, v in vectors.items()}
    return [f"{seed:064x}:{i}" for i in range(n)], ["collection"] * n, unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of three generations: 5, 3 and 4 faces."""
    index = KnownIndex.open(tmp_path / "known", DIMS, {"sface": "aa"})
    for generation, n in enumerate((5, 3, 4)):
        assert index.append(*faces(generation, n)) == generation
    return tmp_path / "known"


def test_a_new_index_is_empty(tmp_path: Path) -> None:
    index = KnownIndex.open(tmp_path / "known", DIMS)
    assert (len(index), index.generation, index.digest, index.ids) == (0, -1, EMPTY_DIGEST, [])
    assert index.vectors("sface").shape == (0, 128)
    similarity, nearest = index.nearest("sface", faces(0, 2)[2]["sface"])
    assert similarity.tolist() == [-1, -1]
    assert nearest == [None, None]
    assert index.append([], [], {name: np.zeros((0, dim), np.float32) for name, dim in DIMS.items()}) == -1
    assert not (tmp_path / "known").exists()


def test_what_was_appended_is_read_back(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS)
    expected = [faces(generation, n) for generation, n in enumerate((5, 3, 4))]
    assert index.ids == [known_id for ids, _, _ in expected for known_id in ids]
    assert (len(index), index.generation) == (12, 2)
    for name in DIMS:
        np.testing.assert_array_equal(index.vectors(name), np.concatenate([e[2][name] for e in expected]))
        similarity, nearest = index.nearest(name, index.vectors(name)[[11, 0, 6]])
        np.testing.assert_allclose(similarity, 1, atol=1e-6)
        assert nearest == [index.ids[11], index.ids[0], index.ids[6]]


def test_files_are_generations_with_the_schema_of_tables(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [f"generation-0000{g}.{s}" for g in range(3) for s in ("json", "parquet")]
    table = pq.read_table(folder / "generation-00001.parquet")
    assert table.schema.equals(known_schema(DIMS))
    assert table["source"].to_pylist() == ["collection"] * 3
    header = json.loads((folder / "generation-00001.json").read_text())
    assert set(header) == {"rows", "recognizers", "models", "created", "digest"}
    assert (header["rows"], header["recognizers"], header["models"]) == (3, DIMS, {"sface": "aa"})


def test_digest_is_of_the_content_and_its_order(tmp_path: Path, folder: Path) -> None:
    same = KnownIndex.open(tmp_path / "same", DIMS, {"sface": "aa"})
    digests = [same.digest]
    for generation, n in enumerate((5, 3, 4)):
        same.append(*faces(generation, n))
        digests.append(same.digest)
    assert same.digest == KnownIndex.open(folder, DIMS).digest
    assert len(set(digests)) == 4
    other = KnownIndex.open(tmp_path / "other", DIMS, {"sface": "aa"})
    for generation, n in ((1, 3), (0, 5), (2, 4)):
        other.append(*faces(generation, n))
    assert other.digest not in digests


def test_an_append_finds_the_new_faces(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS)
    ids, sources, new = faces(9, 2)
    assert index.nearest("sface", new["sface"])[1] != ids
    assert index.append(ids, sources, new) == 3
    assert index.nearest("sface", new["sface"])[1] == ids


def test_an_append_can_be_repeated(folder: Path) -> None:
    """A job that was killed after its append appends again."""
    index = KnownIndex.open(folder, DIMS)
    digest = index.digest
    assert index.append(*faces(1, 3)) == 2
    assert (index.digest, len(index)) == (digest, 12)
    old, new = faces(1, 3), faces(7, 2)
    both = {name: np.concatenate([old[2][name], new[2][name], new[2][name]]) for name in DIMS}
    assert index.append(old[0] + new[0] + new[0], old[1] + new[1] + new[1], both) == 3
    assert KnownIndex.open(folder, DIMS).ids[12:] == new[0]


def test_a_known_id_with_another_face_is_added(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS)
    (ids, sources, _), (_, _, other) = faces(1, 3), faces(8, 3)
    assert index.append(ids, sources, other) == 3
    assert len(index) == 15
    np.testing.assert_allclose(index.nearest("dlib", other["dlib"])[0], 1, atol=1e-6)


@pytest.mark.parametrize("left", ["generation-00003.parquet", "generation-00003.parquet.tmp", "generation-00003.json.tmp"])
def test_what_was_not_committed_is_ignored(folder: Path, left: str) -> None:
    """A process killed in an append leaves files; the next append replaces them."""
    (folder / left).write_bytes(b"half")
    index = KnownIndex.open(folder, DIMS)
    assert (index.generation, len(index)) == (2, 12)
    assert index.append(*faces(3, 2)) == 3
    assert len(KnownIndex.open(folder, DIMS)) == 14


def test_an_unfinished_file_with_embeddings_goes_with_a_removal(folder: Path) -> None:
    half = folder / f".generation-00003.parquet.{'0' * 32}.tmp"
    half.write_bytes(b"half")
    index = KnownIndex.open(folder, DIMS)
    index.remove([index.ids[0]])
    assert not half.exists()


def test_a_failed_write_leaves_the_index_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = KnownIndex.open(folder, DIMS)
    before = index.digest
    write = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".json":
            raise OSError(28, "No space left on device")
        return write(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="no space left"):
        index.append(*faces(3, 2))
    assert (index.digest, len(index)) == (before, 12)
    monkeypatch.undo()
    assert KnownIndex.open(folder, DIMS).digest == before


def test_two_writers_do_not_overwrite(folder: Path) -> None:
    first, second = KnownIndex.open(folder, DIMS), KnownIndex.open(folder, DIMS)
    first.append(*faces(3, 2))
    with pytest.raises(KnownIndexError, match="another process"):
        second.append(*faces(4, 2))
    assert KnownIndex.open(folder, DIMS).digest == first.digest


def rewrite(path: Path, **columns: pa.Array) -> None:
    table = pq.read_table(path)
    for name, array in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), array)
    pq.write_table(table, path)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_vectors(path: Path) -> None:
    vectors = np.array(pq.read_table(path)["embedding_sface"].to_pylist(), np.float32)
    vectors[0] = -vectors[0]
    rewrite(path, embedding_sface=pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 128))


def drop_row(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


PARQUET, COMMIT = "generation-00001.parquet", "generation-00001.json"
TAMPERINGS = {
    "a vector": lambda f: other_vectors(f / PARQUET),
    "an id": lambda f: rewrite(f / PARQUET, known_id=pa.array(["x:0", "y:0", "z:0"])),
    "a null id": lambda f: rewrite(f / PARQUET, known_id=pa.array([None, "y:0", "z:0"], pa.string())),
    "a source": lambda f: rewrite(f / PARQUET, source=pa.array(["reference"] * 3)),
    "null vectors": lambda f: rewrite(f / PARQUET, embedding_dlib=pa.nulls(3, pa.list_(pa.float32(), 16))),
    "a missing row": lambda f: drop_row(f / PARQUET),
    "a missing row and its count": lambda f: (drop_row(f / PARQUET), edit(f / COMMIT, rows=2)),
    "a byte": lambda f: flip_byte(f / PARQUET),
    "the digest": lambda f: edit(f / COMMIT, digest="0" * 64),
    "the models": lambda f: edit(f / COMMIT, models={}),
    "no digest": lambda f: (f / COMMIT).write_text("{}"),
    "no object": lambda f: (f / COMMIT).write_text("[]"),
    "half a commit": lambda f: (f / COMMIT).write_text('{"rows": 3'),
    "no parquet": lambda f: (f / PARQUET).unlink(),
    "no commit": lambda f: (f / COMMIT).unlink(),
    "swapped generations": lambda f: [
        (f / f"generation-0000{a}.{s}").rename(f / f"generation-0000{b}.{s}")
        for s in ("json", "parquet")
        for a, b in ((1, 9), (2, 1), (9, 2))
    ],
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_seen(folder: Path, what: str) -> None:
    TAMPERINGS[what](folder)
    with pytest.raises(KnownIndexError, match="generation-0000"):
        KnownIndex.open(folder, DIMS)


@pytest.mark.parametrize("recognizers", [{"sface": 128}, {"sface": 128, "dlib": 16, "arcface": 512}, {"sface": 64, "dlib": 16}])
def test_other_recognizers_are_refused(folder: Path, recognizers: dict[str, int]) -> None:
    with pytest.raises(KnownIndexError, match="wanted"):
        KnownIndex.open(folder, recognizers)


def test_other_models_are_refused(folder: Path) -> None:
    with pytest.raises(KnownIndexError, match="another sface model"):
        KnownIndex.open(folder, DIMS, {"sface": "bb"})
    assert len(KnownIndex.open(folder, DIMS, {"sface": "aa", "dlib": "cc"})) == 12


def test_unusable_rows_are_refused(tmp_path: Path) -> None:
    index = KnownIndex.open(tmp_path / "known", DIMS)
    ids, sources, good = faces(0, 3)
    for value in (np.nan, np.inf, 5):
        bad = {name: v.copy() for name, v in good.items()}
        bad["dlib"][1, 0] = value
        with pytest.raises(ValueError, match=f"dlib embedding of {ids[1]}"):
            index.append(ids, sources, bad)
    for args, says in (
        ((ids[:2], sources, good), "2 ids"),
        ((ids, sources, {"sface": good["sface"]}), "dlib, sface"),
        ((ids, ["web"] * 3, good), "'web'"),
        ((["", *ids[1:]], sources, good), "empty"),
        ((["a\0", *ids[1:]], sources, good), "NUL"),
        ((ids, sources, {**good, "sface": good["sface"].astype(np.float64)}), "float64"),
        ((ids, sources, {**good, "sface": good["sface"][:2]}), r"\(3, 128\)"),
    ):
        with pytest.raises(ValueError, match=says):
            index.append(*args)
    assert index.generation == -1
    assert not (tmp_path / "known").exists()
    with pytest.raises(ValueError, match="no embeddings of 'arcface'"):
        index.nearest("arcface", good["sface"])


def test_known_faces_travel_as_arrays(folder: Path) -> None:
    """Protocol 5 passes plain arrays out of band, which is what Ray maps without copying; only small change stays in the pickle."""
    known = KnownIndex.open(folder, DIMS).faces
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(known, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 3
    assert len(small) < 1500
    copy = pickle.loads(small, buffers=buffers)
    assert copy.known_id(4) == faces(0, 5)[0][4]
    assert copy.digest == known.digest
    assert copy.known_id(-1) is None


def test_known_faces_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted \(2, d\)"):
        KnownFaces(np.array([b"a", b"b"]), {"sface": np.zeros((3, 128), np.float32)}, 0, EMPTY_DIGEST)


def test_since_gives_what_was_added_later(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS)
    assert index.faces.starts == (0, 5, 8)
    later = index.faces.since(1)
    assert [bytes(i).decode() for i in later.ids] == faces(2, 4)[0]
    assert np.shares_memory(later.vectors["sface"], index.faces.vectors["sface"])
    assert len(index.faces.since(2)) == 0
    assert len(index.faces.since(-1)) == 12


@pytest.mark.parametrize("bounds", [(0, 12), (3, 9), (5, 8), (11, 12), (4, 4), (0, 99)])
def test_some_rows_are_the_rows_of_the_whole(folder: Path, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "ROWS_AT_ONCE", 2)
    index = KnownIndex.open(folder, DIMS)
    index.append(*faces(5, 7))
    index.remove([faces(0, 5)[0][2], faces(5, 7)[0][0]])
    whole, some = KnownIndex.open(folder, DIMS).faces, known_rows(folder, DIMS, *bounds)
    assert some.ids.tolist() == whole.ids[slice(*bounds)].tolist()
    assert (some.generation, some.digest) == (whole.generation, whole.digest)
    for name in DIMS:
        np.testing.assert_array_equal(some.vectors[name], whole.vectors[name][slice(*bounds)])


def test_an_index_can_be_checked_and_enlarged_without_holding_its_vectors(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS, vectors=False)
    assert (index.faces.vectors, len(index), index.digest) == ({}, 12, KnownIndex.open(folder, DIMS).digest)
    assert index.append(*faces(1, 3)) == 2
    assert index.append(*faces(4, 2)) == 3
    assert KnownIndex.open(folder, DIMS).digest == index.digest
    other_vectors(folder / PARQUET)
    with pytest.raises(KnownIndexError, match="generation-00001"):
        KnownIndex.open(folder, DIMS, vectors=False)


def needles(vectors: dict[str, F32], row: int) -> list[bytes]:
    return [array[row].tobytes() for array in vectors.values()]


def test_a_removed_face_is_nowhere_and_its_id_never_comes_back(folder: Path) -> None:
    index = KnownIndex.open(folder, DIMS)
    ids, sources, vectors = faces(1, 3)
    stored = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert all(needle in stored for needle in needles(vectors, 1))
    before = index.digest
    assert index.remove([ids[1], "nobody:0"]) == 1
    stored = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert not any(needle in stored for needle in needles(vectors, 1))
    assert all(needle in stored for row in (0, 2) for needle in needles(vectors, row))
    assert ids[1].encode() not in stored
    opened = KnownIndex.open(folder, DIMS)
    assert (opened.generation, opened.digest, len(opened)) == (3, index.digest, 11)
    assert opened.digest != before
    assert ids[1] not in opened.ids
    assert opened.faces.is_forgotten(ids[1])
    assert not opened.faces.is_forgotten(ids[0])
    assert opened.append(ids, sources, vectors) == 3
    assert opened.remove([ids[1]]) == 0
    assert opened.append(*faces(6, 2)) == 4
    assert opened.remove([ids[0], faces(6, 2)[0][1]]) == 2
    assert KnownIndex.open(folder, DIMS).ids == opened.ids
    assert len(opened.ids) == 11


def test_what_was_removed_is_removed_by_its_removal_only(folder: Path) -> None:
    """Nobody can take a row out of a file and call it forgotten."""
    index = KnownIndex.open(folder, DIMS)
    index.remove([faces(1, 3)[0][1]])
    for removal in (3, 2):
        plain = json.loads((folder / "generation-00003.json").read_text())
        extra = [1, removal - 1, "0" * 64, "0" * 64]
        edit(folder / "generation-00003.json", forgets=[*plain["forgets"], extra])
        with pytest.raises(KnownIndexError, match="generation-0000"):
            KnownIndex.open(folder, DIMS)
        (folder / "generation-00003.json").write_text(json.dumps(plain))
    path = folder / "generation-00001.r00003.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(KnownIndexError, match="generation-00001"):
        KnownIndex.open(folder, DIMS)


def test_a_removal_that_was_killed_is_complete_for_readers_and_can_be_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = KnownIndex.open(folder, DIMS)
    gone = [faces(0, 5)[0][0], faces(2, 4)[0][3]]
    written: list[str] = []
    write = generations.Header.write

    def killed(self: generations.Header, where: Path) -> None:
        if self.purged >= 0 and self.number == 2:
            raise KeyboardInterrupt
        written.append(f"{self.number}")
        write(self, where)

    monkeypatch.setattr(generations.Header, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        index.remove(gone)
    monkeypatch.undo()
    assert written == ["3", "0"]
    half = KnownIndex.open(folder, DIMS)
    assert len(half) == 10
    assert not set(gone) & set(half.ids)
    assert known_rows(folder, DIMS, 0, 10).ids.tolist() == half.faces.ids.tolist()
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert needles(faces(2, 4)[2], 3)[0] in stored
    assert half.remove([]) == 0
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(needle in stored for needle in needles(faces(2, 4)[2], 3) + needles(faces(0, 5)[2], 0))
    assert KnownIndex.open(folder, DIMS).ids == half.ids
