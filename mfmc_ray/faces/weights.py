"""Weights that the user names: a file or an address and its SHA-256. They are in no package, and nothing of them ships with this one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import onnx
from onnx.external_data_helper import uses_external_data

from mfmc_ray.faces.store import ModelError, cache_dir, locked

_CHUNK = 1 << 20
_verified: set[tuple[str, str]] = set()


def fetched(place: str, sha256: str) -> Path:
    """The file, checked once in each process; one that is elsewhere is fetched once for each machine, into the models' folder.

    Args:
        place: a path, or an address that fsspec reads (https://, s3://, …).
        sha256: of the file, hex.

    Raises:
        ModelError: it cannot be had, or is another file.
    """
    if "://" not in place:
        path = Path(place).expanduser()
        if (place, sha256) not in _verified:
            try:
                found = _digest(path)
            except OSError as error:
                raise ModelError(f"the weights {path} cannot be read ({error.strerror or error}): give the right path") from error
            _check(place, found, sha256)
        _verified.add((place, sha256))
        return path
    path = cache_dir() / "given" / f"{sha256}{Path(place).suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / ".lock"):  # the workers of a machine ask at the same time
            if not path.is_file():
                _download(place, sha256, path)
            elif (place, sha256) not in _verified:
                _check(place, _digest(path), sha256)
    except OSError as error:
        raise ModelError(f"the model folder {cache_dir()} cannot be written ({error}): set MFMC_MODELS_DIR to one that can") from error
    _verified.add((place, sha256))
    return path


def in_one_file(path: Path, model: Any | None = None) -> Path:
    """The path of an ONNX file that holds all its weights itself, so that its SHA-256 stands for them.

    Args:
        path: of the file.
        model: what is in it, read without what is in others; None: it is read here.

    Raises:
        ModelError: some are in other files.
    """
    model = onnx.load(path, load_external_data=False) if model is None else model
    if any(uses_external_data(tensor) for tensor in _tensors([model.graph, *model.functions])):
        raise ModelError(
            f"{path.name} has weights in other files, which its SHA-256 says nothing of: save it as one file, with "
            f"`python -c \"import onnx; onnx.save(onnx.load('{path.name}'), 'one.onnx')\"`, and name that"
        )
    return path


def _tensors(graphs: list[Any]) -> Iterator[Any]:
    """All tensors of graphs and functions, and of the graphs in their nodes."""
    while graphs:
        graph = graphs.pop()
        yield from getattr(graph, "initializer", ())  # functions have none
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += [attribute.g, *attribute.graphs]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(place: str, sha256: str, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fetch-")
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as target:
            try:
                with fsspec.open(place, "rb") as source:
                    _copy(source, target, digest)
            except Exception as error:  # whatever a store's client raises
                raise ModelError(
                    f"the weights {place} cannot be fetched ({type(error).__name__}): check the address and the network, or give a path"
                ) from error
        _check(place, digest.hexdigest(), sha256)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy(source: IO[bytes], target: IO[bytes], digest: Any) -> None:
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)


def _check(place: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ModelError(f"the weights {place} are not those named: their SHA-256 is {found}, wanted {wanted}")
