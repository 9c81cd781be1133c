"""One typed run configuration: read from YAML, overridden from the command line, written back into every manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mfmc_ray.places import is_remote

DECIDING = ("input", "find", "guard", "access", "swap", "output")
"""The sections of `RunConfig` that decide a run's result."""
DEVICES = ("auto", "numpy", "cpu", "cuda")
"""Values of `SwapConfig.device`."""
MORPH = "morph"
"""Value of `SwapConfig.swapper`: the embedded renderer."""
PROFILES = ("auto", "local", "cpu-cluster", "gpu")
"""Values of `RayConfig.profile`."""
PSEUDONYMS = ("image", "person", "none")
"""Values of `SwapConfig.pseudonyms`."""
EVERYONE = "everyone"


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True)
class FindConfig:
    """How faces are found."""

    detectors: tuple[str, ...] = ("yunet", "centerface")
    """All of them look at each image; what any of them finds is a face."""
    det_size: int = 640
    """Of the detector scrfd: px of the longer side of an image in its middle view."""
    min_score: float = 0.6
    """A single detector's confidence, 0–1, from which a detection counts on its own; where two agree, half of it."""
    max_pixels: int = 178_956_970
    """Images with more pixels are `failed` rather than decoded (Pillow's own limit against decompression bombs)."""
    max_seconds: float = 120.0
    """An image that takes longer is `failed`, here as in every later pass; for each 20 megapixels and each 20 faces it has this time once
    more. 0: any time. It may change between a run and its continuation."""

    boxes: str | None = None
    """Parquet, JSON (COCO), CSV or WIDER FACE file with boxes of faces that are known already, or a pattern for such (docs/boxes.md);
    `{input}` stands for the folder of the collection. What is in it decides image by image, so it may change between a run and a night."""
    boxes_mode: str = "add"
    """add: beside what the detectors find. instead: an image that the file names has these faces and no others."""


@dataclass(frozen=True)
class GuardConfig:
    """What a published face must not resemble, and how that is checked."""

    recognizers: tuple[str, ...] = ("sface", "dlib")
    """Guard recognizers: a face passes only if it passes every one."""
    threshold: float | None = None
    """Highest cosine, of the first recognizer, to any known face. None: from calibration and the number of known faces."""
    galleries: tuple[str, ...] = ()
    """Folders or Parquet files with further known faces."""
    calibration: str | None = None
    """Folder with false-match curves, as `mfmc known calibrate` writes them. None: those that ship."""
    shards: int = 0
    """Search actors that share out the known faces, for more of them than fit into a node's memory. 0: each node holds all of them once.
    The result is the same, bit for bit; so it may change between a run and its continuation."""


