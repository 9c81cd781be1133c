"""The section `recognition`: what recognizers, most of which took no part, make of the faces before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.evaluate.bootstrap import Bootstrap, by_group, nothing, short
from mfmc_ray.evaluate.identification import RANKS, Answers, identify
from mfmc_ray.evaluate.margins import margins, summary
from mfmc_ray.evaluate.pair import CHANGED, KEPT, REDACTED, REPLACED, SHOWN, WITHHELD, Pair
from mfmc_ray.evaluate.recognizers import RECOGNIZERS
from mfmc_ray.evaluate.sections import FACE_KEY, About, Note, Options, Row
from mfmc_ray.evaluate.verification import MOST_FACES, RATES, accepted, curve, drawn_thresholds, pairs, sample, thresholds
from mfmc_ray.faces.faces import F32

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

STRONG = 0.7
"""TAR at FAR 1e-2 on originals from which a recognizer's silence is worth something; where there are too few pairs, on LFW."""
LEAST_PEOPLE = 10
"""Among fewer people with two photos each nothing is said."""
REMEMBERED = 64
"""Originals whose embeddings are held."""
VERSION = 1
_PREFIX = "embeddings-"


def notes(options: Options) -> Sequence[Note]:
    """A table of embeddings for each recognizer."""
    return [
        Note(
            _PREFIX + name.replace("_", "-"),
            "mfmc_ray.evaluate.recognition:Embeddings",
            VERSION,
            {"recognizer": name, "digest": options.extra.get("digests", {}).get(name)},
            RECOGNIZERS[name].models,
        )
        for name in options.recognizers or ()
    ]


class Embeddings:
    """One recognizer's embeddings of each face, in the original, and in the output if that shows it.

    Args:
        recognizer: a name of `RECOGNIZERS`.
        digest: of its files, which decides whether rows are made anew; not looked at here.
    """

    schema = pa.schema([*FACE_KEY, ("original", pa.list_(pa.float32())), ("output", pa.list_(pa.float32()))])

    def __init__(self, recognizer: str, digest: str | None = None) -> None:
        self.embedder = RECOGNIZERS[recognizer].make()
        self._originals: dict[tuple[str, bytes], F32] = {}

    def collect(self, pair: Pair) -> list[Row]:
        """A row for each face; without an output embedding where a face is covered or not published."""
        faces = pair.faces
        if len(faces) == 0:
            return []
        key = pair.image_id, faces.points.tobytes()
        if key not in self._originals:  # a comparison looks at an original with many outputs
            if len(self._originals) >= REMEMBERED:
                self._originals.clear()
            self._originals[key] = self.embedder.embed(pair.original, faces.points)
        before = self._originals[key]
        after: dict[int, F32] = {}
        if pair.output is not None and len(shown := faces.which(SHOWN)):
            after = dict(zip(shown.tolist(), self.embedder.embed(pair.output, faces.output_points[shown]), strict=True))
        return [pair.key(i) | {"original": vector.tolist(), "output": _listed(after.get(i))} for i, vector in enumerate(before)]


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    verdicts = np.array(about.faces["verdict"].to_pylist(), np.str_)
    image = np.unique(np.array(about.faces["path"].to_pylist(), np.str_), return_inverse=True)[1].astype(np.int64)
    identities = about.faces["identity"].to_pylist()
    names = {name: i for i, name in enumerate(sorted(set(identities) - {"", None}))}
    worn = np.array([names.get(name, -1) for name in identities], np.int64)
    boot = Bootstrap(about.person, about.options.rounds, about.options.seed)
    guards = set(about.options.extra.get("guards", ()))
    asked = [name for name in about.options.recognizers or () if _PREFIX + name.replace("_", "-") in tables]
    found, drops = [], []
    for name in asked:
        row, drop = _Recognized(name, about, tables[_PREFIX + name.replace("_", "-")], verdicts, image, worn, boot).figures()
        found.append({"recognizer": name, "title": RECOGNIZERS[name].title, "guard": name in guards, **row})
        drops.append((name in guards, row["quality"]["weak"], drop))
    ordered = sorted(found, key=lambda row: -_strength(row["quality"]))
    for place, row in enumerate(ordered, 1):
        row["quality"]["strength"] = place
    people = np.bincount(about.person[about.person >= 0]) if (about.person >= 0).any() else np.zeros(0, np.int64)
    independent = [drop for guard, weak, drop in drops if not guard and not weak]
    return {
        "people": {
            "labels": about.labels,
            "people": int((people > 0).sum()),
            "with_other_photos": int((people > 1).sum()),
            "faces_labelled": int((about.person >= 0).sum()),
        },
        "faces": {verdict: int((verdicts == verdict).sum()) for verdict in (REPLACED, CHANGED, REDACTED, WITHHELD, KEPT)},
        "method": METHOD,
        "recognizers": ordered,
        "skipped": dict(about.options.extra.get("skipped", {})),
        "average_accuracy": {
            "all": _average([drop for _, _, drop in drops], boot),
            "independent": _average(independent, boot),
            "note": "the paper's figure: rank 1, before and after, averaged over recognizers; `independent`: no guards, no weak ones",
        },
        "verdict": verdict_of(ordered),
    }


