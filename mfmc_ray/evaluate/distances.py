"""How alike two sets of feature vectors are: Fréchet distance, precision and recall, density and coverage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def frechet(one: F64, other: F64) -> float:
    """The squared Fréchet distance of two normal distributions fitted to the sets (Dowson & Landau 1982; on Inception's features it is
    FID: Heusel et al., NeurIPS 2017). 0 for equal ones; in units of the features, squared.

    Args:
        one, other: (n, d) and (m, d), n, m ≥ 2.
    """
    a, b = (np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]) for x in (one, other))
    # tr √(ab) = tr √(√a b √a), which is symmetric: no complex roots
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    return float(max(0.0, ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * middle))


def prdc(real: F64, fake: F64, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019),
    density and coverage (Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020).

    A vector's ball reaches to its k-th nearest neighbour in its own set. precision: the share of fake ones in a ball of a real one;
    recall: of real ones in a ball of a fake one; density: balls of real ones that a fake one is in, over k, on average (above 1 where the
    fake ones crowd where real ones do); coverage: the share of real ones whose ball has a fake one in it.

    Args:
        real, fake: (n, d) and (m, d), both n and m greater than k.
    """
    between = squared(real, fake)
    reach, reach_fake = (np.partition(squared(x, x), k, axis=1)[:, k] for x in (real, fake))  # 0 is itself
    inside = between <= reach[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between <= reach_fake[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float((between.min(1) <= reach).mean()),
    }


def squared(one: F64, other: F64) -> F64:
    """(n, m): squared distances."""
    found = (one * one).sum(1)[:, None] + (other * other).sum(1)[None] - 2 * one @ other.T
    return np.asarray(np.maximum(found, 0))


def components(vectors: F64, most: int) -> tuple[F64, F64]:
    """Mean (d,) and the first `most` principal directions (d, k) of vectors (n, d)."""
    mean = vectors.mean(0)
    return mean, np.linalg.svd(vectors - mean, full_matrices=False)[2][:most].T
