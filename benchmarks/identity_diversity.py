"""How different the fake identities are from each other and from the portraits they were derived from, and how many there are.

    OMP_NUM_THREADS=1 python benchmarks/identity_diversity.py [--count 5000] [--people ../shared/data/people] [--json FILE]

Consecutive seeds are sampled (not the catalogue), rendered and embedded just as a run does it to certify them. Beside them: those a run
without other known faces would admit, the model's own reference portraits, and real strangers (a folder of labelled photos, one photo of
each). The neutral renderings of a sex share one head and one light, which raises their cosines; the photos of the others do not. (Of 50
identities swapped onto as many portraits the mean SFace cosine of the same sex was 0.24, of their neutral renderings 0.42, of the portraits
0.25.)

How many can be told apart, at a cosine t from which two count as one:

- `kept`: greedy de-duplication in the order of the seeds, as a run fills its pool; `new at the end` is the share of the last tenth of the
  seeds that it kept, that is how far the space is from being used up.
- `1 / p`: p is the share of pairs at or above t. K people that are all equally likely would give p = 1 / K; with uneven chances it is the
  effective number of them (inverse Simpson index, Hill number of order 2), which is below the true number. Its interval is that of a
  U-statistic over identities (Hoeffding 1948), because the pairs of one identity depend on each other.
- `even odds`: the size √(2 ln 2 / p) of a random pool at which a first such pair is as likely as not (the birthday problem).
- `Chao1`: a lower bound of the number of people from how many were sampled once and twice (Chao 1984, bias-corrected; log-normal interval
  of Chao 1987). It assumes that likeness is transitive, each identity being the same person as the kept one nearest to it, and draws that
  are independent.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mfmc_ray import __version__
from mfmc_ray.config import FindConfig
from mfmc_ray.faces.attributes import tone_band
from mfmc_ray.faces.pack import EMBEDDERS, load_pack
from mfmc_ray.identities.model import REGIONS, load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.identities_cli import TONE_BANDS
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import embedding_column

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALIKE = (0.6, 0.7)
"""SFace cosines from which two identities count as one, besides the strict threshold."""
AGE_STARTS, AGE_BANDS = (18, 30, 45, 60), ("5–17", "18–29", "30–44", "45–59", "60–90")
BATCH = 25
BIN = 0.02
MOST_BARS = 14


@dataclass(frozen=True)
class Group:
    """n faces of different people.

    Attributes:
        name: in the tables.
        vectors: recognizer → float32 (n, d), unit length.
        man: bool (n,); None when it is not known.
    """

    name: str
    vectors: Mapping[str, F32]
    man: Mask | None

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))

    def cosines(self, recognizer: str, same_sex: bool) -> F32:
        """float32 (n, n); NaN for a face with itself, and for the pairs left out."""
        vectors = self.vectors[recognizer]
        found = np.asarray(vectors @ vectors.T, np.float32)
        np.fill_diagonal(found, np.nan)
        if same_sex and self.man is not None:
            found[self.man[:, None] != self.man] = np.nan
        return found


def guard(references: Mapping[str, F32], calibration: Calibration, strict: bool) -> Guard:
    """Of a run that knows nobody but the references; without `strict` everybody passes."""
    n = len(next(iter(references.values())))
    known = KnownFaces(ids=np.array([f"reference:{i}" for i in range(n)], "S"), vectors=dict(references), digest="", generation=0)
    return Guard(known, {name: calibration.strict_threshold(name) if strict else 1.0 for name in references}, calibration)


_stages: list[IdentityStage] = []


def prepare() -> None:
    """In each process, once: a run's own stage, with a guard that knows nobody."""
    cv2.setNumThreads(1)
    model = load_model()
    nobody = {name: model.references[name][:0] for name in EMBEDDERS}
    check = OutputCheck(load_pack(FindConfig(), tuple(EMBEDDERS)), guard(nobody, Calibration(), strict=False))
    _stages.append(IdentityStage(check, MorphSwapper(model)))


def embedded(seeds: Sequence[int]) -> tuple[list[Identity], dict[str, F32]]:
    """Identities and the embeddings of their neutral renderings."""
    rows = _stages[0](pa.table({"seed": pa.array(seeds, pa.int64())}))
    identities = [sample(_stages[0].model, seed) for seed in rows["seed"].to_pylist()]
    return identities, {name: np.array(rows[embedding_column(name)].to_pylist(), np.float32) for name in EMBEDDERS}


