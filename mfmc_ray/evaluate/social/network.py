"""A made-up social network: users, who is friends with whom, what they upload, and who would like to be seen by whom.

Friendships are a small world (Watts and Strogatz 1998): friends of friends are often friends, and everybody is a few steps from everybody.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import networkx
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
OPEN, FRIENDS, PRIVATE = "open", "friends", "private"
"""Whom somebody would like to be seen by: whoever sees the photo; friends; nobody."""
REWIRED = 0.15
"""Share of the friendships that do not go to a neighbour in the ring."""
OWN_SELF = 0.5
"""How often who uploads a photo is in it."""
COMPANIONS, BYSTANDERS = 1.2, 0.4
"""Further users in a photo beside one, and people who are no users, mean of a Poisson distribution."""
WITH_FRIEND, WITH_FRIENDS_FRIEND = 0.75, 0.15
"""Who the companions are; the others are any users."""
MOST_PEOPLE = 6


@dataclass(frozen=True)
class Habits:
    """What people are like, as shares.

    Attributes:
        open, friends: of the users, by attitude; the others are private.
        enrolled: of the users; nobody else is recognised.
        public: of the photos; the others are for friends of who uploads them.
        delicate: of the photos: nobody wants to be seen in them.
    """

    open: float = 0.3
    friends: float = 0.5
    enrolled: float = 0.9
    public: float = 0.3
    delicate: float = 0.1


@dataclass(frozen=True)
class Photo:
    """An upload.

    Attributes:
        image_id, path: as of a collection.
        owner: the user who uploads it.
        people: the user of each face; None: somebody who is none.
        public: whether every user sees it; else its owner's friends do.
        delicate: nobody wants to be seen in it.
    """

    image_id: str
    path: str
    owner: int
    people: tuple[int | None, ...]
    public: bool
    delicate: bool


@dataclass(frozen=True)
class Network:
    """The network.

    Attributes:
        friends: bool (n, n), symmetric, nobody is their own friend.
        attitudes: of each user: `OPEN`, `FRIENDS` or `PRIVATE`.
        enrolled: bool (n,).
        photos: all uploads.
    """

    friends: Mask
    attitudes: tuple[str, ...]
    enrolled: Mask
    photos: tuple[Photo, ...]

    def __len__(self) -> int:
        return len(self.friends)

    @property
    def names(self) -> list[str]:
        """The users' ids, in tables and of enrolled people."""
        return [name_of(user) for user in range(len(self))]

    @cached_property
    def friends_of_friends(self) -> Mask:
        """bool (n, n): who is a friend of a friend, and neither a friend nor oneself."""
        steps = self.friends.astype(np.float32)
        return np.asarray((steps @ steps > 0) & ~self.friends & ~np.eye(len(self), dtype=bool))

    def viewers(self, photo: Photo) -> Mask:
        """bool (n,): who sees a photo, whatever is done to the faces in it."""
        if photo.public:
            return np.ones(len(self), bool)
        seen: Mask = self.friends[photo.owner].copy()
        seen[photo.owner] = True
        return seen

    def wishes(self, photo: Photo, person: int | None) -> Mask:
        """bool (n,): by whom somebody would like to be seen in a photo."""
        if person is None or photo.delicate or self.attitudes[person] == PRIVATE:
            return np.zeros(len(self), bool)
        return np.ones(len(self), bool) if self.attitudes[person] == OPEN else np.asarray(self.friends[person])

    def content(self, photo: Photo, person: int) -> float:
        """The share of those who see a photo whom somebody in it would like to be seen by, 0–1."""
        others = self.viewers(photo)
        others[person] = False
        return float(self.wishes(photo, person)[others].mean()) if others.any() else 1.0


def make_network(users: int, friends: int, photos: float, habits: Habits, rng: np.random.Generator) -> Network:
    """A network.

    Args:
        users: how many.
        friends: of each, on average; even.
        photos: that each uploads, mean of a Poisson distribution.
        habits: what people are like.
        rng: decides all of it.

    Raises:
        ValueError: there are fewer users than friends of one.
    """
    if not 2 <= friends < users:
        raise ValueError(f"{users} users cannot have {friends} friends each: ask for more users, or fewer friends (2 at least)")
    graph = networkx.connected_watts_strogatz_graph(users, friends, REWIRED, seed=int(rng.integers(2**31)))
    near = np.asarray(networkx.to_numpy_array(graph, nodelist=range(users)) > 0)
    drawn = rng.random(users)
    attitudes = tuple(OPEN if x < habits.open else FRIENDS if x < habits.open + habits.friends else PRIVATE for x in drawn)
    network = Network(near, attitudes, rng.random(users) < habits.enrolled, ())
    uploads = []
    for owner in range(users):
        for number in range(rng.poisson(photos)):
            path = f"{name_of(owner)}/{number:03d}.jpg"
            digest = hashlib.sha256(f"{path} {rng.integers(2**63)}".encode()).hexdigest()
            people = _people(network, owner, rng)
            uploads.append(Photo(digest, path, owner, people, bool(rng.random() < habits.public), bool(rng.random() < habits.delicate)))
    return Network(near, attitudes, network.enrolled, tuple(uploads))


def name_of(user: int) -> str:
    """What user number so-and-so is called."""
    return f"user-{user:04d}"


def _people(network: Network, owner: int, rng: np.random.Generator) -> tuple[int | None, ...]:
    """Who is in a photo."""
    chosen: list[int] = [owner] if rng.random() < OWN_SELF else []
    for _ in range(min(1 + rng.poisson(COMPANIONS), MOST_PEOPLE - len(chosen))):
        x = rng.random()
        near, further = network.friends[owner], network.friends_of_friends[owner]
        some = near if x < WITH_FRIEND else further if x < WITH_FRIEND + WITH_FRIENDS_FRIEND else ~np.eye(len(network), dtype=bool)[owner]
        someone = int(rng.choice(np.flatnonzero(some if some.any() else near)))
        if someone not in chosen:
            chosen.append(someone)
    people: list[int | None] = [*chosen, *[None] * min(rng.poisson(BYSTANDERS), MOST_PEOPLE - len(chosen))]
    return tuple(people[i] for i in rng.permutation(len(people)))
