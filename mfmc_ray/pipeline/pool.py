"""The pool on disk: filling it with certified identities, and keeping their certificates up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.pool import SEEDS_PER_PART, more_seeds
from mfmc_ray.known.renewal import Renewal
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.workers import POOL
from mfmc_ray.tables import CERTIFICATE, embedding_column, pool_schema

NEAREST_FAKES = 0.75
"""Two identities of the pool whose neutral renderings reach this cosine count as one; the later is left out."""


def fill_pool(
    ledger: Ledger,
    recognizers: Mapping[str, int],
    *,
    wanted: int,
    asked: bool,
    seed: int,
    certify: Callable[[list[dict[str, Any]]], None],
    console: Console,
) -> pa.Table:
    """Offers seeds until enough identities are admitted; as `tables.pool_schema`.

    Args:
        ledger: the folders.
        recognizers: guard recognizer → dimension.
        wanted: identities.
        asked: whether the user named that number; if not, a fair pool is enough once the catalogue is used up.
        seed: the first.
        certify: has parts (`part`, `seeds`) certified and committed.
        console: for warnings.

    Raises:
        LedgerError: none was admitted.
    """
    done = ledger.recover(POOL)
    offer = seeds(seed)
    offered = [{"part": k, "seeds": [next(offer) for _ in range(SEEDS_PER_PART)]} for k in range(max(done, default=-1) + 1)]
    if lost := [part for part in offered if part["part"] not in done]:  # parts are done in any order, and a killed run stops anywhere
        certify(lost)
    while True:
        pool = read_pool(ledger, recognizers)
        missing = more_seeds(wanted, pool.num_rows, len(offered) * SEEDS_PER_PART, asked=asked)
        if missing == 0:
            break
        if missing is None:
            console.print(f"[yellow]Only {pool.num_rows} of {wanted} fake identities are far enough from all known faces.")
            break
        more = -(-missing // SEEDS_PER_PART)
        parts = [{"part": len(offered) + k, "seeds": [next(offer) for _ in range(SEEDS_PER_PART)]} for k in range(more)]
        offered.extend(parts)
        certify(parts)
        if all(summary.get("shown") == 0 for summary in ledger.done(POOL).values()):
            raise LedgerError(
                f"the swapper shows no face of any of {len(offered) * SEEDS_PER_PART} fakes: see whether crop, colours, range and "
                "identity in its YAML file are what the network wants (docs/swappers.md)"
            )
    if pool.num_rows == 0:
        raise LedgerError("no fake identity is far enough from all known faces; see the thresholds in the manifest, or raise --threshold")
    return pool.slice(0, wanted)


def admitted(ledger: Ledger) -> pa.Table:
    """All identities that hold: those that a face can be given, and those that some face wears since it could."""
    files = files_of_stage(ledger, POOL)
    return pa.concat_tables([pq.read_table(file) for file in files]) if files else pool_schema({}).empty_table()


def read_pool(ledger: Ledger, recognizers: Mapping[str, int]) -> pa.Table:
    """What was admitted so far, without identities that look alike."""
    pool = admitted(ledger)
    if not pool.num_rows:
        return pool
    name, dim = next(iter(recognizers.items()))
    vectors = matrix(pool[embedding_column(name)], dim)
    kept: list[int] = []
    for i in range(pool.num_rows):
        if not kept or float((vectors[kept] @ vectors[i]).max()) < NEAREST_FAKES:
            kept.append(i)
    return pool.take(kept)


def renew_pool(
    ledger: Ledger, recognizers: Mapping[str, int], renewal: Renewal, index_digest: str, terms: str, swapper: str = ""
) -> list[dict[str, Any]]:
    """Compares the pool with the known faces that it was not compared with yet, and takes out who no longer holds.

    Args:
        ledger: the folders.
        recognizers: guard recognizer → dimension.
        renewal: of the newest generation.
        index_digest: of that generation. Its number would not do: an index that was restored or built anew counts from 0, too.
        terms: what stands for the thresholds (`certificate.terms_of`).
        swapper: its digest. What another one has shown was certified of other faces, and is certified anew.

    Returns:
        the failed certificates, as rows of `tables.CERTIFICATE` with `identity_id`.
    """
    fallen: list[dict[str, Any]] = []
    for part, summary in ledger.recover(POOL).items():
        if summary.get("swapper", "") != swapper:
            ledger.remove_part(POOL, part)
            continue
        if (summary.get("index_digest"), summary.get("terms")) == (index_digest, terms):
            continue
        table = ledger.read_table(POOL, "pool", part)
        vectors = {name: matrix(table[embedding_column(name)], dim) for name, dim in recognizers.items()}
        renewed = renewal(vectors, table["certificates"].to_pylist())
        holds = [all(certificate.passed for certificate in some) for some in renewed]
        fallen += [
            {"identity_id": table["identity_id"][i].as_py(), **certificate.row()}
            for i, some in enumerate(renewed)
            for certificate in some
            if not certificate.passed
        ]
        rows = pa.array([[certificate.row() for certificate in some] for some in renewed], pa.list_(CERTIFICATE))
        table = table.set_column(table.schema.get_field_index("certificates"), "certificates", rows).filter(pa.array(holds, pa.bool_()))
        ledger.renew_part(POOL, part, {"pool": table}, {**summary, "faces": table.num_rows, "index_digest": index_digest, "terms": terms})
    return fallen
