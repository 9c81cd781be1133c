"""What a page says of the section `recognition`: the verdict, and for each question a table of all recognizers and a chart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mfmc_ray.evaluate import plots
from mfmc_ray.evaluate.report import clean
from mfmc_ray.evaluate.tabled import FEW, Block, Chart, Group, Table, blocks, cell, is_figure, is_number, percent, plain, words

Json = Any
Rows = Sequence[Mapping[str, Any]]
Columns = Sequence[tuple[str, str, bool]]
"""Headings, where in the JSON the figure is, whether it is a share."""

WHO = {"folders": "the folders of the originals", "table": "a table", "clusters": "recognizers, who guessed: nobody labelled the people"}
_GROUPS = {"sex": "Sex", "age": "Age, years", "tone": "Skin tone"}
_MARGINS = (
    ("margin.to_original", "To the original face", "Below 0 the published face is taken for the very face that it replaced."),
    ("margin.to_known", "To the nearest other face of the originals", "Whoever that is."),
    ("margin.among_fakes", "Among fakes of different identities", ""),
    ("margin.to_any_fake", "To the nearest other fake", ""),
    ("margin_originals.to_others", "Originals, for comparison: to the nearest face of somebody else", ""),
    ("margin_originals.among_photos", "Originals, for comparison: to the nearest other face", ""),
)
_OF_GROUPS: Columns = (
    ("faces", "faces", False),
    ("rank 1 before", "rank1_before", True),
    ("rank 1 after", "rank1", True),
    ("rank 5 after", "rank5", True),
    ("rank 1, same photo", "same_photo_rank1", True),
    ("margin to original", "margin_to_original", False),
    ("margin to known", "margin_to_known", False),
)


def at(data: Json, path: str) -> Json:
    """What is at "a.b.c" of nested mappings; None if it is not there."""
    for name in path.split("."):
        if not isinstance(data, Mapping):
            return None
        data = data.get(name)
    return data


def recognizers_of(recognition: Json) -> Rows:
    """Its recognizers."""
    listed = at(recognition, "recognizers")
    return [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []


def value_of(figure: Json) -> float | None:
    """The number of a figure, or the number itself."""
    value = figure.get("value") if is_figure(figure) else figure
    return float(value) if is_number(value) else None


def name_of(row: Mapping[str, Any]) -> str:
    """As people call it."""
    return clean(row.get("title") or row.get("recognizer") or "?")


def said(figure: Json) -> str:
    """ "4.5 % (1.6–12.5)"."""
    shown = cell(figure, share=True)
    return shown.text + (f" ({shown.interval})" if shown.interval else "")


def verdict(recognition: Json) -> tuple[str, list[str], bool | None]:
    """A sentence with figures, sentences about it, and whether what is left is no more than guessing (None: nobody knows)."""
    found = at(recognition, "verdict")
    weak = at(found, "weak")
    notes = []
    if isinstance(weak, list) and weak:
        names = {row.get("recognizer"): name_of(row) for row in recognizers_of(recognition)}
        listed = ", ".join(names.get(name, clean(name)) for name in weak)
        notes.append(f"Weak on these very originals, so that it says little if they find nobody: {listed}.")
    if at(recognition, "people.labels") == "clusters":
        notes.append("Who is who was guessed by recognizers, since there were no labels: figures are of what they can tell apart.")
    rank1, chance = at(found, "rank1"), at(found, "chance1")
    if value_of(rank1) is None or not is_number(chance):
        return clean(at(found, "text") or "There is no verdict: faces were not recognised in this evaluation."), notes, None
    row = next((row for row in recognizers_of(recognition) if row.get("recognizer") == at(found, "recognizer")), {})
    heard = [r for r in recognizers_of(recognition) if not r.get("guard")]
    strong = sum(1 for r in heard if not at(r, "quality.weak"))
    protocol = at(row, "identification.protocol") or "other_photos"
    before, people = at(row, f"identification.{protocol}.rank1_before"), at(row, f"identification.{protocol}.people")
    text = f"Of {plain(rank1.get('n'))} replaced faces, {said(rank1)} are still recognised by {name_of(row)}"
    most = f", the one that finds the most of {len(heard)} recognizers that took no part ({strong} of them strong)"
    text += most if len(heard) > 1 else ", which took no part"
    text += f"; guessing finds {percent(chance)}"
    text += f", and of the originals it recognises {said(before)}." if value_of(before) is not None else "."
    at_chance = bool(at(found, "at_chance"))
    notes.insert(0, "That is no more than guessing." if at_chance else "That is more than guessing: some of the people can still be told.")
    gallery = f" among {plain(people)} people" if is_number(people) else ""
    other = "of other photos" if protocol == "other_photos" else "in which the very original is, too"
    notes.insert(1, f"Recognised: the right person comes first{gallery} in a gallery of originals {other}. In brackets: 95 % interval.")
    return text, notes, at_chance


def tiles(recognition: Json) -> list[tuple[str, str, str]]:
    """Large figures: a value, its interval, what it is."""
    found = []
    for kind, about in (("independent", "strong recognizers that took no part"), ("all", "all recognizers")):
        before, after = at(recognition, f"average_accuracy.{kind}.before"), at(recognition, f"average_accuracy.{kind}.after")
        if value_of(after) is not None:
            shown, n = cell(after, share=True), at(recognition, f"average_accuracy.{kind}.recognizers")
            text = f"recognised at rank 1, mean of {plain(n)} {about}; before {said(before)}"
            found.append((shown.text, shown.interval, text))
            break
    faces = at(recognition, "faces")
    for name, text in (
        ("replaced", "faces replaced"),
        ("changed", "faces in a folder of pictures, which does not say what was done to them"),
        ("redacted", "faces covered"),
        ("withheld", "faces in pictures that are not published"),
        ("kept", "faces kept, because somebody approved them; they are in no figure"),
    ):
        if at(faces, name):
            found.append((plain(at(faces, name)), "", text))
    return found


def parts(recognition: Json) -> list[Group]:
    """The questions, each with tables and charts; what is not shaped as expected is shown as it is."""
    rows = recognizers_of(recognition)
    if recognition and not rows:
        return [Group("Recognition", blocks(recognition))]
    groups = [_who(recognition, rows), _found(recognition, rows), _same(rows), _apart(recognition, rows), _fair(recognition, rows)]
    return [group for group in groups if group.blocks]


def _who(recognition: Json, rows: Rows) -> Group:
    if not rows:
        return Group("", [])
    people = at(recognition, "people") or {}
    about = (
        "A recognizer that is weak on the originals finds little in anything, and makes any anonymizer look good. So each is measured on "
        "the originals first. Guards took part in making the result: what they saw through was refused, so their silence is no news. The "
        "others took no part."
    )
    who = f"People: {plain(at(people, 'people'))}, {plain(at(people, 'with_other_photos'))} of them with several photos; "
    who += f"who is who is from {WHO.get(str(at(people, 'labels')), clean(at(people, 'labels') or 'nobody'))}."
    table = _table("What each makes of the originals, the strongest first", rows, _QUALITY)
    skipped = at(recognition, "skipped")
    left = [f"Left out: {words(name)}: {clean(why)}." for name, why in skipped.items()] if isinstance(skipped, Mapping) else []
    return Group("Who looked, and how well they see", [about, who, *table, *left])


_QUALITY: Columns = (
    ("rank 1", "quality.rank1", True),
    ("rank 5", "quality.rank5", True),
    ("TAR at FAR 1 %", "quality.tar_1e-2", True),
    ("TAR at FAR 0.1 %", "quality.tar_1e-3", True),
    ("area under ROC", "quality.auc", False),
    ("equal error rate", "quality.eer", True),
    ("pairs of one person", "quality.pairs.one_person", False),
    ("of strangers", "quality.pairs.strangers", False),
)


def _marked(row: Mapping[str, Any]) -> str:
    marks = ["guard"] * bool(row.get("guard")) + ["weak"] * bool(at(row, "quality.weak"))
    return name_of(row) + (f" ({', '.join(marks)})" if marks else "")


def _found(recognition: Json, rows: Rows) -> Group:
    found: list[Block] = []
    where = "identification.other_photos"
    if any(value_of(at(row, f"{where}.rank1")) is not None for row in rows):
        found.append(
            "The right person comes first (rank 1) or among the first five (rank 5) when a published face is held against all originals "
            "but those of its own photo. Guessing is measured: what the same answers would hit if the names were dealt out anew."
        )
        found.append(_shares(rows, f"{where}.rank1_before", f"{where}.rank1", f"{where}.chance1", "right person first"))
        for k in (1, 5):
            columns: Columns = [
                ("before", f"{where}.rank{k}_before", True),
                ("after", f"{where}.rank{k}", True),
                ("lost", f"{where}.drop{k}", True),
                ("guessing", f"{where}.chance{k}", True),
                ("guessing within the sex", f"{where}.chance{k}_same_sex", True),
                ("leak: after beyond guessing", f"{where}.leak{k}", True),
                ("after, covered faces counted as not found", f"{where}.rank{k}_of_all_faces", True),
            ]
            found += _table(f"Rank {k}, other photos in the gallery", rows, columns)
    same = "identification.same_photo"
    columns = [
        ("rank 1", f"{same}.rank1", True),
        ("guessing", f"{same}.chance1", True),
        ("leak", f"{same}.leak1", True),
        ("rank 5", f"{same}.rank5", True),
        ("leak, rank 5", f"{same}.leak5", True),
        ("rank 1, covered faces counted as not found", f"{same}.rank1_of_all_faces", True),
        ("rank 5, the same", f"{same}.rank5_of_all_faces", True),
    ]
    if table := _table("After, with the very original in the gallery: the strongest attack of a recognizer alone", rows, columns):
        found += table
    for row in rows:
        for protocol in ("other_photos", "same_photo"):
            if why := at(row, f"identification.{protocol}.why"):
                found.append(f"{name_of(row)}, {words(protocol)}: not measured: {clean(why)}.")
    average = at(recognition, "average_accuracy")
    kinds = [(name, average[key]) for key, name in (("all", "all"), ("independent", "strong, no guards")) if at(average, key)]
    if kinds:
        head = ["recognizers", "how many", "before", "after", "drop in points", "relative drop"]
        names = ("before", "after", "drop", "relative_drop")
        table_rows = [(name, [cell(kind.get("recognizers")), *(cell(kind.get(n), share=True) for n in names)]) for name, kind in kinds]
        found.append(Table("Average accuracy: rank 1, the mean over recognizers", head, table_rows))
    return Group("Are people still found?", found)


def _same(rows: Rows) -> Group:
    columns: Columns = [
        ("TAR at FAR 0.1 %, before", "verification.tar_1e-3_before", True),
        ("TAR at FAR 0.1 %, after", "verification.tar_1e-3", True),
        ("FAR 0.1 %, with its own original", "verification.same_photo_1e-3", True),
        ("TAR at FAR 1 %, before", "verification.tar_1e-2_before", True),
        ("TAR at FAR 1 %, after", "verification.tar_1e-2", True),
        ("FAR 1 %, with its own original", "verification.same_photo_1e-2", True),
        ("area under ROC, after", "verification.auc", False),
        ("equal error rate, after", "verification.eer", True),
    ]
    table = _table("Two photos of one person, accepted as one", rows, columns)
    if not table:
        return Group("", [])
    found: list[Block] = [
        "TAR: the share of pairs of one person that are taken for one, at a threshold at which a share of the strangers (FAR) is, too; "
        "thresholds are measured on these originals. An area under the ROC of 0.5 and an equal error rate of 50 % tell nothing."
    ]
    for rate, percents in (("1e-3", "0.1 %"), ("1e-2", "1 %")):
        if any(value_of(at(row, f"verification.tar_{rate}")) is not None for row in rows):
            found.append(_shares(rows, f"verification.tar_{rate}_before", f"verification.tar_{rate}", "", f"TAR at FAR {percents}"))
            break
    limits: Columns = [("FAR 0.1 %", "thresholds.1e-3", False), ("FAR 1 %", "thresholds.1e-2", False)]
    table += _table("The thresholds, cosines", rows, limits)
    lines = [(name_of(row), _roc(at(row, "quality.roc")), _roc(at(row, "verification.roc"))) for row in rows]
    if any(after for _, _, after in lines):
        found.append(
            Chart(lambda: plots.curves(lines), f"ROC curves before and after: {_told(rows, 'verification.auc', 'area after', False)}")
        )
    return Group("Taken for the same person?", [*found, *table])


def _roc(curve: Json) -> Mapping[str, Any] | None:
    far, tar = at(curve, "far"), at(curve, "tar")
    same = isinstance(far, list) and isinstance(tar, list) and len(far) == len(tar) and all(map(is_number, [*far, *tar]))
    return curve if same and far else None


def _apart(recognition: Json, rows: Rows) -> Group:
    found: list[Block] = []
    for where, name, about in _MARGINS:
        columns: Columns = [
            ("mean", f"{where}.mean", False),
            ("median", f"{where}.median", False),
            ("5th percentile", f"{where}.p05", False),
            ("below 0: matches", f"{where}.matches", True),
        ]
        if not (table := _table(f"Margins: {name[0].lower() + name[1:]}", rows, columns)):
            continue
        mine: list[Block] = [about] if about else []
        bars = [(name_of(row), *some, 0.0) for row in rows if (some := _bins(at(row, f"{where}.histogram")))]
        if bars and where in ("margin.to_original", "margin.to_known"):
            told = _told(rows, f"{where}.matches", "below 0", True)
            mine.append(
                Chart(_histograms(bars, f"margin, {name[0].lower() + name[1:]} (cosine)"), f"Histograms of margins. {name}: {told}")
            )
        found.append(Group(name, [*mine, *table]))
    columns = [
        ("identities worn", "unique.identities_worn", False),
        ("by faces", "unique.faces_that_wear_one", False),
        ("fakes like no other", "unique.fakes", True),
        ("originals like no other", "unique.originals", True),
    ]
    unique = _table("Faces that no other face of the collection resembles", rows, columns)
    if found or unique:
        found = [
            "The margin is the threshold at FAR 0.1 % (1 % where pairs are too few) less the cosine: above 0 two faces are told apart, "
            "below 0 they are taken for one.",
            *found,
            *([Group("Uniqueness", unique)] if unique else []),
        ]
    return Group("How unlike are the faces?", found)


def _histograms(bars: list[Any], label: str) -> Callable[[], str]:
    return lambda: plots.histograms(bars, label, "")


def _bins(found: Json) -> tuple[float, float, list[float]] | None:
    start, width, counts = at(found, "start"), at(found, "width"), at(found, "counts")
    if is_number(start) and is_number(width) and isinstance(counts, list) and counts and all(map(is_number, counts)):
        return start, width, counts
    return None


def _fair(recognition: Json, rows: Rows) -> Group:
    grouped = [row for row in rows if isinstance(row.get("by_group"), Mapping) and row["by_group"]]
    if not grouped:
        return Group("", [])
    chief = next((row for row in grouped if row.get("recognizer") == at(recognition, "verdict.recognizer")), grouped[0])
    found: list[Block] = [
        "Every figure by sex, age band and skin tone, which are estimates if no table of labels told them. "
        f"† marks groups of fewer than {FEW} faces, of which one person may decide; groups of fewer than 8 are left out. "
        "Where intervals overlap, nothing is shown to differ.",
    ]
    lines = [
        (f"{clean(label)} ({plain(at(figures, 'faces'))})", at(figures, "rank1"), _few(figures))
        for of in chief["by_group"].values()
        for label, figures in of.items()
        if isinstance(figures, Mapping)
    ]
    overall = value_of(at(chief, "identification.other_photos.rank1"))
    if any(value_of(figure) is not None for _, figure, _ in lines):
        alt = f"Rank 1 after, by group, {name_of(chief)}: " + "; ".join(f"{name} {said(figure)}" for name, figure, _ in lines)
        found.append(Chart(lambda: plots.groups(lines, overall, f"right person first, after: {name_of(chief)}"), alt))
    for row in sorted(grouped, key=lambda row: row is not chief):
        found.append(Group(_marked(row), list(_group_tables(row))))
    return Group("Is it fair?", found)


def _group_tables(row: Mapping[str, Any]) -> Iterator[Block]:
    for kind, of in row["by_group"].items():
        if not isinstance(of, Mapping):
            continue
        every = list(dict.fromkeys(name for figures in of.values() if isinstance(figures, Mapping) for name in figures))
        known = {path for _, path, _ in _OF_GROUPS}
        columns = [c for c in _OF_GROUPS if c[1] in every] + [(words(name), name, False) for name in every if name not in known]
        lines = []
        for label, figures in of.items():
            few = _few(figures)  # marked once
            cells = [replace(one, few=one.few and not few) for one in (cell(at(figures, p), share=s) for _, p, s in columns)]
            lines.append((clean(label) + ("\N{NO-BREAK SPACE}†" if few else ""), cells))
        title = _GROUPS.get(kind, words(kind))
        if columns:
            yield Table(title, [title, *(heading for heading, _, _ in columns)], lines)


def _few(figures: Json) -> bool:
    n = at(figures, "faces")
    return bool(is_number(n) and n < FEW)


def _table(caption: str, rows: Rows, columns: Columns) -> list[Block]:
    """A row for each recognizer, and why what could not be measured of any is left out; nothing if there is nothing of any."""
    shown = [c for c in columns if any(value_of(at(row, c[1])) is not None for row in rows)]
    if not shown:
        return []
    lines = [(_marked(row), [cell(at(row, path), share=is_share) for _, path, is_share in shown]) for row in rows]
    whys: dict[str, list[str]] = {}
    for heading, path, _ in columns:
        if (heading, path) not in [column[:2] for column in shown]:
            for why in dict.fromkeys(at(row, f"{path}.why") for row in rows):
                if why:
                    whys.setdefault(clean(why), []).append(heading)
    left = [f"Not measured: {', '.join(headings)}: {why}." for why, headings in whys.items()]
    return [Table(caption, ["recognizer", *(heading for heading, _, _ in shown)], lines), *left]


def _shares(rows: Rows, before: str, after: str, chance: str, label: str) -> Chart:
    lines = [(_marked(row), _drawable(at(row, before)), _drawable(at(row, after)), value_of(at(row, chance))) for row in rows]
    alt = f"{label}, before and after: " + "; ".join(f"{name} {said(was)}, then {said(now)}" for name, was, now, _ in lines)
    return Chart(lambda: plots.shares(lines, label), alt)


def _drawable(figure: Json) -> Mapping[str, Any] | None:
    return figure if is_figure(figure) and is_number(figure["value"]) else None


def _told(rows: Rows, path: str, what: str, is_share: bool) -> str:
    return "; ".join(f"{name_of(row)} {what} {cell(at(row, path), share=is_share).text}" for row in rows)
