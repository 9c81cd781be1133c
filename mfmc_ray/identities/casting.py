"""Casting: which fake identities a person may wear in all photos, each given to one person only.

Of the identities that nobody wears, those that look right on a person and are least like them come into question; among these the run's key
decides, and nothing else: each is as likely as any other to whoever does not have the key, whatever else they know.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.pool import Pool, Wanted
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.identities.surface import F32

FITTING = 48
"""From so many identities that look right on a person those unlike them are taken."""
CHOICE = 24
"""Among how many the key decides: who knows everything but the key guesses one person's fake right once in so many times."""
ODD = 6.0
"""Misfit beyond the least of all from which an identity does not look right: the other sex, or thirty years and a beard."""


class Casting:
    """Args:
    pool: the admitted identities.
    key: of the run.
    taken: identity_ids that somebody wears, or wore once.
    """

    def __init__(self, pool: Pool, key: bytes, taken: Collection[str] = ()) -> None:
        self._pool, self._key = pool, key
        self._rows = {identity.identity_id: i for i, identity in enumerate(pool.identities)}
        self._free = np.ones(len(pool), bool)
        self.taken: set[str] = set()
        self.take(taken)

    @property
    def size(self) -> int:
        """Identities in the pool."""
        return len(self._rows)

    def take(self, names: Collection[str]) -> None:
        """Nobody else gets these."""
        self.taken |= set(names)
        self._free[[self._rows[name] for name in names if name in self._rows]] = False

    def release(self, name: str) -> None:
        """It can be had again."""
        self.taken.discard(name)
        self._free[self._rows[name]] = True

    def is_free(self, name: str) -> bool:
        """Whether it can be had."""
        return name in self._rows and bool(self._free[self._rows[name]])

    def choice(self, wanted: Wanted, originals: Mapping[str, F32]) -> list[str]:
        """The identities that come into question for a person, in an order that says nothing; fewer than `CHOICE` if few look right.

        Args:
            wanted: what the person is read as: the median over their faces.
            originals: recognizer → float32 (n, d), their faces.
        """
        misfit = self._pool.misfit(wanted)
        able = np.flatnonzero(self._free & (misfit < misfit.min() + ODD))
        nearest = able[np.argsort(misfit[able], kind="stable")[:FITTING]]
        alike = self._pool.alike(nearest, {name: np.asarray(v.mean(0), np.float32) for name, v in originals.items()})
        unlike = nearest[np.argsort(alike, kind="stable")[:CHOICE]]
        return sorted(self._pool.identities[i].identity_id for i in unlike)

    def drawn(self, person: str, choice: Sequence[str]) -> list[str]:
        """A choice in the order that the key gives it for a person.

        Args:
            person: what stands for them, see `name_of`.
            choice: of `choice`.
        """
        return sorted(choice, key=lambda name: hmac.digest(self._key, f"wears\0{person}\0{name}".encode(), "sha256"))


def name_of(key: bytes, what: str, secret: bytes) -> str:
    """What stands for a person: 32 hexadecimal digits, which nobody without the key can tell from others.

    Args:
        key: of the run.
        what: "person" or "stranger".
        secret: the person's salt, or a stranger's first face.
    """
    return hmac.new(key, what.encode() + b"\0" + secret, hashlib.sha256).hexdigest()[:32]


def identity_of(model: IdentityModel, identity_id: str) -> Identity:
    """The identity of that name.

    Raises:
        ValueError: it is no name of one.
    """
    seed = identity_id.removeprefix("mfmc-")
    if seed == identity_id or not seed.isdecimal():
        raise ValueError(f"{identity_id!r} is no identity")
    return sample(model, int(seed))
