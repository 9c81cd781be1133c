"""Make `docs/before-after.jpg` from a finished demo: generated people above, what became of them below.

    mfmc demo mfmc-demo && python tools/make_readme_picture.py mfmc-demo

No real person is in it: only the demo's generated portraits are taken.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

OUT = Path(__file__).parents[1] / "docs/before-after.jpg"
CHOSEN = ("001", "004", "006", "012", "014", "018", "020", "022")
SIDE = 176


def main(demo: Path) -> None:
    rows = {row["path"]: row for row in pq.read_table(demo / "out/images").to_pylist()}
    columns = []
    for number in CHOSEN:
        path = next(path for path in rows if path.startswith(f"portraits/{number}"))
        before = ImageOps.exif_transpose(Image.open(demo / "collection/photos" / path)).convert("RGB")
        after = ImageOps.exif_transpose(Image.open(io.BytesIO(rows[path]["image"]["bytes"]))).convert("RGB")
        columns.append(np.vstack([np.asarray(ImageOps.fit(picture, (SIDE, SIDE))) for picture in (before, after)]))
    Image.fromarray(np.hstack(columns)).save(OUT, quality=88)
    print(OUT)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
