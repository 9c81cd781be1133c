"""Face detectors: YuNet and CenterFace, each looking at an image at several scales.

A detector is good for faces of a certain size in its input: it misses faces that fill the picture as it misses tiny ones. So each image is
looked at in several views: small with a border around it (faces that fill or leave the picture), middle, fine, and turned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.protocols import Detector
from mfmc_ray.faces.store import ModelError, model_path
from mfmc_ray.identities.model import load_model

_STRIDE = 32
"""Sides of a network's input are multiples of this."""
_TILE = 1536
"""Longest side of one network input in px: bounds memory."""
_OVERLAP = 256
"""Px that neighbouring tiles share; larger faces are found in coarser views."""
_TURNED_TRUST = 0.92
"""Factor on scores from turned views: most pictures are upright, and turned ones give more false alarms."""
_TURNED_SURE = 0.6
"""A turned face of this score lets the fine views look in that direction too."""
_PLAIN_SCORE, _PLAIN_IOU = 0.6, 0.4
"""Of the average head every detector here, on a CPU, is sure by 0.92, in a place that shares 0.81 and more with its mesh's box."""

_ADVICE = "where networks are on a GPU, set ray.providers (outside of runs MFMC_PROVIDERS) to cpu"


@dataclass(frozen=True)
class View:
    """How a detector looks at an image.

    Attributes:
        side: the image's longer side in px.
        border: black px around it.
        turns: quarter turns anticlockwise.
        enlarge: at most this many times the image's own size.
        larger_than: only for images whose longer side has more px.
    """

    side: int
    border: int = 0
    turns: int = 0
    enlarge: float = 3.0
    larger_than: int = 0


