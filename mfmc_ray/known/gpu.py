"""The same products on a GPU, when `faiss-gpu` is installed and sees one.

`faiss.knn_gpu` multiplies float32 with cuBLAS in float32: FAISS asks for no TF32, so `search.rounding_bound` holds as on a CPU. As an
environment variable (NVIDIA_TF32_OVERRIDE=1) can force it, each query's best product is held against its exact cosine.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

faiss: Any
try:
    import faiss
except ImportError:  # searches on CPUs do without
    faiss = None

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MAX_NEIGHBOURS = 2048
"""FAISS's limit on a GPU."""
KNOWN_BYTES = 1 << 30
"""Of known faces on the GPU at a time."""
QUERY_BYTES = 1 << 28
"""Of queries on the GPU at a time."""


def available() -> bool:
    """Whether the installed FAISS sees a GPU."""
    return bool(getattr(faiss, "get_num_gpus", lambda: 0)() > 0)


def neighbours(queries: F32, known: F32, k: int) -> tuple[F32, I64]:
    """The k highest float32 products of each query: scores, descending, and rows, both (q, k).

    Raises:
        RuntimeError: FAISS gave less, or CUDA failed; nothing is then known about the queries.
    """
    scores, rows = faiss.knn_gpu(
        _resources(),
        queries,
        known,
        k,
        metric=faiss.METRIC_INNER_PRODUCT,
        vectorsMemoryLimit=KNOWN_BYTES,
        queriesMemoryLimit=QUERY_BYTES,
    )
    if not (np.isfinite(scores).all() and (rows >= 0).all() and (rows < len(known)).all()):
        raise RuntimeError("the search gave no nearest known face for some query; nothing may be approved on its account")
    return scores, rows


def check(scores: F32, cosines: F64, bound: float) -> None:
    """Whether products are as near to their exact cosines as was proven.

    Raises:
        RuntimeError: they are not.
    """
    if not (np.abs(scores - cosines) <= bound).all():
        raise RuntimeError(
            "the GPU does not multiply in float32, so its search proves nothing: unset NVIDIA_TF32_OVERRIDE, or hide it "
            "(CUDA_VISIBLE_DEVICES=)"
        )


@cache
def _resources() -> Any:
    return faiss.StandardGpuResources()
