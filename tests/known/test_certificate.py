"""The guard: what it certifies is true, and what it cannot show does not pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known.calibration import Calibration, CalibrationError
from mfmc_ray.known.certificate import REASONS, Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import rounding_bound
from mfmc_ray.tables import CERTIFICATE

F32 = NDArray[np.float32]
CALIBRATION = Calibration()
STRICT = {"sface": 0.363, "dlib": 0.92}
BOTH = ("sface", "dlib")


def unit(vectors: NDArray[Any]) -> F32:
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


def random_unit(seed: int, n: int) -> F32:
    return unit(np.random.default_rng(seed).standard_normal((n, 128)))


def known(**vectors: F32) -> KnownFaces:
    n = len(next(iter(vectors.values())))
    return KnownFaces(np.array([f"k:{i}".encode() for i in range(n)], np.bytes_), vectors, 4, "d" * 64)


def guard(threshold: dict[str, float] = STRICT, **vectors: F32) -> Guard:
    return Guard(known(**vectors), {name: threshold[name] for name in vectors}, CALIBRATION)


def brute(a: F32, b: F32) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(1, 300), st.floats(0.05, 0.4))
@settings(max_examples=50, deadline=None)
def test_certificates_are_brute_force(seed: int, n: int, n_known: int, threshold: float) -> None:
    queries = {name: random_unit(seed + i, n) for i, name in enumerate(BOTH)}
    faces = {name: random_unit(seed + 10 + i, n_known) for i, name in enumerate(BOTH)}
    originals = {name: random_unit(seed + 20 + i, n) for i, name in enumerate(BOTH)}
    verdicts = guard(dict.fromkeys(BOTH, threshold), **faces).certify(queries, originals)
    assert len(verdicts) == n
    exact = {name: brute(queries[name], faces[name]) for name in BOTH}
    own = {name: np.diag(brute(queries[name], originals[name])) for name in BOTH}
    for i, verdict in enumerate(verdicts):
        for certificate in verdict.certificates:
            name = certificate.recognizer
            assert certificate.max_similarity == pytest.approx(exact[name][i].max(), abs=1e-5)
            assert certificate.nearest_known == f"k:{exact[name][i].argmax()}"
            assert certificate.passed == (exact[name][i].max() + rounding_bound(128) < threshold)
            assert verdict.similarity_to_original[name] == pytest.approx(own[name][i], abs=1e-5)
        assert [c.recognizer for c in verdict.certificates] == list(BOTH)
        clear_of_known = all(exact[name][i].max() + rounding_bound(128) < threshold for name in BOTH)
        clear_of_own = all(own[name][i] + rounding_bound(128) < threshold for name in BOTH)
        assert verdict.passed == (clear_of_known and clear_of_own)
        assert verdict.reason == (None if verdict.passed else "similar_to_original" if not clear_of_own else "similar_to_known")


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.floats(0.05, 0.4))
@settings(max_examples=50, deadline=None)
def test_clear_is_what_one_recognizer_certifies(seed: int, n: int, threshold: float) -> None:
    queries = random_unit(seed, n)
    queries[::5] *= 0.5  # unusable
    one = guard({"sface": threshold}, sface=random_unit(seed + 1, 100))
    assert one.clear("sface", queries).tolist() == [verdict.passed for verdict in one.certify({"sface": queries})]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 200), st.integers(1, 200), st.floats(0.1, 0.4))
@settings(max_examples=50, deadline=None)
def test_more_known_faces_never_turn_fail_into_pass(seed: int, n: int, before: int, added: int, threshold: float) -> None:
    queries, faces = {"sface": random_unit(seed, n)}, random_unit(seed + 1, before + added)
    few = guard({"sface": threshold}, sface=np.ascontiguousarray(faces[:before])).certify(queries)
    many = guard({"sface": threshold}, sface=faces).certify(queries)
    for old, new in zip(few, many, strict=True):
        assert old.passed or not new.passed
        assert new.certificates[0].max_similarity >= old.certificates[0].max_similarity


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.floats(0.9990001, 1.0009999), st.floats(-0.9, 0.999))
@settings(max_examples=50, deadline=None)
def test_a_known_face_never_passes(seed: int, n: int, length: float, threshold: float) -> None:
    """Whatever its length and the threshold below 1: it is found, as itself."""
    faces = random_unit(seed, n)
    row = seed % n
    query = np.asarray(faces[row : row + 1] * np.float32(length), np.float32)
    (verdict,) = guard({"sface": threshold}, sface=faces).certify({"sface": query})
    assert not verdict.passed
    assert verdict.reason == "similar_to_known"
    assert verdict.certificates[0].nearest_known == f"k:{row}"
    assert verdict.certificates[0].max_similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("offset", [-2.0, -1.01, -0.5, 0.0, 0.5])
def test_the_margin_is_the_rounding_bound(offset: float) -> None:
    """Two rounding bounds below the threshold passes; inside the bound, below the threshold or not, does not."""
    rng = np.random.default_rng(3)
    face = unit(rng.standard_normal(128)).astype(np.float64)
    away = rng.standard_normal(128)
    away = unit(away - away @ face / (face @ face) * face).astype(np.float64)
    cosine = 0.363 + offset * rounding_bound(128)
    query = unit(cosine * face + np.sqrt(1 - cosine**2) * away)[None]
    faces = np.asarray(face[None], np.float32)
    for originals, knowns in ((None, faces), ({"sface": faces}, random_unit(5, 1))):
        (verdict,) = guard(sface=knowns).certify({"sface": query}, originals)
        assert verdict.passed == (offset < -1)


def test_nobody_known() -> None:
    (verdict,) = Guard(KnownFaces.empty({"sface": 128}), {"sface": 0.363}, CALIBRATION).certify({"sface": random_unit(0, 1)})
    assert verdict.passed
    certificate = verdict.certificates[0]
    assert (certificate.max_similarity, certificate.nearest_known, certificate.generation) == (-1, None, -1)
    query = {"sface": random_unit(0, 1)}
    (verdict,) = Guard(KnownFaces.empty({"sface": 128}), {"sface": 0.363}, CALIBRATION).certify(query, query)
    assert verdict.reason == "similar_to_original"


@pytest.mark.parametrize("n_known", [0, 7])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 0.99, 3e38])
@pytest.mark.parametrize("where", ["face", "original"])
def test_what_is_no_embedding_never_passes(value: float, where: str, n_known: int) -> None:
    queries, originals = random_unit(0, 3), random_unit(1, 3)
    bad = queries if where == "face" else originals
    bad[1] = bad[1] * np.float32(value) if abs(value) < 1 else np.float32(value)
    faces = np.ascontiguousarray(random_unit(2, 7)[:n_known])
    verdicts = guard(sface=faces, dlib=faces).certify(
        {"sface": queries, "dlib": random_unit(3, 3)}, {"sface": originals, "dlib": originals}
    )
    assert [v.passed for v in verdicts] == [True, False, True]
    assert verdicts[1].reason == "unusable_embedding"
    assert np.isnan(verdicts[1].similarity_to_original["sface"])
    if where == "face":
        certificate = verdicts[1].certificates[0]
        assert np.isnan(certificate.max_similarity)
        assert (certificate.passed, certificate.nearest_known) == (False, None)


def test_every_recognizer_must_pass() -> None:
    faces, queries = random_unit(0, 5), random_unit(1, 2)
    like_known = np.stack([faces[2], queries[1]])
    both = guard(sface=faces, dlib=faces)
    for embeddings in ({"sface": like_known, "dlib": queries}, {"sface": queries, "dlib": like_known}):
        assert [v.reason for v in both.certify(embeddings)] == ["similar_to_known", None]
    own = {"sface": random_unit(2, 2), "dlib": queries}
    assert [v.reason for v in both.certify({"sface": queries, "dlib": queries}, own)] == ["similar_to_original"] * 2


def test_a_raised_threshold_does_not_concern_the_original() -> None:
    """At cosine 0.4 to both: a threshold of 0.45 lets the known face pass, never the original."""
    face, away = np.eye(128, dtype=np.float32)[:2].astype(np.float64)
    query = unit(0.4 * face + np.sqrt(1 - 0.16) * away)[None]
    faces = np.asarray(face[None], np.float32)
    raised = guard({"sface": 0.45}, sface=faces)
    assert raised.certify({"sface": query})[0].passed
    assert raised.certify({"sface": query}, {"sface": faces})[0].reason == "similar_to_original"
    lowered = guard({"sface": 0.2}, sface=random_unit(4, 1))
    query = unit(0.3 * face + np.sqrt(1 - 0.09) * away)[None]
    assert lowered.certify({"sface": query}, {"sface": faces})[0].reason == "similar_to_original"


def test_certificate_rows_fit_the_table() -> None:
    (verdict,) = guard(sface=random_unit(0, 9)).certify({"sface": random_unit(1, 1)})
    row = verdict.certificates[0].row()
    assert list(row) == [field.name for field in CERTIFICATE]
    read = pa.array([row], CERTIFICATE).to_pylist()[0]
    assert read["max_similarity"] < read["threshold"]
    assert (read["generation"], read["index_digest"], read["search"]) == (4, "d" * 64, "exact")
    assert read["false_match_rate"] == CALIBRATION.fmr("sface", 0.363)
    assert set(REASONS) == {"unusable_embedding", "similar_to_original", "similar_to_known"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.certificates[0].passed = True  # type: ignore[misc]


def test_a_guard_needs_all_it_promises_with() -> None:
    faces = random_unit(0, 3)
    with pytest.raises(ValueError, match="threshold for each"):
        Guard(known(sface=faces, dlib=faces), {"sface": 0.363}, CALIBRATION)
    with pytest.raises(ValueError, match="threshold for each"):
        Guard(KnownFaces.empty({}), {}, CALIBRATION)
    for threshold in (np.nan, np.inf, -1, 1.5):
        with pytest.raises(ValueError, match="must be a cosine"):
            guard({"sface": threshold}, sface=faces)
    with pytest.raises(CalibrationError, match="'arcface'"):
        guard({"arcface": 0.3}, arcface=faces)
    spoiled = faces.copy()
    spoiled[1, 5] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        guard(sface=spoiled)


def test_missing_or_misshapen_arrays_are_refused() -> None:
    both = guard(sface=random_unit(0, 3), dlib=random_unit(1, 3))
    good = {"sface": random_unit(2, 2), "dlib": random_unit(3, 2)}
    with pytest.raises(ValueError, match="embeddings of the guard recognizer 'dlib' are missing"):
        both.certify({"sface": good["sface"]})
    with pytest.raises(ValueError, match="originals of the guard recognizer 'sface' are missing"):
        both.certify(good, {"dlib": good["dlib"]})
    for wrong in (good["dlib"][:1], good["dlib"][:, :64], good["dlib"].astype(np.float64)):
        with pytest.raises(ValueError, match="dlib must be float32"):
            both.certify({**good, "dlib": wrong})
        with pytest.raises(ValueError, match="originals of dlib"):
            both.certify(good, {**good, "dlib": wrong})
