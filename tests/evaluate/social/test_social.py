"""The simulated social network: what must hold whatever the dice say."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mfmc_ray.cli import app
from mfmc_ray.evaluate.social.behaviour import Behaviour, Said, assumed, recognised, said
from mfmc_ray.evaluate.social.figures import AS_IS, EXPLICIT, MODELS, NONE, PROXY, RULES, RULES_EACH, Figures, figures_of
from mfmc_ray.evaluate.social.network import FRIENDS, OPEN, PRIVATE, Habits, Network, make_network, name_of


def made(behaviour: Behaviour | None = None, seed: int = 0, **habits: float) -> tuple[Network, Said, dict[str, Figures]]:
    rng = np.random.default_rng(seed)
    network = make_network(40, 6, 3, Habits(**habits), rng)
    sightings = recognised(network, behaviour or Behaviour(), rng)
    rows = said(network, sightings, behaviour or Behaviour(), rng)
    return network, rows, {one.model: one for one in figures_of(network, rows, sightings)}


def test_the_network_is_a_small_world_of_photos() -> None:
    network, _, _ = made()
    friends = network.friends
    assert (friends == friends.T).all()
    assert not friends.diagonal().any()
    assert friends.sum(1).mean() == 6
    assert set(network.attitudes) == {OPEN, FRIENDS, PRIVATE}
    assert len({photo.image_id for photo in network.photos}) == len(network.photos) > 60
    for photo in network.photos:
        known = [person for person in photo.people if person is not None]
        assert len(known) == len(set(known))
        assert 1 <= len(photo.people) <= 6
        assert network.viewers(photo)[photo.owner]
        assert network.viewers(photo).all() == photo.public or friends[photo.owner].sum() == len(network) - 1
    again, _, _ = made()
    assert again.photos == network.photos
    assert made(seed=1)[0].photos != network.photos


def test_the_two_ends_and_what_lies_between() -> None:
    _, _, found = made()
    assert tuple(found) == MODELS
    assert (found[AS_IS].met, found[AS_IS].unwanted, found[AS_IS].bystanders) == (1, 1, 1)
    assert (found[NONE].met, found[NONE].unwanted, found[NONE].disclosed) == (0, 0, 0)
    for model in (PROXY, EXPLICIT, RULES, RULES_EACH):
        one = found[model]
        assert one.bystanders == one.wrong == 0
        assert 0 < (one.met or 0) < 1
        assert (one.unwanted or 0) < 0.5
    assert (found[RULES_EACH].met or 0) >= (found[RULES].met or 0)
    assert found[EXPLICIT].asked > 0 == found[RULES].asked == found[PROXY].asked
    assert found[EXPLICIT].shown > 0 == found[RULES].shown == found[RULES_EACH].shown
    assert found[RULES_EACH].pictures > 1 == found[RULES].pictures


def test_who_writes_down_rules_and_notices_everything_is_seen_just_as_they_wish() -> None:
    _, _, found = made(Behaviour(rules=1, notice=1), enrolled=1)
    assert (found[RULES_EACH].met, found[RULES_EACH].unwanted, found[RULES].unwanted) == (1, 0, 0)


def test_nobody_is_seen_who_is_not_recognised_or_says_nothing() -> None:
    for found in (made(enrolled=0)[2], made(Behaviour(tag=0, tag_self=0, answer=0, rules=0))[2], made(Behaviour(missed=1))[2]):
        assert all(found[model].disclosed == 0 for model in MODELS if model != AS_IS)


def test_mistakes_of_recognition_show_the_wrong_people() -> None:
    _, rows, found = made(Behaviour(mistaken=0.02))
    assert found[RULES].wrong > 0
    assert (found[RULES].bystanders or 0) > 0
    assert found[EXPLICIT].wrong == 0  # who is asked about a face that is not theirs says so,
    assert found[EXPLICIT].shown_wrongly == sum(not theirs for *_, theirs in rows.asked) > 0  # but has seen it


def test_denials_and_answers_are_rows_of_the_tables() -> None:
    network, rows, found = made(Behaviour(untag=1, tag=1, answer=1))
    tagged = {(tag.image, tag.person) for tag in rows.tags if tag.allow}
    for photo in network.photos:
        for person in (person for person in photo.people if person is not None and person != photo.owner):
            denied = any(not tag.allow and (tag.image, tag.person) == (photo.image_id, name_of(person)) for tag in rows.tags)
            assert (photo.image_id, name_of(person)) in tagged
            assert denied == (network.content(photo, person) < 0.5)
    assert len(rows.consents) == len(rows.asked) == round(found[EXPLICIT].asked * found[EXPLICIT].photos)


def test_what_is_assumed_can_be_changed() -> None:
    habits, behaviour = assumed(["tag=0.9", "open=0.1"])
    assert (habits, behaviour) == (replace(Habits(), open=0.1), replace(Behaviour(), tag=0.9))
    for wrong in ("tag", "tag=x", "other=0.5", "tag=1.5"):
        with pytest.raises(ValueError, match="wanted"):
            assumed([wrong])
    with pytest.raises(ValueError, match="fewer friends"):
        make_network(5, 6, 1, Habits(), np.random.default_rng(0))


def test_the_command_writes_table_and_plot(tmp_path: Path) -> None:
    arguments = ["evaluate", "social", str(tmp_path / "social"), "--users", "30", "--friends", "4", "--runs", "2", "--assume", "tag=0.8"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 networks of 30 users" in done.output
    plain: dict[str, Any] = json.loads((tmp_path / "social" / "social.json").read_text())
    assert [one["model"] for one in plain["models"]] == list(MODELS)
    habits, behaviour = plain["settings"]["habits"], plain["settings"]["behaviour"]
    assert (plain["settings"]["network"]["friends"], habits["friends"]) == (4, 0.5)
    assert (behaviour["tag"], behaviour["missed"], len(plain["runs"])) == (0.8, 0.032, 2)
    with (tmp_path / "social" / "social.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == list(MODELS)
    assert float(rows[2]["met"]) == plain["models"][2]["met"]
    plot = ET.fromstring((tmp_path / "social" / "social.svg").read_text())
    texts = [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert "wanted exposures made" in texts
    assert "rules, each viewer" in texts
