"""The evaluation as one page: verdict, figures with intervals, charts, published faces, limits. It opens from disk and prints."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from mfmc_ray.evaluate import page_recognition, plots
from mfmc_ray.evaluate.plots import NoPlotsError
from mfmc_ray.evaluate.report import clean, cosine, data_uri, notices, number
from mfmc_ray.evaluate.tabled import FEW, Block, Cell, Chart, Group, Picture, Table, blocks, plain, words
from mfmc_ray.faces.faces import Image

_ABOUT = ("schema", "mfmc_ray", "made", "images", "recognition")
"""Keys that the page shows by itself."""
_TITLES = {
    "utility": (
        "Is a face still of use?",
        "What a face keeps, before against after. Landmarks are in distances between the eye corners, pose and tone in degrees, age in "
        "years. Of errors 0 is best, of correlations and of what is kept 1.",
    ),
    "downstream": (
        "Do other programs work as before?",
        "Detectors and taggers on the output against themselves on the original: 1 is best. And a detector that learns from the output, "
        "against one that learns from the originals.",
    ),
    "structure": (
        "Is the picture the same elsewhere?",
        "Pixel by pixel. SSIM: 1 is best, PSNR: 100 dB. Both are meant to fall in a face that wears another one, and not outside of it.",
    ),
    "perceptual": ("Does the picture look the same?", "Distances between features of networks: 0 is best. Held against what a blur does."),
    "generative": (
        "Do the new faces look like faces?",
        "The set of outputs against the set of originals, by features of networks. “Real” is the best that faces of others can reach.",
    ),
    "collections": ("Other collections", "This evaluation beside those of other collections."),
    "comparisons": ("Against other ways", "The same figures of other choices and other anonymizers."),
}
REASONS = {
    "no_mesh": "no face could be made out precisely enough to draw on it",
    "unsure_mesh": "where its eyes and mouth are is uncertain",
    "half_hidden": "one half of it is hidden, or it is turned further than can be told",
    "profile": "turned too far aside",
    "steep_pitch": "turned too far up or down",
    "mouth_covered": "the mouth is covered",
    "too_small": "too small to draw a face on it",
    "similar_to_known": "no drawn face was shown to be unlike every known face",
    "similar_to_original": "no drawn face was shown to be unlike the original",
    "unusable_embedding": "a recognizer gave no usable vector, so nothing could be shown",
    "swap_failed": "the swap network drew no face",
    "review": "somebody looked at it and covered it",
}


@dataclass(frozen=True)
class Guarded:
    """The certificates that one guard gave the replaced faces.

    Attributes:
        recognizer: its name.
        threshold: cosine that a face must stay below; the lowest, if they differ.
        worst: the highest similarity to a known face.
        start, width: where the first bin begins, and how wide each is; cosines.
        counts: of faces.
        broken: faces whose similarity is not below their threshold.
    """

    recognizer: str
    threshold: float | None
    worst: float | None
    start: float
    width: float
    counts: Sequence[int]
    broken: int = 0

    @property
    def faces(self) -> int:
        """How many it was asked about."""
        return sum(self.counts)


@dataclass(frozen=True)
class Published:
    """What the page shows of a run's OUT: nothing that is not published there.

    Attributes:
        manifest: the run's.
        guarded: a histogram for each guard.
        redacted: reason → faces.
        tiles: uint8 (h, w, 3) RGB: published faces, replaced ones only.
    """

    manifest: Mapping[str, Any] = field(default_factory=dict)
    guarded: Sequence[Guarded] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)
    tiles: Sequence[Image] = ()


def page(evaluation: Mapping[str, Any], published: Published | None = None) -> tuple[str, str | None]:
    """The page: one HTML file, no script, no request to anywhere. It holds no original, no name and no path.

    Args:
        evaluation: what evaluation.json holds; what is missing is left out, what is new is shown as it is.
        published: of a run's OUT; None: OUT is a plain folder, of which no picture is shown.

    Returns:
        HTML, and why it has no charts, None if it has.
    """
    shown = published or Published()
    drawn = _Charts()
    recognition = evaluation.get("recognition")
    text, said, at_chance = page_recognition.verdict(recognition)
    html = _template().render(
        version=evaluation.get("mfmc_ray"),
        made=_mapping(evaluation.get("made")),
        images=_mapping(evaluation.get("images")),
        method=page_recognition.at(recognition, "method"),
        created=shown.manifest.get("created"),
        plain_folder=published is None,
        notices=notices(shown.manifest),
        verdict=text,
        said=said,
        at_chance=at_chance,
        tiles=page_recognition.tiles(recognition),
        recognized=drawn.all(page_recognition.parts(recognition)),
        certificates=drawn.all([_certificates(shown.guarded)]),
        others=[_section(name, value) for name, value in evaluation.items() if name not in _ABOUT],
        redacted=[(words(name), REASONS.get(name, ""), n) for name, n in sorted(shown.redacted.items(), key=lambda x: (-x[1], x[0]))],
        failed=_mapping(_mapping(shown.manifest.get("counts")).get("failed")),
        faces=[data_uri(tile) for tile in shown.tiles],
        few=FEW,
        missing=drawn.why,
        data="data:application/json;base64," + base64.b64encode(json.dumps(evaluation, indent=1).encode()).decode(),
    )
    return html, drawn.why


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfmc_ray.evaluate"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clean": clean, "number": number, "words": words, "plain": plain, "kind": lambda block: type(block).__name__}
    return environment.get_template("evaluation.html.j2")


@dataclass
class _Charts:
    """Draws charts, and notes why they cannot be drawn."""

    why: str | None = None

    def all(self, groups: Sequence[Group]) -> list[Group]:
        """The same with charts drawn, or left out."""
        return [Group(group.title, [block for block in map(self._one, group.blocks) if block is not None]) for group in groups]

    def _one(self, block: Block) -> Block | None:
        if isinstance(block, Group):
            return self.all([block])[0]
        if not isinstance(block, Chart):
            return block
        try:
            return Picture(block.draw(), block.alt)
        except NoPlotsError as error:
            self.why = str(error)
            return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _certificates(guarded: Sequence[Guarded]) -> Group:
    title = "The certificates: similarity to the nearest known face"
    shown = [guard for guard in guarded if guard.faces]
    if not shown:
        return Group(title, [])
    bars = [(guard.recognizer, guard.start, guard.width, list(guard.counts), guard.threshold) for guard in shown]
    alt = "Histograms of similarities: " + "; ".join(
        f"{guard.recognizer}: {guard.faces} faces, at most {cosine(guard.worst)}, threshold {cosine(guard.threshold)}" for guard in shown
    )
    head = ["guard", "faces", "highest similarity", "threshold", "faces not below it"]
    rows = [
        (
            guard.recognizer,
            [Cell(number(guard.faces)), *(Cell(cosine(v)) for v in (guard.worst, guard.threshold)), Cell(number(guard.broken))],
        )
        for guard in shown
    ]
    about = (
        "Each replaced face as it is published was compared with every known face, by each guard. It was published only if the highest "
        "similarity stayed below the threshold."
    )
    chart = Chart(lambda: plots.histograms(bars, "highest similarity to a known face (cosine)", "{:.3f}", alike=False), alt)
    return Group(title, [about, chart, Table("Certificates of the replaced faces", head, rows)])


def _section(name: str, value: Any) -> tuple[str, str, list[Block]]:
    title, about = _TITLES.get(name, (words(name).capitalize(), ""))
    return title, about, blocks(value)
