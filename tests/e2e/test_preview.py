"""`mfmc identities preview`: a picture of fake identities, without a collection or a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mfmc_ray import cli, identities_cli
from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate import sheets
from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.render import MorphSwapper, neutral_portrait

STEP = identities_cli.TILE_PX + 10  # from one tile to the next, px


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the sheet says below its tiles; it is drawn as always."""
    drawn: list[tuple[str, ...]] = []
    draw = sheets.contact_sheet

    def listen(tiles: Any, columns: int, tile_px: int, labels: Any) -> Any:
        drawn.extend(labels)
        return draw(tiles, columns, tile_px, labels)

    monkeypatch.setattr(sheets, "contact_sheet", listen)
    return drawn


def preview(*args: object) -> None:
    """The command, in this process."""
    cli.app(["identities", "preview", *map(str, args)], standalone_mode=False)


def seed_of(caption: tuple[str, ...]) -> int:
    return int(caption[0].removeprefix("mfmc-"))


def test_the_command_writes_a_sheet_and_says_what_it_is(mfmc: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "people.png"
    done = mfmc("identities", "preview", "--out", out, "--count", "12")
    assert done.returncode == 0, done.stderr
    assert "Rendering identities" in done.stderr
    assert f"12 fake identities are in {out}. Nobody in it exists." in done.stderr
    assert "still has to certify" in done.stderr
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width == identities_cli.COLUMNS * STEP + 10
        assert 2 * STEP < sheet.height < 2 * STEP + 100
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_tiles_are_the_neutral_renderings_in_order(tmp_path: Path, captions: list[tuple[str, ...]]) -> None:
    out = tmp_path / "people.png"
    preview("--out", out, "--count", 9, "--first", 40)
    assert sorted(map(seed_of, captions)) == list(range(40, 49))
    model = load_model()
    shown = [sample(model, seed_of(caption)) for caption in captions]
    assert {identity.sex for identity in shown} == {"man", "woman"}
    for (name, says), identity in zip(captions, shown, strict=True):
        assert name == identity.identity_id
        assert says.startswith(f"{identity.sex}, {round(identity.age)}, ")
    rank = [(i.sex, identities_cli.TONE_BANDS.index(c[1].split(", ")[2]), i.age) for i, c in zip(shown, captions, strict=True)]
    assert rank == sorted(rank)
    pixels = np.asarray(Image.open(out))
    portrait = sheets.thumbnail(neutral_portrait(MorphSwapper(model), shown[1]), identities_cli.TILE_PX)
    x = 10 + STEP
    assert np.array_equal(pixels[10 : 10 + identities_cli.TILE_PX, x : x + identities_cli.TILE_PX], portrait)
    below = pixels[10 + identities_cli.TILE_PX : 10 + identities_cli.TILE_PX + 36, x : x + identities_cli.TILE_PX]
    dark = (below < 150).all(axis=2)
    assert dark[2:18].any()
    assert dark[20:].any()


def test_without_first_the_seeds_are_those_that_runs_try(tmp_path: Path, captions: list[tuple[str, ...]]) -> None:
    preview("--out", tmp_path / "people.png", "--count", 4)
    tried = seeds()
    assert {seed_of(caption) for caption in captions} == {next(tried) for _ in range(4)}


def test_filters_leave_only_what_was_asked_for(tmp_path: Path, captions: list[tuple[str, ...]]) -> None:
    preview("--out", tmp_path / "people.png", "--count", 5, "--sex", "woman", "--age", "50-59")
    assert len(captions) == 5
    for _, says in captions:
        match = re.fullmatch(r"woman, (\d+), [a-z ]+", says)
        assert match
        assert 50 <= int(match[1]) <= 59


def pool(work: Path, ages: Callable[[float], float] = lambda age: age) -> Path:
    """The pool that a run would leave behind, of the seeds 5, 6 and 7, in two parts."""
    model = load_model()
    (work / "pool").mkdir(parents=True)
    for part, some in enumerate([[5, 6], [7]]):
        rows = [{"seed": s, "age": ages(sample(model, s).age), "tone": sample(model, s).tone} for s in some]
        pq.write_table(pa.Table.from_pylist(rows), work / "pool" / f"part-{part:05d}.parquet")
    return work


def test_the_admitted_pool_of_a_run(tmp_path: Path, captions: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    preview("--out", tmp_path / "people.png", "--from", pool(tmp_path / "work"))
    assert sorted(map(seed_of, captions)) == [5, 6, 7]
    said = " ".join(capsys.readouterr().err.split())
    assert "3 identities instead of 60" in said
    assert "certified against the known faces of that run" in said


def unknown_age(t: Path) -> list[object]:
    return ["--age", "thirty"]


def ages_reversed(t: Path) -> list[object]:
    return ["--age", "40-30"]


def nobody(t: Path) -> list[object]:
    return ["--age", "200-300", "--from", pool(t / "work")]


def no_png(t: Path) -> list[object]:
    return ["--out", t / "people.jpg"]


def no_folder(t: Path) -> list[object]:
    (t / "file").write_text("")
    return ["--out", t / "file" / "people.png", "--count", "1"]


def no_pool(t: Path) -> list[object]:
    return ["--from", t]


def damaged_pool(t: Path) -> list[object]:
    (pool(t / "work") / "pool" / "part-00001.parquet").write_bytes(b"nothing")
    return ["--from", t / "work"]


def another_model(t: Path) -> list[object]:
    return ["--from", pool(t / "work", lambda age: age + 1)]


def both(t: Path) -> list[object]:
    return ["--from", t, "--first", "3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (unknown_age, "--age wants LOW-HIGH"),
        (ages_reversed, "lower age first"),
        (nobody, "no identity is of that sex and age"),
        (no_png, "wants a .png file"),
        (no_folder, "cannot be written"),
        (no_pool, "holds no pool of identities"),
        (damaged_pool, "cannot be read"),
        (another_model, "another identity model"),
        (both, "give one of the two"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refusals_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Callable[[Path], list[object]], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(words)):
        preview(*arguments(tmp_path))
    assert not list(tmp_path.rglob("*.png"))


def test_the_verb_itself_still_takes_a_collection(mfmc: Any, tmp_path: Path) -> None:
    started = [mfmc.start("identities", tmp_path / "fotos", tmp_path / "out"), mfmc.start("identities", "--seed", "3", "preview", "out")]
    for process in started:
        result = mfmc.finish(process)
        assert result.returncode == 1
        assert "not found" in result.stderr
