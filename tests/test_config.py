import hashlib
import json
from pathlib import Path

import pytest

from mfmc_ray.config import ConfigError, RunConfig, load


def test_defaults_are_used_without_a_file() -> None:
    assert load(None) == RunConfig()


def test_yaml_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("input: photos\nswap: {attempts: 3, min_face: 24}\nguard: {recognizers: [sface], galleries: staff}\n")
    settings = load(file, swap__attempts=5, out="published", guard__threshold=None)
    assert settings.input == "photos"
    assert settings.out == "published"
    assert settings.swap.attempts == 5
    assert settings.swap.min_face == 24.0
    assert settings.guard.recognizers == ("sface",)
    assert settings.guard.galleries == ("staff",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inptu: photos", "inptu"),
        ("swap: {attempts: many}", "swap.attempts wants int"),
        ("swap: {attempts: true}", "swap.attempts wants int"),
        ("swap: 3", "swap. wants"),
        ("guard: {threshold: high}", "guard.threshold wants float"),
        ("guard: {threshold: 3.0}", "wants a cosine above -1 and at most 1, not 3.0"),
        ("swap: {pseudonyms: names}", r"swap.pseudonyms \(--pseudonyms\) wants .*, not 'names'"),
        ("- a list", "key: value"),
        ("input: [", "cannot be read as YAML"),
        ("storage_options: endpoint", "storage_options wants"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(file)


def test_what_is_published_names_no_folder_and_no_secret() -> None:
    settings = load(
        None,
        input="/home/me/photos",
        out="/srv/out",
        work="/srv/work",
        guard__galleries=["/home/me/staff"],
        access__approvals="/home/me/approvals.csv",
        storage_options={"secret": "hunter2"},
    )
    text = str(settings.to_dict())
    for word in ("/home/me", "/srv", "hunter2"):
        assert word not in text
    assert "photos" in text


def test_the_digest_survives_the_manifest() -> None:
    settings = load(None, input="/home/me/photos", swap__attempts=4)
    plain = settings.to_dict()
    del plain["storage_options"]
    assert load(None, **plain).digest() == settings.digest()
    assert load(None, **plain | {"swap": {"attempts": 5}}).digest() != settings.digest()


def test_pseudonyms_decide() -> None:
    before, none = load(None), load(None, swap__pseudonyms="none")
    assert before.made() == load(None, swap__pseudonyms="image").made()
    assert none.digest() != before.digest()
    assert none.made() != before.made()


def test_the_approvals_are_a_setting_that_decides() -> None:
    without, with_ = load(None, input="photos"), load(None, input="photos", access__approvals="approvals.csv")
    assert with_.digest() != without.digest()
    assert with_.digest("find", "swap") == without.digest("find", "swap")
    assert with_.access.approvals == str(Path("approvals.csv").absolute())  # read again later, from wherever that is done
    assert load(None, access__approvals="s3://tables/approvals.csv").access.approvals == "s3://tables/approvals.csv"
    assert load(None, access__approvals="file:///tables/approvals.csv").access.approvals == "/tables/approvals.csv"
    plain = with_.to_dict()
    assert plain["access"] == {"approvals": "approvals.csv"}
    del plain["storage_options"]
    assert load(None, **plain).digest() == with_.digest()


def test_access_settings_are_published_without_folders_and_viewers() -> None:
    places = {"people": "/home/ada/people/", "consents": "s3://tables/ada/consents.csv", "never": "never.csv"}
    settings = load(None, **{f"access__{name}": place for name, place in places.items()}, access__model="explicit")
    assert settings.access.never == str(Path("never.csv").absolute())
    assert settings.to_dict()["access"] == {"people": "people", "consents": "consents.csv", "never": "never.csv", "model": "explicit"}
    plain = {name: value for name, value in settings.to_dict().items() if name != "storage_options"}
    assert load(None, **plain).digest() == settings.digest() != load(None).digest()
    ada, bea = (load(None, access__model="rules", access__rules="rules.csv", access__audience=f"viewer:{name}") for name in ("ada", "bea"))
    assert ada.to_dict() == bea.to_dict()
    assert "ada" not in str(ada.to_dict()["access"])
    assert load(None, **{name: value for name, value in ada.to_dict().items() if name != "storage_options"}).digest() == ada.digest()


def test_an_audience_is_a_group_unless_it_says_otherwise() -> None:
    given = {"friends": "group:friends", "group:friends": "group:friends", " Everyone": "everyone", "viewer:ada": "viewer:ada"}
    assert {text: load(None, access__audience=text).access.audience for text in given} == given


def test_runs_begun_before_there_were_approvals_are_the_same() -> None:
    """The digest of version 0.2 for a plain run; without approvals nothing of it may change."""
    plain = load(None, input="photos").to_dict()
    del plain["access"], plain["swap"]["pseudonyms"], plain["find"]["boxes"], plain["find"]["boxes_mode"], plain["swap"]["device"]
    del plain["guard"]["calibration"], plain["guard"]["shards"], plain["find"]["max_seconds"], plain["output"]["c2pa_certificate"]
    del plain["swap"]["swapper"], plain["find"]["det_size"]
    text = json.dumps({name: plain[name] for name in ("input", "find", "guard", "swap", "output")}, sort_keys=True)
    assert load(None, input="photos").digest() == hashlib.sha256(text.encode()).hexdigest()
