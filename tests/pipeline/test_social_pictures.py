"""The simulated network with pictures: what of it needs no pipeline. `mfmc evaluate social --pictures` runs all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mfmc_ray.access.combined import access_model
from mfmc_ray.config import AccessConfig, RunConfig
from mfmc_ray.evaluate.social.behaviour import Behaviour, recognised, said
from mfmc_ray.evaluate.social.figures import EXPLICIT, NONE, PROXY, RULES, kept_in
from mfmc_ray.evaluate.social.network import Habits, Network
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.sightings import Sightings
from mfmc_ray.pipeline.social import MOST_PEOPLE, _complete, _in_order, _models, _truth, _write, small_network
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.tables import scan_schema


def network(seed: int = 0) -> Network:
    return small_network(12, 12, 4, Habits(), np.random.default_rng(seed))


def test_the_network_has_as_many_photos_as_are_asked_for() -> None:
    made = network()
    assert (len(made), len(made.photos)) == (12, 12)
    assert max(len(photo.people) for photo in made.photos) <= MOST_PEOPLE
    assert network(1).photos != made.photos


def test_what_runs_read_from_files_decides_as_the_rows_do(tmp_path: Path) -> None:
    made, rng = network(), np.random.default_rng(3)
    sightings = recognised(made, Behaviour(), rng)
    rows = said(made, sightings, Behaviour(untag=1, tag=0.9), rng)
    truth = _truth(made)
    models = _models(AccessConfig(people=str(tmp_path / "people")), _write(tmp_path / "tables", rows), rows, truth)
    assert tuple(models) == (NONE, PROXY, EXPLICIT, RULES)
    kept = 0
    for settings, right in models.values():
        read = access_model(RunConfig(access=settings)).bound(truth)
        for photo in made.photos:
            np.testing.assert_array_equal(kept_in(read, photo), kept_in(right, photo))
            kept += int(kept_in(right, photo).sum())
    assert kept > 5


def test_people_are_put_in_the_order_of_the_faces_that_were_found(tmp_path: Path) -> None:
    made, schema = network(), scan_schema({"sface": 128})
    rows = []
    for k, photo in enumerate(made.photos):
        lefts = range(len(photo.people) + (k == 0))[::-1]  # found from right to left; in the first photo one too many
        rows.append({"image_id": photo.image_id, "path": photo.path, "faces": [{"box": [100 * x, 0, 100 * x + 50, 50]} for x in lefts]})
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.commit_part(SCAN, 0, {"scan": pa.Table.from_pylist(rows, schema=schema)}, {})
    ordered, lost = _in_order(made, ledger)
    assert lost == 1
    assert [photo.people for photo in ordered.photos] == [photo.people[::-1] for photo in made.photos[1:]]
    seen = _complete(ordered, Sightings({}, ""))
    assert all(len(seen.of(photo.image_id)) == len(photo.people) for photo in ordered.photos)
