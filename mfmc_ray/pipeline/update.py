"""Bringing committed parts of OUT up to date: other images in them, new certificates, new fakes for faces that no longer hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.known.renewal import Renewal
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.workers import ANONYMIZE, AnonymizeWorker, certified, commit, grounds_of, scan_rows, with_reasons
from mfmc_ray.tables import FACES, embedding_column

Row = dict[str, Any]
Tables = dict[str, pa.Table]
AT_HAND = 256
"""Parts that the process which leads a night updates itself, if it can."""


class Costly(Exception):  # noqa: N818 (it is no error)
    """A part needs the models: a picture in it has to be made."""


class UpdateWorker:
    """Makes a committed part hold what it should.

    Images that were deleted go, images that were moved get their new names, new and changed ones are anonymized. Replaced faces are
    compared with the known faces that they were not compared with yet: their embeddings come from WORK, no picture is looked at, and only
    an image with a face that no longer holds is anonymized again, from its original. The whole part is done anew if its tables are not
    those that were committed, or do not fit each other: a worker died while it wrote them, or somebody else did.

    Args:
        anonymize: the arguments of `AnonymizeWorker`, which is made when it is needed first.
        recognizers: guard recognizer → dimension.
        identities: identity_ids that hold; who wears another one gets a new one, too.
        input_stays: whether the originals must be there, or the run ends; those of a finished run may be gone, and are withheld then.
        cheaply: load no models; raises `Costly` instead, and the part is as it was.
    """

    def __init__(
        self,
        anonymize: Mapping[str, Any],
        recognizers: Mapping[str, int],
        identities: set[str],
        input_stays: bool = False,
        cheaply: bool = False,
    ) -> None:
        self._arguments, self._recognizers, self._identities = dict(anonymize), dict(recognizers), identities
        self._worker: AnonymizeWorker | None = None
        self._input_stays, self._cheaply = input_stays, cheaply
        self.ledger = anonymize["ledger"]
        self._grounds = grounds_of(*(anonymize[name] for name in ("config", "known", "thresholds", "calibration")))
        self._renewal = Renewal(
            self.ledger.work / "known", recognizers, anonymize["known"], anonymize["thresholds"], anonymize["calibration"]
        )

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return AnonymizeWorker.watch_of(**arguments["anonymize"])

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does one part.

        Args:
            part: of `plan.plan_parts`, committed.

        Returns:
            the part's new summary with `fallen`: the failed certificates with `image_id`, `path` and `face_no`; with `identity_id` the
            faces that wore an identity which no longer holds. And `done`, how many images and faces were anonymized.
        """
        try:
            tables = {name: self.ledger.read_table(ANONYMIZE, name, part["part"]) for name in ("faces", "published", "placed")}
            wanted = self._wanted(part)
            fallen: list[Row] = []
            before = self.ledger.summary_of(ANONYMIZE, part["part"]) or {}  # as it is now: the part may have been done before
            if not certified(before, self._grounds):
                tables["faces"], fallen = self._renewed(tables["faces"], tables["published"])
            there = {row["path"]: row["image_id"] for row in tables["placed"].to_pylist()}
            stays = {path for path, image in wanted.items() if there.get(path, "") == image}
            comes = {new: old for new, old in part["moved"].items() if there.get(old, "") == wanted[new]}  # not if it was done already
            fallen = [row for row in fallen if row["path"] in stays or row["path"] in comes.values()]
            redo = {row["path"] for row in fallen} | set(part["redo"])
            redo |= {new for new, old in comes.items() if old in redo}
            fresh = wanted.keys() - ((stays | comes.keys()) - redo)
            if not fresh and not comes and stays == there.keys() and not self._relabels(part, tables["placed"]):
                # not what it was made with: that is so only of what was made now
                summary = {**before, "index_digest": self._grounds["index_digest"], "terms": self._grounds["terms"]}
                self.ledger.renew_part(ANONYMIZE, part["part"], {"faces": tables["faces"]}, summary)
            else:
                tables["images"] = self.ledger.read_table(ANONYMIZE, "images", part["part"])
                kept = _with(tables, {path: path for path in stays - fresh} | {old: new for new, old in comes.items() if new not in fresh})
                kept = _relabelled(kept, part["reasons"])
                summary = commit(self.ledger, part, self._joined(kept, part, fresh, list(wanted)), self._grounds)
        except LedgerError:
            summary = self._worker_of()(part)
            return {**summary, "fallen": [], "done": [summary["images"], summary["faces"]]}
        return {**summary, "fallen": fallen, "done": [len(fresh), 0]}

    def _worker_of(self) -> AnonymizeWorker:
        if self._cheaply:
            raise Costly
        if self._worker is None:
            self._worker = AnonymizeWorker(**self._arguments)
            self._worker.stage.input_stays = self._input_stays
        return self._worker

    def _wanted(self, part: dict[str, Any]) -> dict[str, str | None]:
        """path → image_id of what is to be in the part, in order."""
        found: dict[str, str | None] = {}
        for table in scan_rows(self.ledger, part["rows"], ["path", "image_id"]):
            found.update(zip(table["path"].to_pylist(), table["image_id"].to_pylist(), strict=True))
        return found

    def _relabels(self, part: dict[str, Any], placed: pa.Table) -> bool:
        return not with_reasons(placed, part["reasons"])["reason"].equals(placed["reason"])

    def _joined(self, kept: Tables, part: dict[str, Any], fresh: Set[str], order: Sequence[str]) -> Tables:
        """What stays and what is anonymized now, in the order of the part."""
        if not fresh:
            new = {name: table.slice(0, 0) for name, table in kept.items()}
        else:
            worker = self._worker_of()
            new = worker.tables(part, worker.rows(part, fresh))
        place = {path: i for i, path in enumerate(order)}
        tables = {}
        for name, table in kept.items():
            both = pa.concat_tables([table, new[name].cast(table.schema)])
            tables[name] = both.take(np.argsort([place[path] for path in both["path"].to_pylist()], kind="stable"))
        return tables

    def _renewed(self, faces: pa.Table, published: pa.Table) -> tuple[pa.Table, list[Row]]:
        """The rows of faces with new certificates, and what no longer holds.

        Raises:
            LedgerError: the tables are not about the same replaced faces in the same order.
        """
        rows = faces.to_pylist()
        order = [i for i, row in enumerate(rows) if row["verdict"] == "replaced"]
        worn = published.select(["image_id", "path", "face_no", "identity_id"]).to_pylist()
        if [{name: rows[i][name] for name in published.schema.names[:4]} for i in order] != worn:
            raise LedgerError("a part's published faces are not those whose embeddings are in WORK")
        vectors = {name: matrix(published[embedding_column(name)], dim) for name, dim in self._recognizers.items()}
        fallen = []
        for i, some in zip(order, self._renewal(vectors, [rows[i]["certificates"] for i in order]), strict=True):
            new = [certificate.row() for certificate in some]
            rows[i] |= {"certificates": new, "max_similarity_to_known": new[0]["max_similarity"], "threshold": new[0]["threshold"]}
            where = {name: rows[i][name] for name in ("image_id", "path", "face_no")}
            fallen += [where | certificate.row() for certificate in some if not certificate.passed]
        fallen += [row for row in worn if row["identity_id"] not in self._identities]
        return pa.Table.from_pylist(rows, schema=FACES), fallen


