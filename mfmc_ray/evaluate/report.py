"""The report: one HTML file with figures, charts and pictures of what a run did."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.evaluate.sheets import face_crop, thumbnail
from mfmc_ray.faces.faces import Image

Originals = Callable[[str], Image]
Row = dict[str, Any]

IMAGES_SHOWN = 48
FACES_SHOWN = 96
_CLOSEST_SHOWN = 24  # of the faces: those with the least margin
_PICTURE_PX, _FACE_PX = 360, 128
_LISTED = 10  # rows of a table of examples
_DOTS = 500  # of a scatter plot


def write_report(
    folder: str | Path,
    *,
    manifest: Mapping[str, Any],
    images: pa.Table,
    faces: pa.Table,
    identities: pa.Table,
    originals: Originals | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `folder/index.html`: one file, no script, no request to anywhere.

    Args:
        folder: made if absent.
        manifest: the run's manifest; what is missing in it is left out of the report, counts are then taken from the tables.
        images, faces, identities: tables with the columns of `mfmc_ray.tables`. Only the pictures of a fixed sample are decoded.
        originals: image_id → the original picture, upright. With it the report shows before beside after and is PRIVATE: it belongs
            into WORK, never into OUT. An original that raises OSError, ValueError or KeyError is left out.
        audit: the audit's result, `{"checks": [{"name", "count", "wanted", "ok"}]}`; of the rest what pipeline/signoff.py describes is
            shown if it is there.

    Returns:
        The path of the file.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfmc_ray.evaluate"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clean": clean, "number": number, "odds": odds, "cosine": cosine, "share": share}
    # the pixels stay in `images`; everything else of both tables is small
    rows = images.drop_columns([c for c in ("image",) if c in images.column_names])
    html = environment.get_template("report.html.j2").render(
        manifest=manifest,
        private=originals is not None,
        notices=notices(manifest),
        counts=_counts(manifest, rows, faces),
        guarantee=_guarantee(manifest, faces),
        speed=_speed(manifest),
        to_known=_histogram(faces, "max_similarity_to_known"),
        to_original=_histogram(faces, "similarity_to_original"),
        closest=_closest(faces),
        identities=_identities(identities, faces),
        kept=_attributes(faces),
        failed=_examples(rows),
        pictures=list(_pictures(images, originals)),
        crops=list(_crops(images, faces, originals)),
        audit=audit,
    )
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def clean(text: object) -> str:
    """Text from outside without what does not print or turns the line around (control, direction and lone surrogate characters)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def number(value: float | int | None, digits: int = 0) -> str:
    """12345.6 → "12,346"; None → "–"."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def cosine(value: float | None) -> str:
    """0.31249 → "0.312"; None → "–"."""
    return number(value, 3)


def odds(rate: float | None) -> str:
    """A rate in 0–1 as people say it: 1e-6 → "1 in 1,000,000"."""
    if rate is None or not math.isfinite(rate):
        return "–"
    return f"1 in {1 / rate:,.0f}" if rate > 0 else "less than could be measured"


def share(value: float | None) -> str:
    """0.0515 → "5.2 %"; None → "–"."""
    return "–" if value is None else f"{number(100 * value, 1)} %"


def notices(manifest: Mapping[str, Any]) -> list[str]:
    """What whoever uses the result has to know: the manifest's notices, and which models are not for commercial use."""
    found = [str(notice) for notice in manifest.get("notices") or ()]
    limited = [str(model.get("name", "?")) for model in manifest.get("models") or () if model.get("commercial") is False]
    if limited and not any("non-commercial" in notice.lower() for notice in found):
        found.insert(0, f"NON-COMMERCIAL use only: the licences of these models exclude commercial use: {', '.join(limited)}.")
    return found


@dataclass(frozen=True)
class Counts:
    """How many of what; the orders are those of the report's bars."""

    images: dict[str, int]
    faces: dict[str, int]
    redacted: dict[str, int]
    failed: dict[str, int]

    @property
    def published(self) -> int:
        return self.images.get("unchanged", 0) + self.images.get("anonymized", 0)


