"""How this project's Parquet files are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP = 128
GROUP_BYTES = 128 << 20


def write_parquet(table: pa.Table, path: Path) -> None:
    """A Parquet file for images: their bytes neither compressed nor in dictionaries, row groups small enough to be read one by one."""
    leaves = list(_leaves(table.schema))
    texts = [name for name, kind in leaves if pa.types.is_string(kind)]
    blobs = [name for name, kind in leaves if _is_binary(kind)]
    rows = max(1, min(ROWS_PER_GROUP, GROUP_BYTES * table.num_rows // max(1, table.nbytes)))
    pq.write_table(
        table,
        path,
        row_group_size=rows,
        use_dictionary=texts,
        compression={name: "none" if name in blobs else "snappy" for name, _ in leaves},
        write_statistics=[name for name, _ in leaves if name not in blobs],
    )


def _leaves(fields: Any, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's name of each column, as `faces.list.element.box.list.element`."""
    for field in fields:
        name, kind = prefix + field.name, field.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
            name, kind = f"{name}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from _leaves(list(kind), name + ".")
        else:
            yield name, kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
