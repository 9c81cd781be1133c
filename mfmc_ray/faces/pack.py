"""A model pack: the detectors, mesh fitter, recognizers and attribute head that work together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.attributes import AttributeHead, Attributes
from mfmc_ray.faces.audit_look import AuditLook, same_place
from mfmc_ray.faces.detect import CenterFace, YuNet, prove
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.faces import F32, MESH_POINTS, Faces, Image, Pixels
from mfmc_ray.faces.finder import AGREEMENT, FaceFinder
from mfmc_ray.faces.given import GivenFaces
from mfmc_ray.faces.insight import ArcFaceEmbedder, ScrfdDetector, digest_of
from mfmc_ray.faces.mesh import FaceMesh, pose
from mfmc_ray.faces.openface import OpenFaceEmbedder
from mfmc_ray.faces.protocols import Detector, Embedder, MeshFitter
from mfmc_ray.faces.second_look import SecondLook
from mfmc_ray.faces.store import load_lock

DETECTORS: Mapping[str, Callable[..., Detector]] = MappingProxyType({"yunet": YuNet, "centerface": CenterFace, "scrfd": ScrfdDetector})
EMBEDDERS: Mapping[str, Callable[[], Embedder]] = MappingProxyType({"sface": SFaceEmbedder, "dlib": DlibEmbedder})
HELD_OUT: Mapping[str, Callable[[], Embedder]] = MappingProxyType({"openface": OpenFaceEmbedder})
"""Recognizers that no run may guard with, so that an audit always has one that the anonymizer never asked."""
FURTHER: Mapping[str, Callable[[], Embedder]] = MappingProxyType({"arcface": ArcFaceEmbedder})
"""Recognizers that a run may guard with beside or instead of these, whose weights the user has."""
DIMENSIONS: Mapping[str, int] = MappingProxyType({"sface": SFaceEmbedder.dim, "dlib": DlibEmbedder.dim})
ALL_EMBEDDERS: Mapping[str, Callable[[], Embedder]] = MappingProxyType({**EMBEDDERS, **FURTHER})
ALL_DIMENSIONS: Mapping[str, int] = MappingProxyType({**DIMENSIONS, "arcface": ArcFaceEmbedder.dim})
AUDIT_STRICTNESS = 0.75
"""How strict the scan is with the audit's look: encoding a picture anew may raise a score a little."""
MODEL_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "yunet": ("yunet",),
        "centerface": ("centerface",),
        "sface": ("sface",),
        "dlib": ("dlib_resnet", "dlib_5points"),
        "openface": ("openface",),
        "mesh": ("facemesh", "iris"),
        "attributes": ("attribute_net",),
        "hands": ("palm_detection", "hand_landmark"),
        "scrfd": (),
        "arcface": (),
        "people": ("stylegan_mapping_xml", "stylegan_mapping_bin", "stylegan_synthesis_xml", "stylegan_synthesis_bin"),
    }
)
"""The files of `models.lock` that each part needs."""


class PackError(ValueError):
    """A model that the pack does not have was asked for."""


def files_of(parts: Sequence[str]) -> list[str]:
    """The names in `models.lock` of the files that these parts need."""
    return [name for part in parts for name in MODEL_FILES[part]]


def digests_of(recognizers: Sequence[str]) -> dict[str, str]:
    """recognizer → sha-256 of its weights, hex."""
    lock = {model.name: model.sha256 for model in load_lock()}
    return {name: digest_of(name) if name in FURTHER else lock[MODEL_FILES[name][0]] for name in recognizers}


class Pack(Protocol):
    """What a pass needs of a model pack, wherever its networks are."""

    @property
    def dimensions(self) -> dict[str, int]:
        """recognizer → dimension of its embeddings."""
        ...

    @property
    def embedders(self) -> Mapping[str, Embedder]:
        """By name; the guard recognizers first."""
        ...

    @property
    def mesh(self) -> MeshFitter:
        """Fits the mesh."""
        ...

    def analyse(self, image: Image, boxes: F32 | None = None, *, instead: bool = False) -> Faces:
        """See `ModelPack.analyse`."""
        ...

    def estimate(self, image: Pixels, meshes: F32) -> Attributes:
        """See `ModelPack.estimate`."""
        ...