def _counts(manifest: Mapping[str, Any], images: pa.Table, faces: pa.Table) -> Counts:
    stated = manifest.get("counts") or {}

    def count(name: str, table: pa.Table, column: str, verdict: str | None = None, order: Sequence[str] = ()) -> dict[str, int]:
        if name in stated:
            found = {str(key): int(n) for key, n in stated[name].items()}
        else:
            some = table if verdict is None else table.filter(pc.equal(table["verdict"], verdict))
            found = {str(entry["values"]): entry["counts"] for entry in pc.value_counts(some[column]).to_pylist()}
        by_size = sorted(found, key=lambda key: (-found[key], key))
        return {key: found[key] for key in [*(k for k in order if k in found), *(k for k in by_size if k not in order)]}

    return Counts(
        count("images", images, "verdict", order=("unchanged", "anonymized", "withheld", "failed")),
        count("faces", faces, "verdict", order=("kept", "replaced", "redacted")),
        count("redacted", faces, "reason", "redacted"),
        count("failed", images, "reason", "failed"),
    )


@dataclass(frozen=True)
class Guarantee:
    """Whether the promise holds in the faces table, and how narrowly.

    Attributes:
        replaced: faces that wear a fake identity.
        broken: those of them with a similarity, to a known face by any guard or to their original, that is missing or not below
            the threshold.
        worst: the highest similarity to any known face, by the first guard.
        margin: the smallest distance to a threshold, of any guard.
        attempts: identities tried for each replaced face, mean.
        known: known faces, of the guard with the most.
        guards: as in the manifest, each with its own `worst`.
    """

    replaced: int
    broken: int
    worst: float | None
    margin: float | None
    attempts: float | None
    known: int | None
    guards: list[Row]


def _guarantee(manifest: Mapping[str, Any], faces: pa.Table) -> Guarantee:
    replaced = faces.filter(pc.equal(faces["verdict"], "replaced"))
    guards = [dict(guard) for guard in manifest.get("guard") or ()]
    known = [int(guard["known_faces"]) for guard in guards if guard.get("known_faces") is not None]
    threshold = replaced["threshold"]
    holds = [pc.less(replaced[column], threshold) for column in ("max_similarity_to_known", "similarity_to_original")]
    passed = np.asarray(pc.fill_null(pc.and_(*holds), False).to_numpy(), bool)
    # and every guard's certificate; what is not recorded does not hold
    certificates = pc.list_flatten(replaced["certificates"])
    names, closest, limits = (pc.struct_field(certificates, name) for name in ("recognizer", "max_similarity", "threshold"))
    below = pc.fill_null(pc.less(closest, limits), False)
    owners = pc.list_parent_indices(replaced["certificates"]).to_numpy()
    certified = np.bincount(owners, weights=below.to_numpy(), minlength=len(replaced)) >= max(1, len(guards))
    for guard in guards:
        guard["worst"] = pc.max(closest.filter(pc.equal(names, guard.get("recognizer")))).as_py()
    margins = _margins(replaced)
    margin = float(np.nanmin(margins)) if np.isfinite(margins).any() else None
    worst, attempts = pc.max(replaced["max_similarity_to_known"]).as_py(), pc.mean(replaced["attempts"]).as_py()
    broken = int((~(passed & certified)).sum())
    return Guarantee(len(replaced), broken, worst, margin, attempts, max(known, default=None), guards)


def _speed(manifest: Mapping[str, Any]) -> list[Row]:
    """The stages with images and faces per second."""
    rows = []
    for stage in manifest.get("stages") or ():
        seconds = stage.get("seconds")
        rate = {f"{what}_rate": stage[what] / seconds for what in ("images", "faces") if seconds and stage.get(what) is not None}
        rows.append(
            {"name": stage.get("name", "?"), "seconds": seconds, "images": stage.get("images"), "faces": stage.get("faces"), **rate}
        )
    return rows


@dataclass(frozen=True)
class Histogram:
    """Bars of a chart 640 × 200 units large: x, y, width, height and what they say; ticks and the threshold as x and a label."""

    bars: list[tuple[float, float, float, float, str]]
    ticks: list[tuple[float, str]]
    line: tuple[float, str] | None
    values: int
    mean: float


