"""What a swap network wants: the YAML file that `swap.swapper` names (docs/swappers.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml

from mfmc_ray.config import ConfigError, build
from mfmc_ray.faces.align import ARCFACE_TEMPLATE
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.weights import fetched
from mfmc_ray.swap.protocol import Licence

_FFHQ = np.array([[0.37691676, 0.46864664], [0.62285697, 0.46912813], [0.50123859, 0.61331904], [0.393084, 0.725411], [0.611502, 0.724905]])
_V1 = np.array([[39.73, 51.138], [72.27, 51.138], [56, 68.493], [42.463, 87.01], [69.537, 87.01]])
TEMPLATES: Mapping[str, F32] = MappingProxyType(
    {
        "arcface112": np.asarray(ARCFACE_TEMPLATE / 112, np.float32),
        "arcface128": np.asarray((ARCFACE_TEMPLATE + np.array([8, 0])) / 128, np.float32),
        "arcface112v1": np.asarray(_V1 / 112, np.float32),
        "ffhq512": np.asarray(_FFHQ, np.float32),
    }
)
"""Where the five points lie in a crop, in units of its side: InsightFace's `arcface_dst` at 112 and at 128 px (which are scaled without
regard to pixels' centres, as the networks were trained), the older one of ArcFace's first version, and FFHQ's."""
ORDERS, MASKS, KINDS = ("rgb", "bgr"), ("face", "box", "network"), ("latent", "image")


@dataclass(frozen=True)
class WeightsSpec:
    """A file."""

    place: str = ""
    """A path (a relative one is looked for beside the YAML file), or an address that fsspec reads."""
    sha256: str = ""
    """Of the file, hex."""
    licence: str = ""
    """Of the weights."""
    commercial: bool = False
    """Whether that licence allows commercial use."""

    def fetched(self) -> Path:
        """The file itself, on this machine.

        Raises:
            ModelError: it cannot be had, or is another one.
        """
        return fetched(self.place, self.sha256)


@dataclass(frozen=True)
class CropSpec:
    """What a network sees of a face: (pixel − mean) / std, pixels from 0 to 255."""

    template: str = "arcface112"
    """One of `TEMPLATES`, or points."""
    points: tuple[float, ...] = ()
    """With `template: points`: x y of the five points, in units of the crop's side."""
    size: int = 112
    """Side of the crop, px."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    """One for all colours, or one for each, in the network's order."""
    order: str = "rgb"

    @property
    def five(self) -> F32:
        """float32 (5, 2), px: where the five points lie in the crop."""
        where = np.array(self.points, np.float32).reshape(5, 2) if self.template == "points" else TEMPLATES[self.template]
        return np.asarray(where * self.size, np.float32)


@dataclass(frozen=True)
class InputsSpec:
    """The names of the network's inputs; "" where their shapes say which is which: four dimensions are a picture, two a latent."""

    image: str = ""
    identity: str = ""


@dataclass(frozen=True)
class OutputSpec:
    """What the network gives."""

    image: str = ""
    """Name of the output; "": the first."""
    mask: str = ""
    """Name of the output that says where the new face is, 0–1, for `paste.mask: network`."""
    low: float = 0.0
    high: float = 1.0
    """Its values of black and of white."""
    order: str = "rgb"


@dataclass(frozen=True)
class IdentitySpec:
    """How an identity is told to the network."""

    kind: str = "latent"
    """latent: a vector. image: a crop of the identity's rendering."""
    encoder: WeightsSpec | None = None
    """ONNX network from a crop to an embedding; None: see `latents`."""
    latents: WeightsSpec | None = None
    """.npy file, float32 (n, d), of embeddings that identities are mixed from, where there is no encoder."""
    crop: CropSpec = field(default_factory=lambda: CropSpec(mean=(127.5,), std=(127.5,)))
    """What the encoder sees of the identity's rendering; with `kind: image`, what the network itself does."""
    mix: int = 1
    """Embeddings that an identity is a random mixture of: 1 is its own rendering's, 2 and more others beside it."""
    normalise: bool = True
    """Embeddings have unit length before they are projected."""
    projection: str = "none"
    """none. last: the last initializer of the swap network's graph, a matrix (INSwapper's `emap`). file: `projection_file`."""
    projection_file: WeightsSpec | None = None
    """.npy file with a matrix (d, d'), or an ONNX network from embedding to latent."""
    normalise_latent: bool = True
    """The projected latent has unit length."""


@dataclass(frozen=True)
class PasteSpec:
    """How the new face gets into the picture."""

    mask: str = "face"
    """face: where the mesh is and nothing lies before it. network: the same where the network's own mask says. box: the crop but for its
    border, as INSwapper does, without what lies before the face."""
    match: bool = True
    """Tone, sharpness and grain are made the picture's."""


