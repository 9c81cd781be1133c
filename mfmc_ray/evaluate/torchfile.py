"""Reads the tensors of a PyTorch checkpoint (a zip) without PyTorch, and without running anything that it holds.

Such a file holds a pickle, which is a small program. It is not run: its instructions are decoded by the standard library's disassembler and
followed here as far as a dict of tensors needs them; any other instruction, and any other callable than the two that such a dict is made
with, ends the reading.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_VALUES = {"BINUNICODE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class TorchFileError(ValueError):
    """The file is no dict of tensors, or is stored in a way that is not known here."""


def state_dict(path: Path) -> dict[str, Array]:
    """name → array, of a checkpoint that `torch.save` wrote of a module's `state_dict()`.

    Raises:
        TorchFileError: it is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).tensors()
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, TypeError) as error:
        raise TorchFileError(f"{path.name} is no dict of tensors that can be read here: {error}") from error


class _Global(str):
    """A callable or class that the pickle names; only ever compared."""


class _Reader:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        (program,) = (name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
        self._folder = program.removesuffix("data.pkl")
        if f"{self._folder}byteorder" in archive.namelist() and archive.read(f"{self._folder}byteorder") != b"little":
            raise TorchFileError("its numbers are big-endian")
        self._program = archive.read(program)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def tensors(self) -> dict[str, Array]:
        for code, argument, _ in pickletools.genops(self._program):
            self._follow(code.name, argument)
        (found,) = self._stack
        if not isinstance(found, dict) or not all(isinstance(v, np.ndarray) for v in found.values()):
            raise TorchFileError("it holds something other than tensors")
        return found

    def _follow(self, code: str, argument: Any) -> None:
        stack = self._stack
        match code:
            case "PROTO" | "STOP" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case _ if code in _TUPLES:
                stack[-_TUPLES[code] :] = [tuple(stack[-_TUPLES[code] :])]
            case _ if code in _VALUES:
                stack.append(argument)
            case _ if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(self._made(stack.pop(), arguments))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = self._marked()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BUILD":  # the dict's own attributes: versions of the layers
                stack.pop()
            case _:
                raise TorchFileError(f"the instruction {code} is not known")

    def _marked(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        at = max(i for i, value in enumerate(self._stack) if value is _MARK)
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _storage(self, name: Any) -> Array:
        _, kind, key, _, count = name
        stored = np.dtype(_STORAGES[str(kind).rpartition(" ")[2]])
        data = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), stored)
        if len(data) != count:
            raise TorchFileError(f"the storage {key} has {len(data)} numbers, not {count}")
        return data

    def _made(self, what: Any, arguments: tuple[Any, ...]) -> Any:
        if what == _DICT and isinstance(what, _Global):
            return {}
        if what != _TENSOR or not isinstance(what, _Global):
            raise TorchFileError(f"it calls {what}")
        data, start, shape, strides = arguments[:4]
        last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if min(start, *strides, 0) < 0 or (0 not in shape and last >= len(data)):
            raise TorchFileError("a tensor is larger than its storage")
        view = np.lib.stride_tricks.as_strided(data[start:], shape, [step * data.itemsize for step in strides], writeable=False)
        return np.array(view)