METHOD = (
    "gallery: all originals of labelled people, but those of the probe's own photo (other_photos), or with them (same_photo); a person's "
    "rank is that of their most similar photo; thresholds from pairs of originals of different people; 95 % intervals, people drawn"
)


class _Recognized:
    """One recognizer's figures."""

    def __init__(
        self, name: str, about: About, table: pa.Table, verdicts: NDArray[np.str_], image: I64, worn: I64, boot: Bootstrap
    ) -> None:
        self.name = name
        self.about, self.person, self.image, self.worn, self.boot = about, about.person, image, worn, boot
        at = about.at(table)
        self.originals, self.outputs = (_matrix(table[side], at, len(about)) for side in ("original", "output"))
        self.shown = np.isin(verdicts, (REPLACED, CHANGED)) & np.isfinite(self.outputs).all(1)
        self.lost = np.isin(verdicts, (REDACTED, WITHHELD))

    def figures(self) -> tuple[dict[str, Any], tuple[F64, F64]]:
        """The figures, and hits at rank 1 before and after, float64 (n,), of the faces that both are known of."""
        boot, shown = self.boot, np.flatnonzero(self.shown)
        before = self._asked(self.originals, np.arange(len(self.person)))
        other, same = (self._asked(self.outputs, shown, same_photo=s) for s in (False, True))
        rows = sample(np.flatnonzero((self.person >= 0) & np.isfinite(self.originals).all(1)), self.person, MOST_FACES, self._seed)
        originals = pairs(self.originals, rows, self.originals, rows, self.person, self.image, boot.person)
        limits, drawn = thresholds(originals), drawn_thresholds(originals, boot)
        taken = rows[self.shown[rows]]
        outputs = pairs(self.outputs, taken, self.originals, rows, self.person, self.image, boot.person)
        quality = self._quality(before, originals, limits, drawn)
        both = (before.hits(1), other.hits(1))
        asked = {"other_photos": self._identified(other, before), "same_photo": self._identified(same, None)}
        limit = limits["1e-3"] if limits["1e-3"] is not None else limits["1e-2"]
        of_outputs, of_originals = margins(self.originals, self.outputs, shown, self.person, self.image, self.worn, limit)
        found: dict[str, Any] = {
            "quality": quality,
            "thresholds": {name: None if limit is None else short(limit) for name, limit in limits.items()},
            "identification": {"protocol": "other_photos" if "rank1" in asked["other_photos"] else "same_photo", **asked},
            "verification": {f"tar_{name}": accepted(outputs, limits[name], drawn[name], boot) for name in RATES}
            | {f"tar_{name}_before": quality[f"tar_{name}"] for name in RATES}
            | {f"same_photo_{name}": self._own(limits[name]) for name in RATES}
            | curve(outputs, boot, self._seed),
            "margin": {name: summary(values, boot, self.shown) for name, values in of_outputs.items()},
            "margin_originals": {name: summary(values, boot) for name, values in of_originals.items()},
            "unique": self._unique(of_outputs.get("to_any_fake"), of_originals.get("among_photos")),
            "by_group": by_group(self.about.groups, lambda mine: self._of_group(mine, before, other, same, of_outputs), self.shown),
        }
        return found, both

    @property
    def _seed(self) -> int:
        return self.about.options.seed

    def _asked(self, vectors: F32, rows: I64, *, same_photo: bool = False) -> Answers:
        probes = np.full_like(vectors, np.nan)
        probes[rows] = vectors[rows]
        gallery = self.originals, self.person, self.image
        return identify(probes, self.person, self.image, *gallery, same_photo=same_photo)

    def _quality(self, before: Answers, originals: Any, limits: Mapping[str, float | None], drawn: Mapping[str, F64]) -> dict[str, Any]:
        """What the recognizer makes of originals: what its silence about the output is worth."""
        found: dict[str, Any] = {f"rank{k}": self.boot.mean(before.hits(k)) for k in RANKS}
        found |= {f"tar_{name}": accepted(originals, limits[name], drawn[name], self.boot) for name in RATES}
        found |= curve(originals, self.boot, self._seed)
        found["pairs"] = {"one_person": int(originals.same.sum()), "strangers": int((~originals.same).sum())}
        found["reference"] = RECOGNIZERS[self.name].reference
        found["weak"] = _strength(found) < STRONG
        return found

    def _identified(self, answers: Answers, before: Answers | None) -> dict[str, Any]:
        """Rates over replaced faces, and over all faces, in which covered and withheld ones are never found."""
        asked, boot = answers.asked, self.boot
        found: dict[str, Any] = {"people": answers.people, "probes": int(asked.sum()), "people_probed": len(np.unique(self.person[asked]))}
        if found["people_probed"] < LEAST_PEOPLE:
            return found | {"why": f"wanted {LEAST_PEOPLE} people or more to ask about, {found['people_probed']} are there"}
        could = before.asked if before is not None else self.person >= 0
        for k in RANKS:
            hits = answers.hits(k)
            chance = answers.chance(self.person, k)
            among_all = np.where(asked, hits, np.where(self.lost & could, 0.0, np.nan))
            found[f"rank{k}"] = boot.mean(hits)
            found[f"rank{k}_of_all_faces"] = boot.mean(among_all)
            found[f"chance{k}"] = None if chance is None else short(chance)
            same = answers.chance(self.person, k, self.about.groups.get("sex"))
            found[f"chance{k}_same_sex"] = None if same is None else short(same)
            if before is not None:
                found[f"rank{k}_before"] = boot.mean(before.hits(k), asked)
                found[f"drop{k}"] = boot.mean(before.hits(k) - hits, asked)
            if chance is not None:  # recovery beyond guessing
                found[f"leak{k}"] = {n: v if n == "n" else short(v - chance) for n, v in found[f"rank{k}"].items()}
        return found

    def _own(self, limit: float | None) -> dict[str, Any]:
        """The share of faces that are taken for the very face that they replace."""
        if limit is None:
            return nothing("too few pairs of strangers")
        cosines = (self.outputs.astype(np.float64) * self.originals).sum(1)
        return self.boot.mean(np.where(self.shown, cosines > limit, np.nan))

    def _unique(self, fakes: F64 | None, photos: F64 | None) -> dict[str, Any]:
        """The share of fakes that are like no other fake, and of the same originals that are like no other original."""
        worn = self.worn[self.shown & (self.worn >= 0)]
        found: dict[str, Any] = {"identities_worn": len(np.unique(worn)), "faces_that_wear_one": len(worn)}
        for name, values in (("fakes", fakes), ("originals", photos)):
            if values is None:
                found[name] = nothing("too few pairs of strangers")
            else:
                found[name] = self.boot.mean(np.where(np.isfinite(values), values >= 0, np.nan), self.shown)
        return found

    def _of_group(
        self, mine: NDArray[np.bool_], before: Answers, other: Answers, same: Answers, of_outputs: Mapping[str, F64]
    ) -> dict[str, Any]:
        boot = self.boot
        return {
            "faces": int(mine.sum()),
            "rank1_before": boot.mean(before.hits(1), mine),
            "rank1": boot.mean(other.hits(1), mine),
            "rank5": boot.mean(other.hits(5), mine),
            "same_photo_rank1": boot.mean(same.hits(1), mine),
            "margin_to_original": boot.mean(of_outputs["to_original"], mine) if of_outputs else nothing("too few pairs"),
            "margin_to_known": boot.mean(of_outputs["to_known"], mine) if of_outputs else nothing("too few pairs"),
        }