def _histogram(faces: pa.Table, column: str, bin_width: float = 0.02) -> Histogram | None:
    some = faces.filter(pc.is_valid(faces[column]))
    if not len(some):
        return None
    values = np.asarray(some[column].to_numpy(), np.float64)
    thresholds = some["threshold"].drop_null()
    threshold = pc.min(thresholds).as_py() if len(thresholds) else None
    top = max(values.max(), threshold if threshold is not None else -1)
    # ends on multiples of 0.1, so that the ticks are round numbers
    low, high = math.floor(values.min() * 10 - 1e-6) / 10, math.ceil(top * 10 + 0.3) / 10
    edges = np.linspace(low, high, round((high - low) / bin_width) + 1)
    heights, _ = np.histogram(values, edges)

    def x(value: float) -> float:
        return float(round(640 * (value - low) / (high - low), 2))

    tallest = heights.max()
    bars = [
        (x(a) + 1, round(200 - 190 * n / tallest, 2), x(b) - x(a) - 2, round(190 * n / tallest, 2), f"{a:.2f} to {b:.2f}: {n:,} faces")
        for a, b, n in zip(edges, edges[1:], heights, strict=False)
        if n
    ]
    ticks = [(x(tick), f"{tick:.1f}") for tick in np.arange(round(low * 10), round(high * 10) + 1) / 10]
    return Histogram(
        bars, ticks, None if threshold is None else (x(threshold), f"threshold {threshold:.3f}"), len(values), float(values.mean())
    )


def _closest(faces: pa.Table) -> list[Row]:
    """The replaced faces with the least margin, with the known face each came closest to, by any guard."""
    replaced = faces.filter(pc.equal(faces["verdict"], "replaced"))
    rows = [
        {**{name: face[name] for name in ("image_id", "face_no", "identity_id")}, **certificate}
        for face in replaced.take(_by_margin(replaced)[:_LISTED]).to_pylist()
        for certificate in face["certificates"] or ()
    ]
    rows.sort(key=lambda row: (row["threshold"] or 0) - (row["max_similarity"] or 0))
    return rows[:_LISTED]


def _margins(faces: pa.Table) -> NDArray[np.float64]:
    """float64 (n,): each face's smallest distance to a threshold, by any guard; NaN if none is recorded."""
    certificates = pc.list_flatten(faces["certificates"])
    gaps = pc.subtract(pc.struct_field(certificates, "threshold"), pc.struct_field(certificates, "max_similarity")).to_numpy()
    margins: NDArray[np.float64] = pc.subtract(faces["threshold"], faces["max_similarity_to_known"]).to_numpy().astype(np.float64)
    np.fmin.at(margins, pc.list_parent_indices(faces["certificates"]).to_numpy(), gaps)
    return np.asarray(margins, np.float64)


def _by_margin(faces: pa.Table) -> pa.Array:
    table = pa.table({"margin": _margins(faces), "image_id": faces["image_id"]})
    return pc.sort_indices(table, [("margin", "ascending"), ("image_id", "ascending")])


def _identities(identities: pa.Table, faces: pa.Table) -> Row:
    """How the fake identities are used; `twice` counts images in which one stands twice."""
    uses = identities["uses"].drop_null()
    worn = faces.filter(pc.is_valid(faces["identity_id"]))
    pairs = worn.group_by(["image_id", "path", "identity_id"]).aggregate([([], "count_all")])
    return {
        "used": len(identities),
        "most": pc.max(uses).as_py() if len(uses) else None,
        "twice": len(pairs.filter(pc.greater(pairs["count_all"], 1))),
    }


