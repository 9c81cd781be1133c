"""Photos for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bad_images import save
from PIL import Image
from skimage.data import astronaut, coffee


def write_photos(folder: Path, count: int) -> Path:
    """A face, cut out and lit in as many ways, and now and then a cup; returns the folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        x, y = rng.integers(-12, 12, 2)
        source = coffee()[100 + y : 228 + y, 200 + x : 328 + x] if i % 4 == 3 else astronaut()[40 + y : 168 + y, 160 + x : 288 + x]
        pixels = np.clip(source * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
        (folder / f"{i:02}.jpg").write_bytes(save(Image.fromarray(pixels), "JPEG", quality=92))
    return folder
