"""The access model that settings name."""

from __future__ import annotations

from mfmc_ray.access.approvals import Approvals
from mfmc_ray.access.decide import AccessModel, ReplaceAll
from mfmc_ray.config import RunConfig


def access_model(config: RunConfig) -> AccessModel:
    """The model that these settings name, which recognises nobody yet: `AccessModel.bound`.

    Raises:
        AccessError: its table cannot be read or used.
    """
    if config.access.approvals is None:
        return ReplaceAll()
    return Approvals.load(config.access.approvals, config.storage_options)
