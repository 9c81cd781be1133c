"""Between `Faces` and the rows of the scan table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, MESH_POINTS, Faces
from mfmc_ray.tables import embedding_column, scan_face


def faces_column(images: Sequence[Faces | None], recognizers: Mapping[str, int]) -> pa.ListArray:
    """The `faces` column of the scan table; None (an image that was not looked at) gives null.

    The faces must hold everything `Faces` can.
    """
    present = [faces for faces in images if faces is not None]
    offsets = np.concatenate([[0], np.cumsum([0 if faces is None else len(faces) for faces in images])]).astype(np.int32)
    kind = scan_face(recognizers)

    def joined(arrays: list[F32], width: int) -> F32:
        return np.concatenate([np.zeros((0, width), np.float32), *(a.reshape(len(a), width) for a in arrays)]).astype(np.float32)

    def vectors(arrays: list[F32], width: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(joined(arrays, width).reshape(-1)), width)

    def scalars(arrays: list[F32]) -> pa.Array:
        return pa.array(joined(arrays, 1)[:, 0])

    columns = {
        "box": vectors([f.boxes for f in present], 4),
        "points": vectors([f.points for f in present], 10),
        "score": scalars([f.scores for f in present]),
        "detectors": pa.array([name for f in present for name in f.detectors], pa.string()),
        "mesh": vectors([f.need("meshes") for f in present], MESH_POINTS * 3),
        "mesh_score": scalars([f.need("mesh_scores") for f in present]),
        "age": scalars([f.need("ages") for f in present]),
        "sex": scalars([f.need("sexes") for f in present]),
        "pose": vectors([f.need("poses") for f in present], 3),
        "tone": scalars([f.need("tones") for f in present]),
        "beard": scalars([f.need("beards") for f in present]),
        **{embedding_column(name): vectors([f.embeddings[name] for f in present], dim) for name, dim in recognizers.items()},
    }
    struct = pa.StructArray.from_arrays([columns[field.name].cast(field.type) for field in kind], fields=list(kind))
    return pa.ListArray.from_arrays(pa.array(offsets), struct, mask=pa.array([faces is None for faces in images], pa.bool_()))


def faces_of(scalar: pa.ListScalar, recognizers: Mapping[str, int]) -> Faces:
    """The faces of one row of the scan table."""
    values = scalar.values
    if values is None or len(values) == 0:
        return Faces.empty()

    def column(name: str, *shape: int) -> F32:
        field = values.field(name)
        flat = field.flatten() if shape else field
        return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(len(values), *shape)

    return Faces(
        boxes=column("box", 4),
        points=column("points", 5, 2),
        scores=column("score"),
        detectors=tuple(values.field("detectors").to_pylist()),
        meshes=column("mesh", MESH_POINTS, 3),
        mesh_scores=column("mesh_score"),
        embeddings={name: column(embedding_column(name), dim) for name, dim in recognizers.items()},
        ages=column("age"),
        sexes=column("sex"),
        poses=column("pose", 3),
        tones=column("tone"),
        beards=column("beard"),
    )


def matrix(column: pa.ChunkedArray | pa.Array, dim: int) -> NDArray[Any]:
    """A fixed-size-list column as float32 (rows, dim)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)