def _attributes(faces: pa.Table) -> Row | None:
    """Sex, age, tone and pose of the replaced faces, before against after."""
    replaced = faces.filter(pc.equal(faces["verdict"], "replaced"))

    def both(name: str) -> tuple[Any, Any]:
        before, after = replaced[f"{name}_before"], replaced[f"{name}_after"]
        known = pc.and_(pc.is_valid(before), pc.is_valid(after))
        return before.filter(known), after.filter(known)

    def gap(name: str) -> float | None:
        value = pc.mean(pc.abs(pc.subtract(*both(name)))).as_py()
        return None if value is None else float(value)

    ages = [column.to_numpy() for column in both("age")]
    if not len(ages[0]):
        return None
    sexes = Counter(zip(*(column.to_pylist() for column in both("sex")), strict=True))
    known = sum(sexes.values())
    step = max(1, len(ages[0]) // _DOTS)
    return {
        "faces": len(ages[0]),
        "sex": sum(n for (before, after), n in sexes.items() if before == after) / known if known else None,
        "sexes": [
            (before, sum(n for (b, _), n in sexes.items() if b == before), sexes[before, before])
            for before in sorted({b for b, _ in sexes})
        ],
        "gaps": {name: gap(name) for name in ("age", "tone", "yaw", "pitch", "roll")},
        # 0–90 years on a square of 300 units
        "dots": [
            (round(min(a, 90) * 300 / 90, 1), round(300 - min(b, 90) * 300 / 90, 1))
            for a, b in zip(*(v[::step] for v in ages), strict=True)
        ],
    }


def _examples(images: pa.Table) -> dict[str, list[Row]]:
    """Some of the images that are not published, by verdict, with their reasons."""
    wanted = ["path", "reason", "verdict"]
    return {
        verdict: images.filter(pc.equal(images["verdict"], verdict)).select(wanted).sort_by("path").slice(0, _LISTED).to_pylist()
        for verdict in ("failed", "withheld")
    }


def _pictures(images: pa.Table, originals: Originals | None) -> Iterator[Row]:
    """A fixed sample of the images: those that were changed first. `image_id` is a hash, so its order is as good as a drawn one."""
    slim = images.select(["image_id", "path", "verdict"])
    shown = ("anonymized", "unchanged") if originals is None else ("anonymized", "withheld", "unchanged")
    rank = pc.index_in(slim["verdict"], value_set=pa.array(shown))
    order = pc.sort_indices(
        pa.table({"rank": rank, "id": slim["image_id"], "path": slim["path"]}),
        [("rank", "ascending"), ("id", "ascending"), ("path", "ascending")],
    )
    valid = order.filter(pc.is_valid(pc.take(rank, order)))
    plain = pc.sum(pc.equal(slim["verdict"], "unchanged")).as_py() or 0
    changed = min(len(valid) - plain, IMAGES_SHOWN - min(plain, IMAGES_SHOWN // 6))
    chosen = [*valid[:changed].to_pylist(), *valid[len(valid) - plain :][: IMAGES_SHOWN - changed].to_pylist()]
    for index in chosen:
        row = images.slice(index, 1).to_pylist()[0]
        after = _decode(row)
        before = None if row["verdict"] == "unchanged" else _original(originals, row["image_id"])
        if after is None and before is None:
            continue
        yield {
            **{key: row[key] for key in ("path", "verdict", "faces", "reason")},
            "after": None if after is None else data_uri(thumbnail(after, _PICTURE_PX)),
            "before": None if before is None else data_uri(thumbnail(before, _PICTURE_PX)),
        }


def _crops(images: pa.Table, faces: pa.Table, originals: Originals | None) -> Iterator[Row]:
    """The replaced faces with the least margin, then a fixed sample of all faces."""
    replaced = faces.filter(pc.equal(faces["verdict"], "replaced"))
    closest = replaced.take(_by_margin(replaced)[:_CLOSEST_SHOWN])
    key = [("image_id", "ascending"), ("path", "ascending"), ("face_no", "ascending")]
    spread = faces.take(pc.sort_indices(faces.select([name for name, _ in key]), key)[:FACES_SHOWN])
    names = ["image_id", "path", "face_no", "box", "verdict", "reason", "max_similarity_to_known", "similarity_to_original", "threshold"]
    chosen: dict[tuple[str, str, int], Row] = {}
    for row in [*closest.select(names).to_pylist(), *spread.select(names).to_pylist()]:
        chosen.setdefault((row["image_id"], row["path"], row["face_no"]), row)
    faces_shown = list(chosen.items())[:FACES_SHOWN]
    found: dict[tuple[str, str, int], Row] = {}
    by_image: dict[tuple[str, str], list[Row]] = {}
    for _, row in faces_shown:
        by_image.setdefault((row["image_id"], row["path"]), []).append(row)
    for (image_id, path), some in by_image.items():
        # one image at a time: only its tiles stay in memory
        at = images.filter(pc.and_(pc.equal(images["image_id"], image_id), pc.equal(images["path"], path))).slice(0, 1).to_pylist()
        after = _decode(at[0]) if at else None
        before = _original(originals, image_id)
        for row in some:
            tiles = {
                name: None if picture is None else data_uri(face_crop(picture, row["box"], side=_FACE_PX))
                for name, picture in (("after", after), ("before", before))
            }
            if any(tiles.values()):
                found[image_id, path, row["face_no"]] = row | tiles
    for key_, _ in faces_shown:
        if key_ in found:
            yield found[key_]


def _decode(row: Row) -> Image | None:
    data = (row["image"] or {}).get("bytes")
    if not data:
        return None
    try:
        return decode(data).pixels
    except CodecError:
        return None


def _original(originals: Originals | None, image_id: str) -> Image | None:
    if originals is None:
        return None
    try:
        return originals(image_id)
    except (OSError, ValueError, KeyError):
        return None


def data_uri(image: Image) -> str:
    """uint8 (h, w, 3) RGB as a JPEG in a data: URI."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
