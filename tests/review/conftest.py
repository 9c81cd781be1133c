from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_result import USUAL, Served, covered, face, kept, make_result

from mfmc_ray.faces.faces import Image
from mfmc_ray.ledger import Ledger
from mfmc_ray.review.decisions import Reviews
from mfmc_ray.review.pictures import Pictures
from mfmc_ray.review.queue import queue_of
from mfmc_ray.review.server import ReviewServer
from mfmc_ray.review.session import Session

FACES = 90


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The page of a made-up result with `FACES` faces in two parts; the original of image 5 is gone."""
    rows = [kept(i) if i % 10 == 3 else covered(i) if i % 10 == 6 else face(i, room=0.002 * i) for i in range(FACES)]
    ledger = make_result(tmp_path, [rows[:60], rows[60:]])

    def original(image_id: str) -> Image:
        if image_id == rows[5]["image_id"]:
            raise FileNotFoundError
        return np.full((96, 96, 3), 200, np.uint8)

    queue = queue_of(parts_of(ledger), Reviews.load(ledger.work), USUAL, most=80)
    pictures = Pictures(ledger, {}, original, 10**6)
    session = Session(ledger.work, queue, pictures, lambda: found.fresh)
    with ReviewServer(session) as server:
        found = Served(server, session, ledger.work)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def parts_of(ledger: Ledger) -> Iterator[tuple[int, pa.Table]]:
    for number, name in enumerate(ledger.files("faces")):
        yield number, pq.read_table(pa.BufferReader(ledger.read_bytes(name)))
