"""Poisoned images in a pass on Ray: the workers die for real, over pictures that a planted decoder cannot bear.

`benchmarks/fuzz.py --poison` does the same with a whole run.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import poison
import pyarrow as pa
import pytest
import ray
from bad_images import bad_images, save
from PIL import Image

from mfmc_ray.config import RayConfig, load
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline import scan
from mfmc_ray.pipeline.parts import WORKER_DEATHS, run_parts
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.session import connect, plan_of
from mfmc_ray.pipeline.workers import SCAN, ScanWorker
from mfmc_ray.tables import scan_schema

pytestmark = pytest.mark.ray
for module in (poison, sys.modules[__name__]):
    ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import tests


class PoisonedScan(ScanWorker):
    """Without models, which would be loaded after each death."""

    def __init__(self, config: Any, ledger: Ledger, stage: Any) -> None:
        self.ledger, self.stage = ledger, stage
        self.watch = self.watch_of(config=config, ledger=ledger, stage=stage)
        self.scan = ScanStage(poison.NobodyThere(), config.find.max_pixels, watch=self.watch)  # type: ignore[arg-type]
        poison.plant(scan, "decode", "scan", ledger.work)


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with connect(RayConfig(actors=2), tmp_path_factory.mktemp("ray")):
        yield


def test_poisoned_images_cost_themselves_only(tmp_path: Path) -> None:
    plain = save(Image.fromarray(np.full((40, 60, 3), 99, np.uint8)), "JPEG")
    files = {f"good {i}.jpg": save(Image.new("RGB", (40, 30 + i), "navy"), "JPEG") for i in range(10)}
    poisoned = {"bad 1.jpg": plain + b"poison crash scan 1", "bad 2.jpg": plain + b"poison hang scan 2"}
    assert 2 * len(poisoned) > WORKER_DEATHS  # more in one part than deaths that nobody is blamed for
    files |= poisoned | {"truncated.jpg": bad_images()["truncated.jpg"]}
    units = []
    for name, data in sorted(files.items()):
        (tmp_path / name).write_bytes(data)
        units.append({"unit": str(tmp_path / name), "path": name, "kind": "file", "size": len(data), "version": "1", "listed": 0})
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    parts = [{"part": i, "units": some, "drop": [], "moved": {}, "committed": False} for i, some in enumerate((units[:8], units[8:]))]

    def rows(seconds: float) -> dict[str, str | None]:
        arguments = {"config": load(None, find__max_seconds=seconds), "ledger": ledger, "stage": SCAN}
        run_parts(PoisonedScan, arguments, parts, plan=plan_of(RayConfig(actors=2)), label="scan", total=13, on_result=lambda *_: None)
        summaries = ledger.done(SCAN)
        assert summaries[0]["bad"] == {"kills_decoder": 1, "too_slow": 1}
        assert summaries[1]["bad"] == {"truncated": 1}
        table = pa.concat_tables([ledger.read_table(SCAN, "scan", part) for part in (0, 1)])
        assert table.schema.equals(scan_schema(poison.NobodyThere.dimensions))
        assert table["path"].to_pylist() == sorted(files)
        assert table["image_id"].to_pylist() == [hashlib.sha256(files[name]).hexdigest() for name in sorted(files)]
        return dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))

    expected = {**dict.fromkeys(files), "bad 1.jpg": "kills_decoder", "bad 2.jpg": "too_slow", "truncated.jpg": "truncated"}
    assert rows(1.0) == expected
    tried = poison.tried(ledger.work)
    assert sorted(tried) == sorted(2 * [("scan", hashlib.sha256(data).hexdigest()) for data in poisoned.values()])
    # again, as after a crash of the whole run or in the next night: nobody dies any more
    assert rows(60.0) == expected
    assert poison.tried(ledger.work) == tried
    assert list((ledger.work / "watch").iterdir()) == []