@dataclass(frozen=True)
class AccessConfig:
    """Which faces stay as they are."""

    approvals: str | None = None
    """CSV or Parquet file that names faces which may stay, or must not (docs/access.md); beside any model, and without one."""
    people: str | None = None
    """Private folder of enrolled people, who are recognised in the images (`mfmc people`). None: nobody is."""
    model: str = "none"
    """Who decides about a recognised person's faces. none: nobody. proxy: whom they trust, by tags. explicit: they, image by image.
    rules: their rules, by audience."""
    tags: str | None = None
    """Table of `proxy`: who tagged whom in which image."""
    trust: str | None = None
    """Table of `proxy`: whose tags a person lets count."""
    consents: str | None = None
    """Table of `explicit`: which images a person approves."""
    rules: str | None = None
    """Table of `rules`: which audience may see a person in which images."""
    groups: str | None = None
    """Table of `proxy` and `rules`: who is in which group."""
    audience: str = EVERYONE
    """Of `rules`: whom this release is for: everyone, group:NAME (or NAME) or viewer:NAME."""
    never: str | None = None
    """Table of people who are kept in no image, whatever else is said."""
    always: str | None = None
    """Table of people who are kept in every image, unless something denies it."""

    def published(self) -> dict[str, Any]:
        """What of it is no default, for the manifest: of places the last name; of an audience of one that it is one, not who."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: value for name, value in plain.items() if value != getattr(AccessConfig, name)}
        plain |= {name: _last(plain[name]) for name in ACCESS_PLACES if name in plain}
        if self.audience != EVERYONE and not self.audience.startswith("group:"):
            plain["audience"] = "viewer:"
        return plain


ACCESS_PLACES = ("approvals", "people", "tags", "trust", "consents", "rules", "groups", "never", "always")
"""Settings of `AccessConfig` that name a file or folder."""


@dataclass(frozen=True)
class SwapConfig:
    """How faces are replaced."""

    identities: int = 0
    """Size of the pool of fake identities. 0: chosen from the number of faces."""
    attempts: int = 48
    """Identities tried on a face before it is redacted. The best of the first sixteen is taken; the others are tried only if none holds."""
    min_face: float = 20.0
    """Faces whose box has a smaller √area, in px, are redacted."""
    seed: int = 0
    """First seed of the sampled identities."""
    swapper: str = MORPH
    """What puts fakes on faces. morph: the embedded renderer. Else a YAML file that describes a swap network (docs/swappers.md), which on a
    cluster every node reads from this path."""
    pseudonyms: str = "image"
    """Which fake a face gets (docs/pseudonyms.md). image: another one in each image. person: the
    same in all images of a person. none: no face is replaced, all are covered."""
    device: str = "auto"
    """What the embedded renderer draws with (docs/gpu.md). numpy: NumPy and OpenCV. cuda: torch on a GPU. cpu: torch on the CPU, to check
    that. auto: cuda where torch sees a GPU, else numpy."""


@dataclass(frozen=True)
class OutputConfig:
    """How the result is written."""

    jpeg_quality: int = 98
    """For re-encoded JPEGs whose own tables cannot be kept (CMYK, 4:4:0, 4:1:1)."""
    rows_per_part: int = 128
    """Images in one output file."""
    c2pa_certificate: str | None = None
    """PEM file with the certificate chain that anonymized images are signed with as Content Credentials (C2PA), the signer's first.
    None: they are not signed. Needs the extra `c2pa`. On a cluster every node reads it, and the key, from this path."""
    c2pa_key: str | None = None
    """PEM file with the signer's private key. Neither it nor its name is published."""


@dataclass(frozen=True)
class NodesConfig:
    """What a cluster that grows must have before the work is shared out (docs/cluster.md). Nothing: what is there will do."""

    cpus: float = 0.0
    gpus: float = 0.0
    minutes: float = 20.0
    """How long its autoscaler is given; then it is an error."""


@dataclass(frozen=True)
class ServiceConfig:
    """Actors with a share of a GPU that do one kind of learned work for all workers (docs/cluster.md). 0: as the profile has it."""

    actors: int = 0
    """So many in the cluster. −1: none, the workers do that work themselves, on their CPUs."""
    gpus: float = 0.0
    """Share of a GPU that one reserves."""
    cpus: float = 0.0
    """CPUs that one reserves."""
    lanes: int = 0
    """Requests that one works on at a time."""
    batch: int = 0
    """Rows (faces) that a network is given at a time at most, gathered from all lanes."""
    wait_ms: float = 0.0
    """Milliseconds that a batch which is not full waits for other lanes."""


@dataclass(frozen=True)
class RayConfig:
    """Where it runs. None of it decides the result."""

    address: str | None = None
    """None: the cluster this process belongs to (RAY_ADDRESS, a job), or a local one made for the run."""
    profile: str = "auto"
    """How the work is shared out (docs/cluster.md). local, cpu-cluster: a worker on each CPU does all. gpu: learned work is done by
    services on GPUs. auto: gpu where there are GPUs that onnxruntime can use, cpu-cluster on several nodes, else local."""
    actors: int = 0
    """Worker actors. 0: as the profile has it: one for each CPU, two with services."""
    cpus: float = 0.0
    """CPUs that a worker reserves. 0: as the profile has it, so that all workers fit and Ray's own tasks have room."""
    threads: int = 0
    """Threads of a worker's networks and of OpenCV. 0: one; workers × threads = cores."""
    in_flight: int = 0
    """Parts that are handed to a worker before it has finished one. 0: one."""
    providers: str = "auto"
    """What networks run on: cpu, cuda or tensorrt (built on first use, for minutes). auto: a service's on CUDA if its onnxruntime has it, a
    worker's on the CPU."""
    store_gib: float = 0.0
    """GiB of the object store of a local Ray, and on a cluster what the graph of parts may hold in it. 0: as the profile has it."""
    look: ServiceConfig = field(default_factory=ServiceConfig)
    """Finding and describing faces."""
    swap: ServiceConfig = field(default_factory=ServiceConfig)
    """Putting identities on faces, and looking at the results."""
    wait_for: NodesConfig = field(default_factory=NodesConfig)
    """Of a cluster, what its autoscaler is asked for first."""


