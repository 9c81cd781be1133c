"""`mfmc boxes export`: the boxes of a result for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mfmc_ray.folders import storage_options_of

app = typer.Typer(no_args_is_help=True, help="Boxes of faces as files: in the formats that --boxes takes.")


@app.callback()
def _group() -> None:
    """A group, though it has one verb so far."""


@app.command()
def export(
    out: Annotated[str, typer.Argument(help="The published folder or prefix of a run.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write: .json for coco, .parquet otherwise.")],
    kind: Annotated[
        str, typer.Option("--format", help="coco, img2dataset (relative face_bboxes, a row an image) or parquet (a row a face).")
    ] = "coco",
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec, for a remote OUT.")] = None,
) -> None:
    """Write the boxes of all images of a result, whatever became of the faces.

    Example: mfmc boxes export published/ boxes.json
    """
    from mfmc_ray.boxes_export import export as write

    images, faces = write(out, target, kind, storage_options_of(storage_options))
    Console(highlight=False, soft_wrap=True).print(f"{faces} boxes of {images} images are in {target}", markup=False)