@dataclass(frozen=True)
class ModelPack:
    """Finds and describes the faces of an image.

    Attributes:
        finder: the detectors.
        second_look: drops what they find that is no face.
        audit_look: adds what the audit would find.
        mesh: fits the mesh.
        embedders: by name; the guard recognizers first.
        attributes: age, sex and skin tone.
    """

    finder: FaceFinder
    second_look: SecondLook
    audit_look: AuditLook
    mesh: MeshFitter
    embedders: Mapping[str, Embedder]
    attributes: AttributeHead

    @property
    def dimensions(self) -> dict[str, int]:
        """recognizer → dimension of its embeddings."""
        return {name: embedder.dim for name, embedder in self.embedders.items()}

    @cached_property
    def given(self) -> GivenFaces:
        """Makes faces of given boxes."""
        return GivenFaces(self.mesh)

    def prove(self) -> None:
        """Has each detector alone find a face that is plain to see.

        Raises:
            ModelError: one does not.
        """
        looks = self.audit_look.detector, *self.audit_look.closeups
        for detector in (*self.finder.detectors, *self.second_look.detectors, *looks, *self.given.detectors):
            prove(detector)

    def analyse(self, image: Image, boxes: F32 | None = None, *, instead: bool = False) -> Faces:
        """All faces of an upright image with everything `Faces` can hold.

        Args:
            image: upright.
            boxes: float32 (n, 4), x0 y0 x1 y1 px, of faces that are given.
            instead: there are no others: nothing is looked for.
        """
        if boxes is not None and instead:
            faces = Faces.empty().with_(meshes=np.zeros((0, MESH_POINTS, 3), np.float32), mesh_scores=np.zeros(0, np.float32))
        else:
            faces = self._with_missed(image, self.second_look(image, self.finder.find(image)))
        if boxes is not None:
            faces = self.given(image, boxes, faces)
        return self.describe(image, faces)

    def _with_missed(self, image: Image, faces: Faces) -> Faces:
        """Adds what the audit's look would find."""
        seen = self.audit_look.find(image)
        if len(seen) and len(faces):
            seen = seen.take(np.asarray(~same_place(seen.boxes, faces.boxes).any(1)))
        if len(seen):
            seen = seen.take(self.audit_look.confirmed(image, seen))
        if len(seen) == 0:
            return faces
        meshes, scores = self.mesh.fit(image, seen.boxes, seen.points)
        return Faces.concat([faces, seen]).with_(
            meshes=np.concatenate([faces.need("meshes"), meshes]), mesh_scores=np.concatenate([faces.need("mesh_scores"), scores])
        )

    def describe(self, image: Image, faces: Faces) -> Faces:
        """Faces that have meshes, with embeddings, poses and attributes added."""
        if len(faces) == 0:
            return faces.with_(embeddings={n: np.zeros((0, d), np.float32) for n, d in self.dimensions.items()}, **_no_attributes())
        found = self.estimate(image, faces.need("meshes"))
        embeddings = self.embed(image, faces.points)
        return faces.with_(embeddings=embeddings, poses=pose(faces.need("meshes")), ages=found.ages, sexes=found.sexes, tones=found.tones)

    def estimate(self, image: Pixels, meshes: F32) -> Attributes:
        """Age, sex and skin tone of n faces with these meshes."""
        return self.attributes.estimate(image, meshes)

    def embed(self, image: Pixels, points: F32) -> dict[str, F32]:
        """recognizer → float32 (n, d) for faces with these five points (n, 5, 2), px."""
        return {name: embedder.embed(image, points) for name, embedder in self.embedders.items()}


def _no_attributes() -> dict[str, F32]:
    none = np.zeros(0, np.float32)
    return {"ages": none, "sexes": none, "tones": none, "poses": np.zeros((0, 3), np.float32)}


def load_pack(find: FindConfig, recognizers: Sequence[str]) -> ModelPack:
    """The embedded pack with these detectors and recognizers.

    Raises:
        PackError: for a name the pack does not know.
        ModelError: when a model file cannot be had.
    """
    for asked, known, what in ((find.detectors, DETECTORS, "detector"), (recognizers, ALL_EMBEDDERS, "recognizer")):
        unknown = [name for name in asked if name not in known]
        if unknown or not asked:
            raise PackError(f"unknown {what} {', '.join(unknown) or '(none given)'}; there are: {', '.join(known)}")
    mesh = FaceMesh()
    detectors = []
    for name in find.detectors:
        more = {"side": find.det_size} if name == ScrfdDetector.name else {}
        detectors.append(DETECTORS[name](min_score=find.min_score * AGREEMENT, **more))
    finder = FaceFinder(detectors, mesh, min_score=find.min_score)
    embedders = {name: ALL_EMBEDDERS[name]() for name in recognizers}
    return ModelPack(finder, SecondLook(mesh), AuditLook(AUDIT_STRICTNESS), mesh, embedders, AttributeHead())