@dataclass(frozen=True)
class NightlyConfig:
    """How `mfmc nightly` keeps a result up to date. None of it decides the result."""

    max_hours: float | None = None
    """A night that is expected to take longer does not start: exit code 3. None: any night does."""
    max_deleted: float = 0.5
    """A night in which a larger share of the collection's files is gone does not start: exit code 3. A mount may be missing. 1: any."""
    wait_minutes: float = 0.0
    """How long to wait for another process that works on the same run, before leaving with exit code 75."""
    audit: str | None = None
    """Audit the result at the end: a number of published images, a percentage as "5%", or "all". None: no audit."""
    kept: int = 30
    """Nights whose summaries are kept."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What `mfmc evaluate` asks about a result."""

    labels: str | None = None
    """`folders`, or a table with path and person (docs/evaluate.md). None: who is who is guessed."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result."""

    input: str = ""
    """A folder, a glob, an `s3://` prefix, Parquet files with an image column, or WebDataset tars."""
    out: str = ""
    """Published folder or prefix."""
    work: str = ""
    """Private folder; never inside `out`."""
    storage_options: dict[str, Any] = field(default_factory=dict)
    """Passed to fsspec for remote `input`, `out` and tables; but `patience`: seconds (180) for which a store that fails is tried again."""
    find: FindConfig = field(default_factory=FindConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    swap: SwapConfig = field(default_factory=SwapConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    nightly: NightlyConfig = field(default_factory=NightlyConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the manifest holds it, which is published: of places only the last name, of storage options only the keys."""
        plain = dataclasses.asdict(self)
        plain["storage_options"] = sorted(self.storage_options)
        plain["input"] = _last(self.input)
        plain["guard"]["galleries"] = [_last(gallery) for gallery in self.guard.galleries]
        plain["guard"]["calibration"] = self.guard.calibration and _last(self.guard.calibration)
        plain["find"]["boxes"] = self.find.boxes and _last(self.find.boxes)
        plain["access"] = self.access.published()
        plain["swap"]["swapper"] = _last(self.swap.swapper)
        plain["output"]["c2pa_certificate"] = self.output.c2pa_certificate and _last(self.output.c2pa_certificate)
        del plain["out"], plain["work"], plain["nightly"], plain["evaluate"], plain["output"]["c2pa_key"]
        return json.loads(json.dumps(plain))  # type: ignore[no-any-return]

    def digest(self, *sections: str) -> str:
        """sha-256 over these sections (all of them that decide the result if none is named)."""
        plain = self.to_dict()
        if self.guard.calibration is None:
            del plain["guard"]["calibration"]  # runs begun before there was this setting are the same
        if self.output.c2pa_certificate is None:
            del plain["output"]["c2pa_certificate"]  # likewise
        if self.swap.pseudonyms == "image":
            del plain["swap"]["pseudonyms"]  # likewise
        if self.swap.swapper == MORPH:
            del plain["swap"]["swapper"]  # likewise
        del plain["guard"]["shards"], plain["find"]["max_seconds"], plain["swap"]["device"]
        plain["access"].pop("people", None)  # who is enrolled decides, not where
        if "scrfd" not in self.find.detectors:
            del plain["find"]["det_size"]  # likewise
        if self.find.boxes is None:
            del plain["find"]["boxes"], plain["find"]["boxes_mode"]
        named = sections or DECIDING
        if not plain["access"]:  # the same
            named = tuple(name for name in named if name != "access")
        return hashlib.sha256(json.dumps({s: plain[s] for s in named}, sort_keys=True).encode()).hexdigest()

    def made(self) -> str:
        """sha-256 over what decides what becomes of a known face's picture, other than who else is known."""
        swap, output = dataclasses.asdict(self.swap), dataclasses.asdict(self.output)
        del swap["identities"], swap["device"], output["rows_per_part"], output["c2pa_key"]
        del swap["swapper"]  # what is in the file decides, not where it is: `swappers.digest_of`
        if self.swap.pseudonyms == "image":
            del swap["pseudonyms"]  # images made before there was this setting are the same
        return hashlib.sha256(json.dumps([swap, output], sort_keys=True).encode()).hexdigest()


def _last(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def load(path: str | Path | None, **overrides: Any) -> RunConfig:
    """The configuration of a YAML file (or the defaults), with overrides.

    Args:
        path: a YAML file whose keys are `RunConfig`'s, or None.
        overrides: dotted names with "__" for the dot (`swap__attempts=4`); None values are passed over.

    Raises:
        ConfigError: for an unknown key, a value of the wrong type, or a threshold that is no cosine.
    """
    plain: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: wanted `key: value` lines")
        plain = loaded
    for name, value in overrides.items():
        if value is None:
            continue
        at = plain
        *sections, key = name.split("__")
        for section in sections:
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                raise ConfigError(f"{section} wants `key: value` lines, not {at!r}")
        at[key] = value
    config: RunConfig = build(RunConfig, plain, "")
    if config.guard.threshold is not None and not -1 < config.guard.threshold <= 1:
        raise ConfigError(f"guard.threshold (--threshold) wants a cosine above -1 and at most 1, not {config.guard.threshold}")
    if config.swap.device not in DEVICES:
        raise ConfigError(f"swap.device wants {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, not {config.swap.device!r}")
    if config.swap.pseudonyms not in PSEUDONYMS:
        raise ConfigError(f"swap.pseudonyms (--pseudonyms) wants {' or '.join(PSEUDONYMS)}, not {config.swap.pseudonyms!r}")
    if config.ray.profile not in PROFILES:
        raise ConfigError(f"ray.profile (--profile) wants {', '.join(PROFILES[:-1])} or {PROFILES[-1]}, not {config.ray.profile!r}")
    if config.find.boxes_mode not in ("add", "instead"):
        raise ConfigError(f"find.boxes_mode (--boxes-mode) wants add or instead, not {config.find.boxes_mode!r}")
    if config.find.boxes is not None:
        boxes = config.find.boxes.replace("{input}", _folder(config.input))
        boxes = boxes if is_remote(boxes) else _absolute(boxes)
        config = dataclasses.replace(config, find=dataclasses.replace(config.find, boxes=boxes))
    if config.swap.swapper != MORPH:
        config = dataclasses.replace(config, swap=dataclasses.replace(config.swap, swapper=_absolute(config.swap.swapper)))
    return dataclasses.replace(config, access=_access(config.access))


def _folder(place: str) -> str:
    """The folder that an input names, or that whatever it names is in."""
    fixed = re.split(r"[*?\[{]", place)[0]
    if fixed == place and not (not is_remote(place) and Path(place).is_file()) and not place.lower().endswith((".parquet", ".tar")):
        return place.rstrip("/")
    return fixed.rpartition("/")[0] or "."


def _access(access: AccessConfig) -> AccessConfig:
    """With local places that can be read again later, from wherever that is done, and the audience in full."""
    places = {name: getattr(access, name) for name in ACCESS_PLACES}
    local = {name: _absolute(place) for name, place in places.items() if place is not None and not is_remote(place)}
    return dataclasses.replace(access, audience=audience_in_full(access.audience), **local)


def audience_in_full(text: str) -> str:
    """An audience as it is given: `everyone`, `group:NAME`, or NAME for a group; `viewer:NAME`."""
    text = text.strip()
    if text.lower() == EVERYONE:
        return EVERYONE
    return text if ":" in text else f"group:{text}"


def _absolute(place: str) -> str:
    return str(Path(place.removeprefix("file://")).expanduser().absolute())


def build(kind: Any, plain: Any, where: str) -> Any:
    """A dataclass from plain data, with every key and type checked.

    Args:
        kind: the dataclass; every field has a default.
        plain: what a YAML file holds.
        where: dotted name of where it is in it, with a "." at its end, for messages.

    Raises:
        ConfigError: for an unknown key or a value of the wrong type.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{where or 'the configuration'} wants `key: value` lines, not {plain!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(plain) - set(hints))
    if unknown:
        raise ConfigError(f"unknown setting {where}{unknown[0]}; {where or 'the configuration '}has: {', '.join(sorted(hints))}")
    return kind(**{name: _value(hints[name], value, where + name) for name, value in plain.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name + ".")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name} wants a list, not {value!r}")
        return tuple(_value(args[0], v, name) for v in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} wants `key: value` lines, not {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name} wants {hint.__name__}, not {value!r}")
    return value
