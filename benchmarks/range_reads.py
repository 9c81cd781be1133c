"""Counts what reading a few images of a shard on S3 takes: `python benchmarks/range_reads.py` (a server of its own, on this machine).

10 of 10 000 members of a tar, and 10 of 10 000 rows of a Parquet file (row groups of 100, as `datasets` writes images), by their locators,
as the pass that anonymizes does; then 200 members in a row, and all of it, as the scan does. Prints requests and bytes, and bytes over what
the images have.
"""

from __future__ import annotations

import io
import logging
import random
import tarfile
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
from moto.server import ThreadedMotoServer

from mfmc_ray.sources import SourceReader, Unit, read_unit
from mfmc_ray.stores import Store

MEMBERS, SIZE, GROUP = 10_000, 20_000, 100


def shards() -> dict[str, bytes]:
    images = [b"\xff\xd8\xff" + random.Random(i).randbytes(SIZE - 3) for i in range(MEMBERS)]
    tar_file, parquet = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar_file, mode="w") as tar:
        for i, image in enumerate(images):
            info = tarfile.TarInfo(f"{i:06d}.jpg")
            info.size = SIZE
            tar.addfile(info, io.BytesIO(image))
    pq.write_table(pa.table({"image": images}), parquet, row_group_size=GROUP, compression="none")
    return {"tar": tar_file.getvalue(), "parquet": parquet.getvalue()}


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "test", "secret": "test", "endpoint_url": f"http://{host}:{port}"}
    fs = s3fs.S3FileSystem(**options)
    fs.mkdir("bench")
    counts: Counter[str] = Counter()

    def noted(model: Any, parsed: Any, **_: Any) -> None:
        counts[model.name] += 1
        counts["bytes"] += int(parsed.get("ContentLength") or 0) if model.name == "GetObject" else 0

    for kind, data in shards().items():
        fs.pipe_file(f"bench/a.{kind}", data)
        url = f"s3://bench/a.{kind}"
        sources = [s.locator for s in read_unit(Unit(url, kind, len(data), "", f"a.{kind}"), options)]
        assert len(sources) == MEMBERS
        store = Store(url, options)
        store.fs.s3.meta.events.register("after-call.s3", noted, unique_id="noted")
        for what, chosen in (("10 far apart", sources[:: MEMBERS // 10]), ("200 in a row", sources[5000:5200]), ("all", sources)):
            counts.clear()
            reader = SourceReader(options)
            for locator in chosen:
                assert len(reader.read(url, locator)) == SIZE
            reader.close()
            requests = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if name != "bytes")
            wanted = len(chosen) * SIZE
            print(f"{kind:8} {what}: {requests}; {counts['bytes'] / 1e6:.1f} MB for {wanted / 1e6:.1f} ({counts['bytes'] / wanted:.1f} ×)")
    server.stop()


if __name__ == "__main__":
    main()
