"""The errors that a user can mend: each is one sentence that says what to do."""

from __future__ import annotations

from mfmc_ray.access.decide import AccessError
from mfmc_ray.boxes import BoxesError
from mfmc_ray.collection import CollectionError
from mfmc_ray.config import ConfigError
from mfmc_ray.faces.pack import PackError
from mfmc_ray.faces.runtime import ProviderError
from mfmc_ray.faces.store import ModelError
from mfmc_ray.identities.model import ModelDataError
from mfmc_ray.job import SubmissionError
from mfmc_ray.known.calibration import CalibrationError
from mfmc_ray.known.index import KnownIndexError
from mfmc_ray.ledger import LedgerError
from mfmc_ray.people.registry import PeopleError
from mfmc_ray.pipeline.parts import PartError
from mfmc_ray.pipeline.profiles import ProfileError
from mfmc_ray.pipeline.services import ServiceError
from mfmc_ray.pipeline.shards import ShardError
from mfmc_ray.retry import StoreError
from mfmc_ray.review.decisions import ReviewError
from mfmc_ray.sources import SourceError
from mfmc_ray.swap.device.devices import DeviceError
from mfmc_ray.versions import VersionsError

USER_ERRORS = (
    ConfigError,
    CollectionError,
    AccessError,
    PeopleError,
    BoxesError,
    ReviewError,
    SourceError,
    LedgerError,
    ModelError,
    ModelDataError,
    PackError,
    ProviderError,
    DeviceError,
    CalibrationError,
    KnownIndexError,
    PartError,
    ProfileError,
    ServiceError,
    ShardError,
    SubmissionError,
    VersionsError,
    StoreError,
    ConnectionError,
)
