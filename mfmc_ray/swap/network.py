"""ONNX networks that the user names: read, looked at, run in batches whether or not the file was exported for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.store import ModelError
from mfmc_ray.faces.weights import in_one_file

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_SAME = 1e-4
"""How far a network freed for batches may be off, relative to its largest output."""


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: in the graph.
        shape: without the batch; None where it is free.
        kind: NumPy's type of its values.
    """

    name: str
    shape: tuple[int | None, ...]
    kind: type


class BatchNetwork:
    """A network that is given faces in batches. Inputs and outputs are bound to the device it runs on, and their memory is kept.

    Where the file has a fixed batch it is rewritten for a free one; the rewritten graph is held against the original, and if it does not
    say the same the original is used, in its own batches.

    Args:
        path: of the .onnx file.
        most: faces in a batch at most.
        exact: of a recognizer, see `runtime.session`.

    Attributes:
        inputs, outputs: what it takes and gives.
        batch: faces in a batch at most, and, if `fixed`, at least: the last is filled up.
        fixed: whether batches have one size.
        last: the last initializer of the graph, or None.

    Raises:
        ModelError: it is no network that can be loaded, or has weights in other files.
    """

    def __init__(self, path: Path, most: int = 16, *, exact: bool = False) -> None:
        self._path, self._exact = path, exact
        try:
            model = onnx.load(str(path), load_external_data=False)
            in_one_file(path, model)
            self.last: NDArray[Any] | None = numpy_helper.to_array(model.graph.initializer[-1]) if model.graph.initializer else None
            size = _fixed_batch(model)
            session = runtime.session(str(path), exact=exact)
            freed = None if size is None else self._freed(model, session, size)
            self._session = freed or session
        except (runtime.ProviderError, ModelError):
            raise
        except Exception as error:  # onnx, protobuf and onnxruntime raise what they like
            first = (str(error).splitlines() or [""])[0][:160]
            raise ModelError(f"{path.name} is no network that onnxruntime can load: {first}") from error
        self.fixed = size is not None and freed is None
        self.batch = size if size is not None and freed is None else max(1, most)
        self.inputs = tuple(_port(value) for value in self._session.get_inputs())
        self.outputs = tuple(_port(value) for value in self._session.get_outputs())
        self._device = "cpu" if self._session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self._kept: dict[tuple[str, tuple[int, ...]], Any] = {}

    def run(self, feeds: Mapping[str, F32], wanted: Sequence[str]) -> list[F32]:
        """The outputs of these names for n faces, float32 (n, …).

        Args:
            feeds: input → (n, …).
            wanted: names of outputs.

        Raises:
            ModelError: the network fails, or gives something else than one result a face.
        """
        n = len(next(iter(feeds.values())))
        found: list[list[F32]] = [[] for _ in wanted]
        for start in range(0, n, self.batch):
            part = {name: values[start : start + self.batch] for name, values in feeds.items()}
            size = min(self.batch, n - start)
            if self.fixed and size < self.batch:
                part = {name: np.concatenate([v, np.repeat(v[-1:], self.batch - size, 0)]) for name, v in part.items()}
            try:
                results = self._bound(part, wanted)
            except Exception as error:  # the same
                first = (str(error).splitlines() or [""])[0][:160]
                raise ModelError(f"{self._path.name} fails on faces of the size that is named for it: {first}") from error
            for name, values, into in zip(wanted, results, found, strict=True):
                if values.ndim < 1 or len(values) != (self.batch if self.fixed else size):
                    raise ModelError(f"{self._path.name} gives {values.shape} as {name!r} for {size} faces")
                into.append(np.asarray(values[:size], np.float32))
        return [np.concatenate(parts) for parts in found]

    def _bound(self, feeds: Mapping[str, F32], wanted: Sequence[str]) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        for port in self.inputs:
            values: NDArray[Any] = np.ascontiguousarray(feeds[port.name], port.kind)
            at = port.name, values.shape
            if at in self._kept:
                self._kept[at].update_inplace(values)
            else:
                if len(values) == self.batch:  # full batches come again
                    values = values.copy()  # on a CPU the array itself would be kept
                    self._kept[at] = ort.OrtValue.ortvalue_from_numpy(values, self._device, 0)
                binding.bind_cpu_input(port.name, values)
                continue
            binding.bind_ortvalue_input(port.name, self._kept[at])
        for name in wanted:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        # on a CPU these are views of what the binding holds
        return [np.array(values) for values in binding.copy_outputs_to_cpu()]

    def _freed(self, model: Any, session: Any, size: int) -> Any | None:
        """A session that takes batches of any size, or None if the graph does not allow it."""
        rng = np.random.default_rng(0)
        feeds: dict[str, NDArray[Any]] = {}
        for port in map(_port, session.get_inputs()):
            if any(side is None for side in port.shape):
                return None
            feeds[port.name] = rng.random((2 * size, *(side or 1 for side in port.shape)), np.float32).astype(port.kind)
        try:
            free = runtime.session(_free(model).SerializeToString(), exact=self._exact)
            together = free.run(None, feeds)
            for half in (slice(0, size), slice(size, 2 * size)):
                for whole, part in zip(together, session.run(None, {name: v[half] for name, v in feeds.items()}), strict=True):
                    if whole.shape != (2 * size, *part.shape[1:]) or not np.allclose(
                        whole[half], part, rtol=0, atol=_SAME * max(1.0, float(np.abs(part).max()))
                    ):
                        return None
        except Exception:  # a graph that cannot be freed fails somewhere
            return None
        return free


def _fixed_batch(model: Any) -> int | None:
    """The batch that the graph is fixed to; None if it is free."""
    weights = {weight.name for weight in model.graph.initializer}
    sizes = [
        value.type.tensor_type.shape.dim[0].dim_value
        for value in model.graph.input
        if value.name not in weights and len(value.type.tensor_type.shape.dim)
    ]
    fixed = [size for size in sizes if size > 0]
    return fixed[0] if fixed else None


def _free(model: Any) -> Any:
    """A copy of the graph with a free batch: in inputs and outputs, and in reshapes to a constant shape."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.name not in weights and len(value.type.tensor_type.shape.dim):
            value.type.tensor_type.shape.dim[0].dim_param = "faces"
    del graph.value_info[:]
    constants = {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"}
    done: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("Reshape", "Expand") or len(node.input) < 2 or node.input[1] in done:
            continue
        tensor = weights.get(node.input[1], constants.get(node.input[1]))
        if tensor is None:
            continue
        shape = numpy_helper.to_array(tensor).copy()
        if shape.size > 1 and shape[0] == 1 and node.op_type == "Reshape" and -1 not in shape:
            shape[0] = -1
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
            done.add(node.input[1])
    return copy


def _port(value: Any) -> Port:
    shape = tuple(side if isinstance(side, int) else None for side in value.shape[1:])
    return Port(value.name, shape, _TYPES.get(value.type, np.float32))