class Scanner(ABC):
    """Runs a network over the views of an image and maps what it finds back."""

    name: str
    views: tuple[View, ...]
    """Fine ones first: coarser copies of an image are made from finer ones."""

    min_score: float
    """Detections below it are left out."""

    @abstractmethod
    def _run(self, canvas: Image) -> F32:
        """Rows of box (4), points (10) and score of an input whose sides are multiples of `_STRIDE`; px of that input."""

    def detect(self, image: Image) -> Faces:
        """All faces of an upright RGB image.

        Args:
            image: uint8 (h, w, 3), of any size.

        Returns:
            Best first; boxes may reach beyond the border. The five points are in the order of the face's own left and right as the viewer
            sees an upright face, so on a face upside down the first eye is on the image's right.

        Raises:
            ModelError: the network gives what is no number, which would pass for no face.
        """
        views = [view for view in self.views if max(image.shape[:2]) > view.larger_than]
        found = [np.zeros((0, 16), np.float32)]
        copies = [image]
        for view in views:
            for rows in self._look(copies, view):
                rows[:, 15] *= _TURNED_TRUST if view.turns else 1
                found.append(rows)
        rows = suppress(np.concatenate(found))
        turned = {int(turns) for turns in rows[rows[:, 15] >= _TURNED_SURE, 14]} - {0}
        again = [replace(view, turns=turns) for turns in sorted(turned) for view in views if 640 < view.side <= 2560 and not view.turns]
        if again:
            rows = suppress(np.concatenate([rows, *(part for view in again for part in self._look(copies, view))]))
        rows = rows[rows[:, 15] >= self.min_score]
        return Faces(rows[:, :4], rows[:, 4:14].reshape(-1, 5, 2), rows[:, 15], (self.name,) * len(rows))

    def _look(self, copies: list[Image], view: View) -> Iterator[F32]:
        """Rows of box (4), points (10), quarter turns and score; px of the image, which is the first of `copies`, its resized versions."""
        height, width = copies[0].shape[:2]
        k = min(view.side / max(height, width), view.enlarge)
        size = max(round(width * k), 1), max(round(height * k), 1)
        small = np.rot90(_resized(copies, size), view.turns)
        turned_height, turned_width = small.shape[:2]
        for x, y in _tiles(turned_width, turned_height):
            part = small[y : y + _TILE, x : x + _TILE]
            sides = [-(-(side + 2 * view.border) // _STRIDE) * _STRIDE for side in part.shape[:2]]
            canvas = np.zeros((*sides, 3), np.uint8)
            canvas[view.border : view.border + part.shape[0], view.border : view.border + part.shape[1]] = part
            (rows,) = numbers(self.name, [self._run(canvas)])
            at = rows[:, :14].reshape(-1, 7, 2) + np.array([x - view.border, y - view.border], np.float32)
            for turn in range(view.turns):
                # undo one anticlockwise quarter: its rows were the columns, counted from the right
                end = (turned_height, turned_width)[turn % 2] - 1
                at = np.stack([end - at[..., 1], at[..., 0]], axis=-1)
            # a pixel's centre is at integers
            at = (at + 0.5) / [size[0] / width, size[1] / height] - 0.5
            boxes = np.concatenate([at[:, :2].min(1), at[:, :2].max(1)], axis=1)
            turns = np.full(len(rows), view.turns)
            yield np.column_stack([boxes, at[:, 2:].reshape(-1, 10), turns, rows[:, 14]]).astype(np.float32)


class _OnnxScanner(Scanner):
    """One whose network runs in onnxruntime."""

    def __init__(self, *, min_score: float = 0.3, threads: int | None = None) -> None:
        """Load the network.

        Args:
            min_score: detections below it are left out, 0–1.
            threads: CPU threads for one image; None: as `runtime.use` has settled.

        Raises:
            ModelError: when the weights cannot be had, or the network, on anything but a CPU, is blind.
        """
        self.min_score = min_score
        self._net = runtime.session(self._graph().SerializeToString(), threads=threads, exact=True)
        if not runtime.on_cpu(self._net):
            prove(self)

    @abstractmethod
    def _graph(self) -> onnx.ModelProto:
        """The network with free height and width."""


class YuNet(_OnnxScanner):
    """YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023)."""

    name = "yunet"
    views: tuple[View, ...] = (
        View(5120, larger_than=3200, enlarge=1),
        View(2560, larger_than=1600, enlarge=1),
        View(1280),
        View(640),
        View(320, border=32),
        *(View(1280, turns=turns, larger_than=1600) for turns in (1, 2, 3)),
        *(View(640, turns=turns) for turns in (1, 2, 3)),
    )

    def _graph(self) -> onnx.ModelProto:
        model = _dequantised(onnx.load(model_path("yunet")))
        _free_sides(model)
        return model

    def _run(self, canvas: Image) -> F32:
        blob = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None], dtype=np.float32)
        names = [f"{head}_{stride}" for stride in (8, 16, 32) for head in ("cls", "obj", "bbox", "kps")]
        heads = numbers(self.name, self._net.run(names, {"input": blob}))
        found = []
        for level, stride in enumerate((8, 16, 32)):
            cls, obj, bbox, kps = (head[0] for head in heads[4 * level : 4 * level + 4])
            (scores,) = numbers(self.name, [np.sqrt(cls * obj)[:, 0]])
            hits = np.flatnonzero(scores >= self.min_score)
            columns = canvas.shape[1] // stride
            cells = np.stack([hits % columns, hits // columns], axis=1)
            centres = (cells + bbox[hits, :2]) * stride
            halves = np.exp(bbox[hits, 2:]) * stride / 2
            points = (kps[hits].reshape(-1, 5, 2) + cells[:, None]) * stride
            found.append(np.column_stack([centres - halves, centres + halves, points.reshape(-1, 10), scores[hits]]))
        return np.concatenate(found).astype(np.float32)


class CenterFace(_OnnxScanner):
    """CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019)."""

    name = "centerface"
    views: tuple[View, ...] = (View(2560, larger_than=3200), View(1280, larger_than=1600), View(800), View(256, border=64))

    def _graph(self) -> onnx.ModelProto:
        model = onnx.load(model_path("centerface"))
        # this file, as its time did, lists the weights as inputs too
        weights = {weight.name for weight in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        _free_sides(model)
        return model

    def _run(self, canvas: Image) -> F32:
        blob = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32)
        heads = numbers(self.name, self._net.run(["537", "538", "539", "540"], {"input.1": blob}))
        heat, scale, offset, landmarks = (head[0] for head in heads)
        # at equal scores, so raised, both detectors are right about equally often
        (scores,) = numbers(self.name, [heat[0] ** 0.6])
        y, x = np.nonzero(scores >= self.min_score)
        # the network puts y before x; one cell is 4 px
        sizes = np.exp(scale[::-1, y, x].T) * 4
        centres = (np.stack([x, y], axis=1) + offset[::-1, y, x].T + 0.5) * 4
        low = centres - sizes / 2
        points = landmarks[:, y, x].T.reshape(-1, 5, 2)[:, :, ::-1] * sizes[:, None] + low[:, None]
        return np.column_stack([low, low + sizes, points.reshape(-1, 10), scores[y, x]]).astype(np.float32)


def numbers(name: str, outputs: Sequence[F32]) -> Sequence[F32]:
    """What a network gives, as it is.

    Raises:
        ModelError: something of it is no finite number: no comparison with it holds, so it would pass for no face.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise ModelError(f"{name} gives what is no number: {_ADVICE}")
    return outputs


def prove(detector: Detector) -> None:
    """Has a detector find the average head of the identity model, which is nobody's: one that cannot would call every picture empty.

    Raises:
        ModelError: it finds no face in its place, or gives what is no number.
    """
    model = load_model()
    low, high = model.head_mesh[:, :2].min(0), model.head_mesh[:, :2].max(0)
    seen = detector.detect(model.heads[0])
    shared, _ = overlap(seen.boxes, np.concatenate([low, high])[None].astype(np.float32))
    if not ((shared[:, 0] >= _PLAIN_IOU) & (seen.scores >= _PLAIN_SCORE)).any():
        raise ModelError(f"{detector.name} does not find a face that is plain to see: {_ADVICE}")


def overlap(boxes: F32, others: F32) -> tuple[F32, F32]:
    """How much boxes cover each other.

    Args:
        boxes: float32 (n, 4), x0 y0 x1 y1.
        others: float32 (m, 4).

    Returns:
        Intersection over union and intersection over the smaller area, float32 (n, m) each, 0–1.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6), axis=1)[:, None]
    other_areas = np.prod(np.maximum(others[:, 2:] - others[:, :2], 1e-6), axis=1)[None]
    return shared / (areas + other_areas - shared), shared / np.minimum(areas, other_areas)