def cheaply(arguments: Mapping[str, Any], parts: Sequence[dict[str, Any]]) -> tuple[list[tuple[int, Row]], list[dict[str, Any]]]:
    """Does right here what needs no models, up to `AT_HAND` parts: a part takes some hundredths of a second, and starting workers many.

    Args:
        arguments: of `UpdateWorker`.
        parts: to do.

    Returns:
        number and summary of each part that was done, and the parts that are left to the workers.
    """
    worker = UpdateWorker(**arguments, cheaply=True)
    done, left = [], list(parts[AT_HAND:])
    for part in parts[:AT_HAND]:
        try:
            done.append((part["part"], worker(part)))
        except Costly:
            left.append(part)
    return done, left


def _with(tables: Tables, names: Mapping[str, str]) -> Tables:
    """The rows of some images (path in the tables → path from now on)."""
    kept = {}
    for name, table in tables.items():
        rows = table.filter(pa.array([path in names for path in table["path"].to_pylist()], pa.bool_()))
        paths = pa.array([names[path] for path in rows["path"].to_pylist()], pa.string())
        rows = rows.set_column(rows.schema.get_field_index("path"), rows.schema.field("path"), paths)
        if name == "images":
            field, images = rows.schema.field("image"), rows["image"].combine_chunks()
            images = pa.StructArray.from_arrays([images.field("bytes"), paths], fields=list(field.type), mask=images.is_null())
            rows = rows.set_column(rows.schema.get_field_index("image"), field, images)
        kept[name] = rows
    return kept


def _relabelled(tables: Tables, reasons: Mapping[str, str]) -> Tables:
    return tables | {name: with_reasons(tables[name], reasons) for name in ("images", "placed")}
