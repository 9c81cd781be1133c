"""Sessions of real networks that go wrong, as one on a GPU may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mfmc_ray.faces import runtime

CUDA = "CUDAExecutionProvider"


class Sick:
    """A session that spoils what another gives.

    Args:
        session: the other.
        spoil: changes its outputs in place.
        provider: what it claims to run on; None: what it does.
    """

    def __init__(self, session: Any, spoil: Callable[[list[np.ndarray]], None], provider: str | None = None) -> None:
        self._session, self._spoil, self._provider = session, spoil, provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._provider] if self._provider else list(self._session.get_providers())

    def run(self, *arguments: Any) -> list[np.ndarray]:
        outputs = [np.array(output) for output in self._session.run(*arguments)]
        self._spoil(outputs)
        return outputs


def blind(outputs: list[np.ndarray]) -> None:
    """All zeros: nothing is found."""
    for output in outputs:
        output[:] = 0


def on_gpu(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[list[np.ndarray]], None]) -> list[bool]:
    """Has all networks that are loaded from now on run on a GPU that spoils their outputs; the value gets the `exact` of each."""
    real, exact = runtime.session, list[bool]()

    def session(*arguments: Any, **options: Any) -> Sick:
        exact.append(options.get("exact", False))
        return Sick(real(*arguments, **options), spoil, CUDA)

    monkeypatch.setattr(runtime, "session", session)
    return exact