def sampled(first: int, count: int, processes: int) -> tuple[list[Identity], dict[str, F32]]:
    """The same of the seeds from `first` on, in order."""
    seeds = range(first, first + count)
    batches = [list(seeds[i : i + BATCH]) for i in range(0, count, BATCH)]
    with get_context("spawn").Pool(processes, prepare) as pool:
        done = list(track(pool.imap(embedded, batches), "Sampling identities", len(batches), console=Console(stderr=True)))
    return [i for identities, _ in done for i in identities], {name: np.concatenate([v[name] for _, v in done]) for name in EMBEDDERS}


def strangers(folder: Path) -> Group | None:
    """The middle face of one photo of each person in `folder`/<name>/, of the people who have one that a face is found in."""
    pack = load_pack(FindConfig(), tuple(EMBEDDERS))
    vectors: dict[str, list[F32]] = {name: [] for name in EMBEDDERS}
    men: list[bool] = []
    people = sorted(path for path in folder.iterdir() if path.is_dir())
    for person in track(people, "Reading strangers", console=Console(stderr=True)):
        for photo in sorted(path for path in person.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"}):
            with Image.open(photo) as opened:
                image = np.asarray(opened.convert("RGB"))
            faces = pack.analyse(image)
            if len(faces) == 0:
                continue
            middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - np.array(image.shape[1::-1]) / 2
            nearest = int(np.argmin(np.linalg.norm(middle, axis=1)))
            for name in EMBEDDERS:
                vectors[name].append(faces.embeddings[name][nearest])
            men.append(bool(faces.need("sexes")[nearest] > 0.5))
            break
    return Group("strangers", {name: np.stack(v) for name, v in vectors.items()}, np.array(men)) if len(men) > 1 else None


def summary(values: F32) -> dict[str, Any]:
    """Mean, percentiles and histogram (bins of `BIN` from −1 on; only the occupied ones, by lower edge) of cosines; NaN are left out."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {"n": 0}
    p50, p90, p99, p999 = (float(p) for p in np.percentile(values, (50, 90, 99, 99.9)))
    counts = np.bincount(np.clip(((values.astype(np.float64) + 1) / BIN).astype(int), 0, round(2 / BIN) - 1))
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "p99.9": p999,
        "max": float(values.max()),
        "histogram": {f"{-1 + BIN * k:.2f}": int(n) for k, n in enumerate(counts) if n},
    }


def distributions(group: Group, recognizer: str, chunk: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Summaries of pairs and of everyone's closest, of all and of the same sex.

    The closest of many is closer than the closest of few: `chunk` is the size of the random parts in which the groups can be compared.
    """
    for title, same_sex in (("all pairs", False), ("same-sex pairs", True)):
        if same_sex and group.man is None:
            continue
        cosines = group.cosines(recognizer, same_sex)
        yield title, summary(cosines[np.triu_indices(len(cosines), 1)])
        kind = "closest of the same sex" if same_sex else "closest"
        yield f"{kind}, of all {len(group)}", summary(closest(cosines))
        if chunk < len(group):
            order = np.random.default_rng(0).permutation(len(group))
            parts = [order[i : i + chunk] for i in range(0, len(order) - chunk + 1, chunk)]
            yield f"{kind}, of {chunk}", summary(np.concatenate([closest(cosines[np.ix_(part, part)]) for part in parts]))


def closest(cosines: F32) -> F32:
    """Everyone's highest cosine (n,); NaN without a partner."""
    highest = np.where(np.isnan(cosines), -np.inf, cosines).max(1)
    return np.where(np.isfinite(highest), highest, np.nan).astype(np.float32)


def told_apart(group: Group, recognizer: str, threshold: float) -> dict[str, Any]:
    """How many identities there are when two with a cosine of at least `threshold` count as one; see the top of this file."""
    vectors = group.vectors[recognizer]
    n = len(vectors)
    kept: list[int] = []
    members: list[int] = []
    is_new = np.zeros(n, bool)
    for i in range(n):
        near = vectors[kept] @ vectors[i] if kept else np.zeros(0, np.float32)
        if len(near) == 0 or near.max() < threshold:
            kept.append(i)
            members.append(0)
            is_new[i] = True
    # once all are known, everyone belongs to the nearest kept one
    for leader in np.argmax(vectors @ vectors[kept].T, axis=1):
        members[leader] += 1
    partners = (group.cosines(recognizer, False) >= threshold).sum(1) / (n - 1)
    p = float(partners.mean())
    pairs = n * (n - 1) // 2
    spread = math.sqrt(4 * float(partners.var(ddof=1)) / n + 2 * p * (1 - p) / (n * (n - 1)))
    # the interval in logarithms, so that it stays above 0; without a single pair, the rule of three
    low, high = (p * math.exp(-1.96 * spread / p), min(1.0, p * math.exp(1.96 * spread / p))) if p else (0.0, 3 / pairs)
    estimate, least, most = chao1(np.array(members))
    return {
        "threshold": threshold,
        "n": n,
        "kept": len(kept),
        "kept_after": {str(k): int(is_new[:k].sum()) for k in sorted({n // 8, n // 4, n // 2, n})},
        "new_at_the_end": float(is_new[n - max(1, n // 10) :].mean()),
        "pairs_alike": round(p * pairs),
        "p": p,
        "p_interval": [low, high],
        "effective": 1 / p if p else None,
        "effective_interval": [1 / high, 1 / low if low else None],
        "even_odds": math.sqrt(2 * math.log(2) / p) if p else None,
        "chao1": estimate,
        "chao1_interval": [least, most],
    }


def chao1(members: NDArray[np.int64]) -> tuple[float, float, float]:
    """The estimate and its 95 % interval from how often each class was seen."""
    seen, once, twice = len(members), int((members == 1).sum()), int((members == 2).sum())
    unseen = once * (once - 1) / (2 * (twice + 1))
    if unseen == 0:
        return float(seen), float(seen), float(seen)
    variance = unseen + once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2) + once**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 4)
    factor = math.exp(1.96 * math.sqrt(math.log(1 + variance / unseen**2)))
    return seen + unseen, seen + unseen / factor, seen + unseen * factor


def balance(identities: Sequence[Identity], admitted: Mask) -> dict[str, dict[str, dict[str, list[int]]]]:
    """sex → age band → tone band → [sampled, admitted]."""
    counts = np.zeros((2, len(AGE_BANDS), len(TONE_BANDS), 2), int)
    for identity, passed in zip(identities, admitted, strict=True):
        counts[int(identity.man), int(np.digitize(round(identity.age), AGE_STARTS)), tone_band(identity.tone)] += (1, int(passed))
    return {
        sex: {age: {tone: counts[s, a, t].tolist() for t, tone in enumerate(TONE_BANDS)} for a, age in enumerate(AGE_BANDS)}
        for s, sex in enumerate(("woman", "man"))
    }


def sources(identities: Sequence[Identity]) -> dict[str, dict[str, float]]:
    """Region → how many source textures its fine lines are of, the effective number of them (1 / Σ share²), the share of the commonest."""
    used = np.array([identity.sources[identity.lines] for identity in identities])
    found = {}
    for region, column in zip(REGIONS, used.T, strict=True):
        share = np.unique(column, return_counts=True)[1] / len(column)
        found[region] = {"used": len(share), "effective": float(1 / (share**2).sum()), "commonest": float(share.max())}
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    model, calibration = load_model(), Calibration()
    references = {name: model.references[name] for name in EMBEDDERS}
    strict = {name: calibration.strict_threshold(name) for name in EMBEDDERS}
    identities, vectors = sampled(options.first, options.count, options.processes)
    man = np.array([identity.man for identity in identities])
    admitted = np.array([verdict.passed for verdict in guard(references, calibration, strict=True).certify(vectors)])
    n_references = len(next(iter(references.values())))
    groups = [
        Group("sampled", vectors, man),
        Group("admitted", {name: v[admitted] for name, v in vectors.items()}, man[admitted]),
        Group("references", references, model.man if len(model.man) == n_references else None),
    ]
    real = strangers(options.people) if options.people.is_dir() else None
    if real is None:
        Console(stderr=True).print(f"{options.people} has no photos of people: nothing is compared with real strangers", soft_wrap=True)
    else:
        groups.append(real)
    groups = [group for group in groups if len(group) > 1]
    chunk = min(len(group) for group in groups if group.name in {"references", "strangers"})
    near = {name: (vectors[name] @ references[name].T).max(1) for name in EMBEDDERS}
    return {
        "version": __version__,
        "seeds": [options.first, options.first + options.count],
        "groups": {group.name: len(group) for group in groups},
        "strict_thresholds": strict,
        "cosines": {name: {group.name: dict(distributions(group, name, chunk)) for group in groups} for name in EMBEDDERS},
        "to_references": {
            **{name: {"resemble": float((near[name] >= strict[name]).mean()), **summary(near[name])} for name in EMBEDDERS},
            "admitted": float(admitted.mean()),
        },
        "told_apart": {
            group.name: {
                name: [told_apart(group, name, t) for t in (strict[name], *(ALIKE if name == "sface" else ()))] for name in EMBEDDERS
            }
            for group in groups
        },
        "balance": balance(identities, admitted),
        "sources": sources(identities),
    }


def show(found: Mapping[str, Any], console: Console) -> None:
    """Prints the tables."""
    for name, by_group in found["cosines"].items():
        table = Table(
            "cosines", "of", "n", "mean", "p50", "p90", "p99", "p99.9", "max", title=f"{name} (strict threshold {strict_of(found, name)})"
        )
        for group, kinds in by_group.items():
            for kind, s in kinds.items():
                figures = [f"{s[key]:.3f}" for key in ("mean", "p50", "p90", "p99", "p99.9", "max")] if s["n"] else []
                table.add_row(kind, group, f"{s['n']:,}", *figures)
            table.add_section()
        console.print(table)
        console.print(
            bars(f"{name}: same-sex pairs, share of each cosine", {g: k.get("same-sex pairs", k["all pairs"]) for g, k in by_group.items()})
        )

    table = Table("recognizer", "resemble one", "mean", "p50", "p90", "max", title="Closest of the model's reference portraits")
    for name in found["cosines"]:
        s = found["to_references"][name]
        table.add_row(name, f"{s['resemble']:.1%}", *(f"{s[key]:.3f}" for key in ("mean", "p50", "p90", "max")))
    console.print(table)
    console.print(f"resemble no reference by any recognizer, so are admitted: {found['to_references']['admitted']:.1%}\n")

    table = Table(
        "of",
        "two are one from",
        "n",
        "kept",
        "new at the end",
        "pairs alike",
        "1 / p",
        "even odds",
        "Chao1",
        title="How many can be told apart",
    )
    for group, by_name in found["told_apart"].items():
        for name, rows in by_name.items():
            for r in rows:
                low, high = r["effective_interval"]
                table.add_row(
                    group,
                    f"{name} {r['threshold']:.3f}",
                    f"{r['n']:,}",
                    f"{r['kept']:,}",
                    f"{r['new_at_the_end']:.0%}",
                    f"{r['pairs_alike']:,} ({r['p']:.2g})",
                    f"{number(r['effective'])} ({number(low)}–{number(high)})" if r["effective"] else f"> {number(low)}",
                    number(r["even_odds"]) if r["even_odds"] else "",
                    # nobody twice: there is nothing to estimate from
                    f"{number(r['chao1'])} ({number(r['chao1_interval'][0])}–{number(r['chao1_interval'][1])})"
                    if r["kept"] < r["n"]
                    else "",
                )
        table.add_section()
    console.print(table)

    for sex, ages in found["balance"].items():
        table = Table("age", *TONE_BANDS, "all", title=f"{sex}: sampled (of them admitted)")
        for age, tones in [*ages.items(), ("all", {tone: totals(a[tone] for a in ages.values()) for tone in TONE_BANDS})]:
            table.add_row(age, *("{} ({})".format(*cell) for cell in [*tones.values(), totals(tones.values())]))
        console.print(table)

    table = Table("region", "sources used", "effective number", "share of the commonest", title="Source textures")
    for region, s in found["sources"].items():
        table.add_row(region, f"{s['used']}", f"{s['effective']:.0f}", f"{s['commonest']:.1%}")
    console.print(table)


def bars(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    """A histogram of each group's cosines side by side, in at most `MOST_BARS` bins."""
    counts = {group: {float(edge): n for edge, n in s["histogram"].items()} for group, s in groups.items() if s["n"]}
    edges = [edge for histogram in counts.values() for edge in histogram]
    low, high = min(edges), max(edges)
    step = next(s for s in (BIN, 0.04, 0.1, 0.2) if (high - low) / s < MOST_BARS)
    start = math.floor(low / step + 1e-6)
    table = Table("from", *counts, title=title)
    for k in range(start, math.floor(high / step + 1e-6) + 1):
        cells = []
        for histogram in counts.values():
            share = sum(n for edge, n in histogram.items() if math.floor(edge / step + 1e-6) == k) / sum(histogram.values())
            cells.append(f"{share:6.2%} {'█' * round(30 * share) or ('·' if share else '')}")
        table.add_row(f"{k * step:+.2f}", *cells)
    return table


def strict_of(found: Mapping[str, Any], name: str) -> str:
    return f"{found['strict_thresholds'][name]:.3f}"


def totals(cells: Iterable[Sequence[int]]) -> list[int]:
    return [int(n) for n in np.sum(list(cells), axis=0)]


def number(value: float | None) -> str:
    return "∞" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="identities (default: %(default)s); memory grows with its square")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument(
        "--people", type=Path, default=Path("../shared/data/people"), help="<name>/<photo>; skipped when absent (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write all figures here, with histograms")
    options = parser.parse_args()
    if options.count < 10:
        parser.error("--count: at least 10 identities are needed to say anything")

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that are started: each is one thread
    cv2.setNumThreads(1)
    found = measure(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    show(found, Console(width=150))


if __name__ == "__main__":
    main()