@dataclass(frozen=True)
class SwapperSpec:
    """A swap network."""

    name: str = ""
    """As it is shown."""
    model: WeightsSpec = field(default_factory=WeightsSpec)
    crop: CropSpec = field(default_factory=CropSpec)
    """What it sees of the face in the picture."""
    inputs: InputsSpec = field(default_factory=InputsSpec)
    output: OutputSpec = field(default_factory=OutputSpec)
    identity: IdentitySpec = field(default_factory=IdentitySpec)
    paste: PasteSpec = field(default_factory=PasteSpec)
    batch: int = 16
    """Faces that it is given at most at a time."""

    @property
    def files(self) -> Iterator[tuple[str, WeightsSpec]]:
        """What each file is, and the file."""
        yield self.name, self.model
        for what in ("encoder", "latents", "projection_file"):
            if (weights := getattr(self.identity, what)) is not None:
                yield f"{self.name}: {what.removesuffix('_file')}", weights

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Of all files."""
        return tuple(Licence(what, weights.licence, weights.commercial, weights.sha256) for what, weights in self.files)

    @property
    def digest(self) -> str:
        """sha-256, hex, of all that decides its results: not where the files are, nor how many faces are done at a time."""
        plain = dataclasses.asdict(self)
        del plain["batch"]
        for weights in (plain["model"], *(plain["identity"][what] for what in ("encoder", "latents", "projection_file"))):
            if weights is not None:
                del weights["place"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def load_spec(path: str | Path) -> SwapperSpec:
    """The swapper of a YAML file whose keys are `SwapperSpec`'s.

    Raises:
        ConfigError: the file cannot be read, or what it says cannot be.
    """
    path = Path(path).expanduser()
    try:
        plain = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or "no YAML"
        raise ConfigError(f"the swapper {path} cannot be read ({why}): name `morph` or a YAML file (docs/swappers.md)") from error
    try:
        spec: SwapperSpec = build(SwapperSpec, plain, "")
        _check(spec)
    except ConfigError as error:
        raise ConfigError(f"the swapper {path.name}: {error}") from error
    return _beside(spec, path.absolute().parent)


def _check(spec: SwapperSpec) -> None:
    identity = spec.identity
    if not spec.name or not re.fullmatch(r"[\w .+-]{1,60}", spec.name):
        raise ConfigError("name wants up to 60 letters, digits, spaces or .+-_")
    for what, weights in spec.files:
        if not weights.place or not re.fullmatch(r"[0-9a-f]{64}", weights.sha256) or not weights.licence:
            raise ConfigError(f"{what} wants a place, its sha256 (64 hexadecimal digits) and the licence of its weights")
    for where, crop in (("crop", spec.crop), ("identity.crop", identity.crop)):
        _check_crop(where, crop)
    _one_of("output.order", spec.output.order, ORDERS)
    _one_of("paste.mask", spec.paste.mask, MASKS)
    _one_of("identity.kind", identity.kind, KINDS)
    _one_of("identity.projection", identity.projection, ("none", "last", "file"))
    if spec.output.low == spec.output.high:
        raise ConfigError("output.low and output.high want to differ")
    if spec.paste.mask == "network" and not spec.output.mask:
        raise ConfigError("paste.mask: network wants the name of that output as output.mask")
    if (identity.projection == "file") != (identity.projection_file is not None):
        raise ConfigError("identity.projection_file goes with projection: file")
    given = [what for what in ("encoder", "latents") if getattr(identity, what) is not None]
    if identity.kind == "latent" and len(given) != 1:
        raise ConfigError("identity wants an encoder or latents, one of the two")
    if identity.kind == "image" and (given or identity.projection != "none" or identity.mix != 1):
        raise ConfigError("identity.kind: image goes without encoder, latents, projection and mix")
    if identity.mix < 1 or spec.batch < 1:
        raise ConfigError("identity.mix and batch want at least 1")


def _check_crop(where: str, crop: CropSpec) -> None:
    _one_of(f"{where}.template", crop.template, (*TEMPLATES, "points"))
    _one_of(f"{where}.order", crop.order, ORDERS)
    if (crop.template == "points") != bool(crop.points) or (crop.points and len(crop.points) != 10):
        raise ConfigError(f"{where}.points wants ten numbers, and template: points")
    if not 16 <= crop.size <= 2048:
        raise ConfigError(f"{where}.size wants 16 to 2048 px, not {crop.size}")
    if {len(crop.mean), len(crop.std)} - {1, 3} or 0 in crop.std:
        raise ConfigError(f"{where}.mean and {where}.std want one or three numbers, std none of them 0")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} wants {', '.join(known[:-1])} or {known[-1]}, not {value!r}")


def _beside(spec: SwapperSpec, folder: Path) -> SwapperSpec:
    """With relative paths taken from the YAML file's folder."""

    def placed(weights: WeightsSpec | None) -> Any:
        if weights is None or "://" in weights.place:
            return weights
        return dataclasses.replace(weights, place=str(folder / Path(weights.place).expanduser()))

    identity = dataclasses.replace(
        spec.identity, **{what: placed(getattr(spec.identity, what)) for what in ("encoder", "latents", "projection_file")}
    )
    return dataclasses.replace(spec, model=placed(spec.model), identity=identity)
