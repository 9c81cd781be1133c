"""Classes of people: sex, age band and skin tone as the attribute networks read them, and how many people of each there are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfmc_ray.faces.attributes import tone_band

SEXES = ("woman", "man")
AGES = ((18.0, 35.0), (35.0, 55.0), (55.0, 76.0))
"""Years, the upper end excluded; whoever is older is of the last band, too. No children: the identity model was made from
adults only, and there is no need for pictures of some."""
TONES = ("very light", "light", "intermediate", "tan", "brown", "dark")
"""Names of the bands of `faces.attributes.tone_band`."""
_ITA = (70.0, 55.0, 41.0, 28.0, 10.0, -30.0, -48.0)  # degrees, the bands' edges
PARTS = ("sex", "age", "tone")
"""What classes can be made of."""
SURE = 0.7
"""Of the sex that is wanted, as read; and at least so far from the other one is everybody who is read as of a sex."""
ADULT = 25.0
"""Years from which somebody is taken: the networks err by six years, and some who are read as 20 to 24 look like children."""
_AGE_ROOM, _TONE_ROOM = 2.0, 1.0  # years, degrees: how far inside of a band somebody has to be read


@dataclass(frozen=True, order=True)
class Class:
    """Indices into `SEXES`, `AGES` and `TONES`."""

    sex: int
    age: int
    tone: int

    def values(self) -> dict[str, str]:
        """Its parts in words."""
        low, high = AGES[self.age]
        years = f"{low:.0f}-{high - 1:.0f}" if self.age < len(AGES) - 1 else f"{low:.0f}+"
        return {"sex": SEXES[self.sex], "age_band": years, "tone": TONES[self.tone]}

    def __str__(self) -> str:
        return " / ".join(self.values().values())


def class_of(man: float, age: float, ita: float) -> Class | None:
    """The class of somebody who is read as these: probability 0–1 of a man, years, degrees. None: a child, or of no clear sex."""
    if age < AGES[0][0] or max(man, 1 - man) < SURE:
        return None
    return Class(int(man > 0.5), min(int(np.searchsorted([low for low, _ in AGES], age, side="right")) - 1, len(AGES) - 1), tone_band(ita))


@dataclass(frozen=True)
class Wish:
    """What somebody is to be read as; a part that is None is as it comes.

    Attributes:
        sex, age, tone: as `Class`.
        at: where in the bands of age and tone, 0–1 each.
    """

    sex: int | None
    age: int | None
    tone: int | None
    at: tuple[float, float] = (0.5, 0.5)

    def aims(self) -> dict[str, float]:
        """`Latent` name → value to begin with."""
        found: dict[str, float] = {}
        if self.sex is not None:
            found["man"] = 4.0 if self.sex else -4.0
        if self.age is not None:
            low, high = AGES[self.age]
            found["age"] = float(np.interp(self.at[0], (0, 1), _inside(max(low, ADULT), high, 3 * _AGE_ROOM)))
        if self.tone is not None:
            found["tone"] = float(np.interp(self.at[1], (0, 1), _inside(_ITA[self.tone + 1], _ITA[self.tone], 4 * _TONE_ROOM)))
        return found

    def granted(self, man: float, age: float, ita: float) -> bool:
        """Whether somebody who is read as these is as wanted, a little inside of the bands: pictures differ."""
        found = class_of(man, age, ita)
        if found is None or age < ADULT:
            return False
        low, high = AGES[found.age]
        roomy = low + _AGE_ROOM <= age and (age < high - _AGE_ROOM or found.age == len(AGES) - 1)
        between = _ITA[found.tone + 1] + _TONE_ROOM <= ita and (ita <= _ITA[found.tone] - _TONE_ROOM or found.tone == 0)
        wanted = (self.sex, self.age, self.tone)
        met = all(w in (None, f) for w, f in zip(wanted, (found.sex, found.age, found.tone), strict=True))
        return met and (self.age is None or roomy) and (self.tone is None or between)


def _inside(low: float, high: float, room: float) -> tuple[float, float]:
    room = min(room, (high - low) / 2.5)
    return low + room, high - room


def as_they_come(people: int) -> list[Wish]:
    """Wishes of nothing."""
    return [Wish(None, None, None)] * people


def equal(people: int, parts: Sequence[str], rng: np.random.Generator) -> list[Wish]:
    """Wishes for exactly as many people of each class; at least so many people, the next number that the classes divide.

    Args:
        people: at least 1.
        parts: of `PARTS`, what classes are made of.
        rng: decides where in its bands each is.
    """
    sizes = {"sex": len(SEXES), "age": len(AGES), "tone": len(TONES)}
    cells = list(itertools.product(*(range(sizes[part]) if part in parts else [None] for part in PARTS)))
    each = -(-people // len(cells))
    wishes = []
    for _ in range(each):
        for sex, age, tone in cells:  # the classes take turns: the first people are of all of them
            at = rng.uniform(0, 1, 2)
            wishes.append(Wish(sex, age, tone, (float(at[0]), float(at[1]))))
    return wishes