def verdict_of(recognizers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sentence: the worst that a recognizer which did not guard does.

    That weak ones find nothing is no news, that they find somebody is: they can make it worse, and without a strong one it is never good.
    """
    heard: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for row in recognizers:
        asked = row["identification"][row["identification"]["protocol"]]
        if not row["guard"] and "rank1" in asked:
            heard.append((row, asked))
    weak = [row["recognizer"] for row in recognizers if row["quality"]["weak"] and not row["guard"]]
    strong = [row["recognizer"] for row, _ in heard if not row["quality"]["weak"]]
    if not heard:
        return {"recognizer": None, "weak": weak, "text": "No verdict: there is no recognizer that did not guard, or too few people."}
    row, asked = max(heard, key=lambda one: one[1]["leak1"]["value"])
    rate, chance = asked["rank1"], asked["chance1"]
    at_chance = rate["low"] <= chance
    before = f", before {asked['rank1_before']['value']:.1%}" if "rank1_before" in asked else ""
    text = (
        f"Of {len(heard)} recognizers that did not guard ({len(strong)} strong), {row['title']} finds the most: the right person first for "
        f"{rate['value']:.1%} of replaced faces [{rate['low']:.1%}, {rate['high']:.1%}] among {asked['people']} people; "
        f"chance {chance:.1%}{before}."
    )
    if not at_chance:
        text += " That is more than guessing: people can still be told with that share."
    else:
        text += (
            " That is no more than guessing." if strong else " No good verdict: all of them are weak, and would find little in any case."
        )
    found = {"recognizer": row["recognizer"], "rank1": rate, "chance1": chance, "at_chance": at_chance and bool(strong)}
    return {**found, "strong": strong, "weak": weak, "text": text}


def _average(drops: Sequence[tuple[F64, F64]], boot: Bootstrap) -> dict[str, Any]:
    """Rank 1 before and after, and the drop in points and relative to before, the mean over recognizers."""
    if not drops:
        none = nothing("no such recognizer")
        return {"before": none, "after": none, "drop": none, "relative_drop": None, "recognizers": 0}
    # of faces that all were asked about; NaN elsewhere
    before, after = (np.stack([pair[k] for pair in drops]).mean(0) for k in (0, 1))
    before, after = np.where(np.isfinite(after), before, np.nan), np.where(np.isfinite(before), after, np.nan)
    people = len(np.unique(boot.person[np.isfinite(before)]))
    if people < LEAST_PEOPLE:
        why = nothing(f"wanted {LEAST_PEOPLE} people or more to ask about, {people} are there")
        return {"before": why, "after": why, "drop": why, "relative_drop": None, "recognizers": len(drops)}
    figures: dict[str, dict[str, Any]] = {"before": boot.mean(before), "after": boot.mean(after), "drop": boot.mean(before - after)}
    was, lost = figures["before"]["value"], figures["drop"]["value"]
    return {**figures, "relative_drop": short(lost / was) if was else None, "recognizers": len(drops)}


def _strength(quality: Mapping[str, Any]) -> float:
    measured = quality["tar_1e-2"]["value"]
    return float(quality["reference"] if measured is None else measured)


def _listed(vector: F32 | None) -> list[float] | None:
    return None if vector is None else vector.tolist()


def _matrix(column: pa.ChunkedArray, at: I64, n: int) -> F32:
    """float32 (n, d) of a column of lists, whose rows are about `at`; NaN where there is none."""
    array = column.combine_chunks()
    some = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    values = array.drop_null()
    width = len(values[0]) if len(values) else 1
    found = np.full((n, width), np.nan, np.float32)
    found[at[some]] = np.asarray(values.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)
    return found
