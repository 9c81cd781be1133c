"""Renewing what is published after known faces were added or removed: new certificates, and new fakes for faces that no longer hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mfmc_ray.known.renewal import Renewal
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.workers import ANONYMIZE, AnonymizeWorker
from mfmc_ray.tables import FACES, embedding_column

Row = dict[str, Any]


class RenewWorker:
    """Renews a committed part: compares its replaced faces with the known faces that they were not compared with yet.

    The embeddings of the published faces come from WORK; no picture is read. Only an image with a face that no longer holds is anonymized
    again, from its original. So is the whole part if its tables are not those that were committed, or do not fit each other: a worker
    died while it wrote them, or somebody else did.

    Args:
        anonymize: the arguments of `AnonymizeWorker`, which is made when it is needed first.
        recognizers: guard recognizer → dimension.
        identities: identity_ids that hold; who wears another one gets a new one, too.
    """

    def __init__(self, anonymize: Mapping[str, Any], recognizers: Mapping[str, int], identities: set[str]) -> None:
        self._arguments, self._recognizers, self._identities = dict(anonymize), dict(recognizers), identities
        self._worker: AnonymizeWorker | None = None
        self.ledger, self._digest = anonymize["ledger"], anonymize["known"].digest
        self._renewal = Renewal(
            self.ledger.work / "known", recognizers, anonymize["known"], anonymize["thresholds"], anonymize["calibration"]
        )

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return AnonymizeWorker.watch_of(**arguments["anonymize"])

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Renews one part.

        Args:
            part: of the anonymize pass, with its `summary` as committed.

        Returns:
            the part's new summary with `fallen`: the failed certificates with `image_id`, `path` and `face_no`; with `identity_id` the
            faces that wore an identity which no longer holds.
        """
        try:
            faces, published = (self.ledger.read_table(ANONYMIZE, name, part["part"]) for name in ("faces", "published"))
            faces, fallen = self._renewed(faces, published)
            wrong = {(row["image_id"], row["path"]) for row in fallen}
            if wrong:
                summary = self._anonymize().again(part, wrong, faces, published)
            else:
                summary = {**part["summary"], "index_digest": self._digest}
                self.ledger.renew_part(ANONYMIZE, part["part"], {"faces": faces}, summary)
        except LedgerError:
            return {**self._anonymize()(part), "fallen": []}
        return {**summary, "fallen": fallen}

    def _anonymize(self) -> AnonymizeWorker:
        if self._worker is None:
            self._worker = AnonymizeWorker(**self._arguments)
        return self._worker

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
