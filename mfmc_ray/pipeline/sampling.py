"""Which published images an audit looks at, and what a look at some of them says about all.

The bound is exact: of N images K violate, n are drawn without replacement, so the number X of those drawn that violate is hypergeometric.
After v were seen, every K with P(X ≤ v) ≤ 1 − confidence is refuted, and the largest K that is not is the upper limit (Clopper and Pearson,
"The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934; for a finite population: Buonaccorsi,
"A note on confidence intervals for proportions in finite populations", The American Statistician 1987).
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mfmc_ray.config import ConfigError
from mfmc_ray.ledger import Ledger

CONFIDENCE, SURER = 0.95, 0.99
_ROUNDING = 1e-7  # of the logarithms of factorials; a tie is decided for the larger K


@dataclass(frozen=True)
class Sample:
    """How many images to look at, and which.

    Attributes:
        images: so many, at least 1; None: all, or the share.
        share: of the published images, in (0, 1]; None: `images` says.
        seed: what decides which. None: drawn by `secrets` when the sample is drawn, so that whoever made OUT could not know it.
    """

    images: int | None = None
    share: float | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, text: str | None, seed: int | None = None) -> Sample:
        """From "200" or "5%"; None means all.

        Raises:
            ConfigError: for something else, or a seed without a sample.
        """
        if text is None:
            if seed is not None:
                raise ConfigError("--sample-seed is of use with --sample only: without it every image is looked at")
            return cls()
        number = text.strip().removesuffix("%")
        try:
            if number != text.strip():
                share = float(number) / 100
                if 0 < share <= 1:
                    return cls(share=share, seed=seed)
            elif int(number) > 0:
                return cls(images=int(number), seed=seed)
        except ValueError:
            pass
        raise ConfigError(f"--sample wants a number of images or a share of them, as 200 or 5%, not {text!r}")

    @property
    def everything(self) -> bool:
        """Whether all images are looked at."""
        return self.images is None and (self.share is None or self.share == 1)

    def size(self, of: int) -> int:
        """How many of so many images."""
        if self.everything:
            return of
        return min(of, self.images if self.images is not None else math.ceil(round((self.share or 1) * of, 9)))


@dataclass(frozen=True)
class Drawn:
    """The images to look at.

    Attributes:
        rows: for each part the row numbers of its table of images, rising; None: look at every published image.
        of: published images; −1 as long as nobody has counted them (all are looked at then).
        seed: that decided; None if all are looked at.
        given: the seed was the user's, so somebody may have known it.
    """

    rows: list[list[int]] | None
    of: int = -1
    seed: int | None = None
    given: bool = False


def draw(sample: Sample, ledger: Ledger, names: Sequence[str | None]) -> Drawn:
    """Draws the sample, uniformly and without replacement, from the images that OUT says are published.

    An image that is there although its row says that it is not published is no part of it: the stage always looks at such.

    Args:
        sample: how many.
        ledger: where OUT is.
        names: of each part's file of images, or None.
    """
    if sample.everything:
        return Drawn(None)
    published = [_published(ledger, name) for name in names]
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in published])]).astype(int)
    total = int(starts[-1])
    seed = secrets.randbelow(1 << 53) if sample.seed is None else sample.seed  # a number that JSON holds exactly
    chosen = np.sort(random.Random(seed).sample(range(total), sample.size(total)))
    parts = np.searchsorted(starts, chosen, side="right") - 1
    rows = [[int(mine[i]) for i in chosen[parts == k] - starts[k]] for k, mine in enumerate(published)]
    return Drawn(rows, total, seed, sample.seed is not None)


def _published(ledger: Ledger, name: str | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows of a file whose image is published; none if it cannot be read, which the stage finds, too."""
    try:
        if name is None:
            return np.zeros(0, np.int64)
        verdicts = pq.read_table(pa.BufferReader(ledger.read_bytes(name)), columns=["verdict"])["verdict"]
        shown = pc.fill_null(pc.is_in(verdicts, pa.array(["unchanged", "anonymized"])), False)
        return np.flatnonzero(shown.to_numpy())
    except Exception:  # a damaged Parquet file raises nearly anything
        return np.zeros(0, np.int64)


def at_most(of: int, looked: int, violating: int, confidence: float = CONFIDENCE) -> int:
    """The largest number of violating images among all that the sample does not refute.

    Args:
        of: all images, N.
        looked: of them drawn at random without replacement, n.
        violating: of those drawn.
        confidence: in (0, 1): how often, at least, the true number is not above the result, over repeated samples.

    Raises:
        ValueError: for numbers that cannot be.
    """
    if not (0 <= violating <= looked <= of and 0 < confidence < 1):
        raise ValueError(f"{violating} of {looked} of {of} at {confidence} cannot be")
    floor = math.log1p(-confidence) - _ROUNDING
    low, high = violating, of - looked + violating  # P(X ≤ v) is 1 at the low end, and falls
    while low < high:
        middle = (low + high + 1) // 2
        if _log_cdf(violating, of, middle, looked) > floor:
            low = middle
        else:
            high = middle - 1
    return low


def _log_cdf(violating: int, of: int, bad: int, looked: int) -> float:
    """ln P(X ≤ v) of the hypergeometric distribution."""
    least, most = max(0, looked - (of - bad)), min(violating, bad, looked)
    if most < least:
        return -math.inf
    terms = [_choose(bad, x) + _choose(of - bad, looked - x) - _choose(of, looked) for x in range(least, most + 1)]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def bound(drawn: Drawn, looked: int, violating: int) -> dict[str, Any]:
    """What OUT/audit.json says of the sample.

    Args:
        drawn: which were to be looked at.
        looked: images that were.
        violating: of them, those in which something was found that must not be.
    """
    of = drawn.of if drawn.rows is not None else looked
    looked = min(looked, of)
    violating = min(violating, looked)
    most, more = (at_most(of, looked, violating, c) for c in (CONFIDENCE, SURER))
    return {
        "images": looked,
        "of": of,
        "method": "all" if looked == of else "uniform, without replacement",
        "seed": drawn.seed,
        "seed_given": drawn.given,
        "violating": violating,
        "confidence": CONFIDENCE,
        "at_most": most,
        "at_most_share": _share(most, of),
        f"at_most_{SURER * 100:.0f}": more,
        f"at_most_share_{SURER * 100:.0f}": _share(more, of),
    }


def _share(part: int, of: int) -> float:
    return float(f"{part / of:.4g}") if of else 0.0


def in_words(sample: dict[str, Any]) -> str:
    """The same as a sentence."""
    n, of, found = sample["images"], sample["of"], sample["violating"]
    if n == of:
        return f"All {of:,} published images were looked at; {found:,} violate."
    return (
        f"{n:,} of {of:,} published images, drawn at random (seed {sample['seed']}), were looked at; {found:,} of them violate. So with "
        f"{CONFIDENCE:.0%} confidence at most {sample['at_most']:,} of all ({sample['at_most_share']:.2%}) do, with {SURER:.0%} at most "
        f"{sample['at_most_99']:,} ({sample['at_most_share_99']:.2%})."
    )
