from __future__ import annotations

import numpy as np
import pytest
from made_up_run import Run, manifest


@pytest.fixture
def run() -> Run:
    """12 pictures with 0–3 faces (coloured squares), one withheld, two that failed."""
    rng = np.random.default_rng(0)
    made = Run(manifest())
    for n in range(12):
        before = np.full((240, 320, 3), rng.integers(40, 200, 3), np.uint8)
        after = before.copy()
        boxes = [(20 + 100 * k, 60.0, 90 + 100 * k, 150.0) for k in range(n % 4)]
        for x0, y0, x1, y1 in boxes:
            before[int(y0) : int(y1), int(x0) : int(x1)] = (200, 30, 30)
            after[int(y0) : int(y1), int(x0) : int(x1)] = (30, 30, 200)
        made.add(f"album/{n:02d}.jpg", before, None if n == 7 else after, boxes, rng)
    made.fail("broken/empty.jpg", "empty file")
    made.fail("broken/text.jpg", "not an image")
    return made