def suppress(rows: F32, iou: float = 0.4) -> F32:
    """Non-maximum suppression: rows (box first, score last), best first, without those that overlap a better one by more than `iou`."""
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    kept: list[int] = []
    left = np.arange(len(rows))
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[overlap(rows[[best], :4], rows[left, :4])[0][0] <= iou]
    return rows[kept]


def _dequantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its block-quantised int8 weights as float32.

    Every constant `DequantizeLinear` (and the `Reshape` that follows it in these files) becomes a float32 initializer. onnxruntime refuses
    the file as it is; OpenCV reads it, but takes three times as long.
    """
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    floats: dict[str, NDArray[np.float32]] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            codes, scales, zeros = (values[name] for name in node.input)
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            axis, block = options["axis"], options["block_size"]
            pick = np.arange(codes.shape[axis]) // block
            floats[node.output[0]] = (codes.astype(np.float32) - zeros.take(pick, axis)) * scales.take(pick, axis)
        elif node.op_type == "Reshape" and node.input[0] in floats:
            floats[node.output[0]] = floats[node.input[0]].reshape(values[node.input[1]])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(value, name) for name, value in floats.items() if name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _free_sides(model: onnx.ModelProto) -> None:
    """Let the network take one image of any height and width."""
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[0].dim_value = 1
    shape.dim[2].dim_param, shape.dim[3].dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _resized(copies: list[Image], size: tuple[int, int]) -> Image:
    """The image at this width and height; made from the smallest shrunk copy that is at least twice as large, and added to them."""
    for copy in copies:
        if copy.shape[1::-1] == size:
            return copy
    source = min(
        (copy for copy in copies[1:] if 2 * size[0] <= copy.shape[1] < copies[0].shape[1]),
        key=lambda copy: copy.shape[1],
        default=copies[0],
    )
    shrinks = source.shape[1] > size[0]
    copies.append(np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8))
    return copies[-1]


def _tiles(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Left upper corners of the tiles that cover width × height px."""
    for y in _starts(height):
        for x in _starts(width):
            yield x, y


def _starts(length: int) -> list[int]:
    if length <= _TILE:
        return [0]
    steps = -(-(length - _TILE) // (_TILE - _OVERLAP))
    return [round(i * (length - _TILE) / steps) for i in range(steps + 1)]
