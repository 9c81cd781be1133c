"""What a reviewer is shown of a face, from wherever the result is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_result import face, image_id, make_result, picture
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)

from mfmc_ray.codec import decode
from mfmc_ray.faces.faces import Image
from mfmc_ray.ledger import Ledger
from mfmc_ray.review.pictures import FACE_PX, Pictures
from mfmc_ray.review.queue import Item


def item(part: int, row: dict[str, Any]) -> Item:
    return Item(row, part, 0.0, ())


def colour(data: bytes) -> Image:
    return np.median(decode(data).pixels.reshape(-1, 3), 0).astype(np.uint8)


def shows_each_its_own(ledger: Ledger, options: dict[str, Any]) -> None:
    pictures = Pictures(ledger, options, lambda name: np.full((96, 96, 3), 7, np.uint8), 10**6)
    for number in (150, 3, 151, 4, 3):  # back and forth, and in two row groups of one part
        views = pictures(number, item(1 if number == 151 else 0, face(number)))
        assert set(views) == {"after", "before", "whole"}
        np.testing.assert_allclose(colour(views["after"]).astype(int), colour(picture(number)).astype(int), atol=4)
        assert decode(views["after"]).pixels.shape == (FACE_PX, FACE_PX, 3)
    elsewhere = item(1, face(3))  # not in that part
    assert set(pictures(900, elsewhere)) == {"before"}


def test_pictures_of_a_local_result(tmp_path: Path) -> None:
    ledger = make_result(tmp_path, [[face(i) for i in range(151)], [face(151)]])
    shows_each_its_own(ledger, {})
    (tmp_path / "out" / "images" / "part-00000.parquet").unlink()
    assert Pictures(ledger, {}, None, 10**6)(0, item(0, face(3))) == {}


def test_pictures_of_a_result_in_an_object_store(tmp_path: Path, s3: S3) -> None:  # noqa: F811
    ledger = make_result(tmp_path, [[face(i) for i in range(151)], [face(151)]], s3.url("out"), s3.options)
    shows_each_its_own(ledger, s3.options)


def test_an_original_that_cannot_be_had_is_left_out(tmp_path: Path) -> None:
    ledger = make_result(tmp_path, [[face(1)]])
    for error in (OSError, ValueError, KeyError):

        def original(name: str, error: type[Exception] = error) -> Image:
            assert name == image_id(1)
            raise error

        assert set(Pictures(ledger, {}, original, 10**6)(0, item(0, face(1)))) == {"after", "whole"}
    with pytest.raises(ZeroDivisionError):  # nothing else is hidden
        Pictures(ledger, {}, lambda name: 1 / 0, 10**6)(0, item(0, face(1)))  # type: ignore[arg-type,return-value]
