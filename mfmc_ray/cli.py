"""The command `mfmc`: one verb per stage, and `anonymize` for all of them."""

from __future__ import annotations

import errno
import gc
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from mfmc_ray import (
    __version__,
    access_cli,
    boxes_cli,
    change_cli,
    compare_cli,
    discreet,
    evaluate_cli,
    identities_cli,
    key_cli,
    known_cli,
    models_cli,
    nightly_cli,
    people_cli,
    profiles_cli,
    release_cli,
    review_cli,
    submit_cli,
    synth_cli,
)
from mfmc_ray.access_options import NO_ACCESS, Access, takes_access
from mfmc_ray.config import ConfigError, RunConfig
from mfmc_ray.folders import finished_run, run_settings, storage_options_of

_VERBOSE = ("--verbose", "-v")


class _Verbs(TyperGroup):
    """Looks for a verb of two words first, so that `identities preview` and `identities INPUT OUT` can both be; takes --verbose
    anywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = [arg for arg in args[:end] if arg not in _VERBOSE]
        flags = ["--verbose"] if len(rest) < end else []
        return super().parse_args(ctx, [*flags, *rest, *args[end:]])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        joined = " ".join(args[:2])
        return super().resolve_command(ctx, [joined, *args[2:]] if joined in self.commands else args)


app = typer.Typer(
    name="mfmc",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Anonymize the faces of an image collection.

Every face that nobody approved is swapped for a fake identity that is random, with a checked dissimilarity from the original and from every
known face; what cannot be shown to hold is covered. Originals stay where they are; OUT can be published; WORK is private.

What is printed names no file or folder of the collection, unless you say [bold]--verbose[/bold] (-v), before or after the verb.

Start with [bold]mfmc demo[/bold].""",
)
app.add_typer(models_cli.app, name="models", help="List, pull and verify the model files.")
for _name, _verb in (("list", change_cli.list_), ("add", change_cli.add), ("remove", change_cli.remove)):
    known_cli.app.command(_name)(_verb)
app.add_typer(boxes_cli.app, name="boxes")
app.add_typer(access_cli.app, name="access")
app.add_typer(key_cli.app, name="key", help="The run's pseudonym key: whether there is one, and its end.")
app.add_typer(people_cli.app, name="people", help="Enrolled people, who are recognised in the images of a run.")
app.add_typer(known_cli.app, name="known", help="The faces that no fake may resemble: who is known, how well they are told apart.")

Input = Annotated[
    str | None,
    typer.Argument(
        help="A folder, a glob, s3://bucket/prefix, Parquet files with an image column, or WebDataset .tar files. Default: the file's."
    ),
]
Out = Annotated[str | None, typer.Argument(help="Folder or s3:// prefix of the publishable result. Default: the file's.")]
Work = Annotated[
    str | None, typer.Option(help="Private folder (embeddings, key, originals' report). Default: OUT-work beside a local OUT.")
]
Known = Annotated[
    list[str] | None, typer.Option("--known", help="Folder or Parquet with photos of further people that no fake may resemble. Repeatable.")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings; the options here override it.")]
Storage = Annotated[str | None, typer.Option(help='JSON passed to fsspec, e.g. \'{"endpoint_url": "http://127.0.0.1:9000"}\'.')]
Attempts = Annotated[int | None, typer.Option(min=1, help="Fake identities tried on a face before it is covered (default 8).")]
Identities = Annotated[int | None, typer.Option(min=1, help="Size of the pool of fake identities (default: from the number of faces).")]
Threshold = Annotated[float | None, typer.Option(help="Highest cosine to any known face (default: calibrated).")]
Calibration = Annotated[
    str | None, typer.Option(help="Folder with false-match curves from `mfmc known calibrate` (default: those that ship).")
]
Boxes = Annotated[
    str | None,
    typer.Option(help="Parquet, JSON (COCO), CSV or WIDER FACE file with boxes of faces that you know of, or a pattern (docs/boxes.md)."),
]
BoxesMode = Annotated[
    str | None,
    typer.Option(help='"add": beside what is found (default). "instead": an image in the file has these faces and no others.'),
]
MinFace = Annotated[float | None, typer.Option(help="Smaller faces (√area of the box, px) are covered (default 20).")]
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="JPEG quality where the source's own cannot be kept (default 98).")]
Seed = Annotated[int | None, typer.Option(help="Where in the sequence of fake identities to start.")]
Pseudonyms = Annotated[
    str | None,
    typer.Option(metavar="image|person|none", help="Another fake in each image (default), the same for a person in all, or none: cover."),
]
SwapperFile = Annotated[
    str | None, typer.Option(metavar="morph|FILE", help="YAML file of a swap network instead of the embedded renderer (docs/swappers.md).")
]
Actors = Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one for each CPU).")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to use (default: RAY_ADDRESS, else a local one made for the run).")]
Profile = Annotated[
    str | None, typer.Option(metavar="auto|local|cpu-cluster|gpu", help="How the work is shared out (docs/cluster.md; default auto).")
]
Restart = Annotated[bool, typer.Option("--restart", help="Start anew: removes what an earlier run with this WORK has made.")]


def _run_verb(name: str, text: str) -> None:
    """Adds a verb that takes a collection through one step (or all of them)."""

    @takes_access("Who may stay as they are: docs/access.md (default: nobody)")
    def verb(
        input: Input = None,  # noqa: A002 (the argument's name)
        out: Out = None,
        work: Work = None,
        known: Known = None,
        config_file: Config = None,
        storage_options: Storage = None,
        attempts: Attempts = None,
        identities: Identities = None,
        threshold: Threshold = None,
        calibration: Calibration = None,
        boxes: Boxes = None,
        boxes_mode: BoxesMode = None,
        min_face: MinFace = None,
        quality: Quality = None,
        seed: Seed = None,
        pseudonyms: Pseudonyms = None,
        swapper: SwapperFile = None,
        actors: Actors = None,
        address: Address = None,
        profile: Profile = None,
        restart: Restart = False,
        access: Access = NO_ACCESS,
    ) -> None:
        if input is not None and out is None:
            raise ConfigError("give INPUT and OUT, or neither and --config with a YAML file that has `input:` and `out:`")
        settings = run_settings(
            config_file,
            input=input,
            out=out,
            work=work,
            storage_options=storage_options_of(storage_options),
            guard__galleries=known,
            guard__threshold=threshold,
            guard__calibration=calibration,
            **access,
            find__boxes=boxes,
            find__boxes_mode=boxes_mode,
            swap__attempts=attempts,
            swap__identities=identities,
            swap__min_face=min_face,
            swap__seed=seed,
            swap__pseudonyms=pseudonyms,
            swap__swapper=swapper,
            output__jpeg_quality=quality,
            ray__actors=actors,
            ray__address=address,
            ray__profile=profile,
        )
        _execute(name, settings, restart)

    app.command(name, help=text)(verb)


_run_verb(
    "anonymize", "Anonymize a collection: every step, resumed where a killed run left it.\n\nExample: mfmc anonymize photos/ published/"
)
_run_verb("scan", "Step 1: find and describe every face (into WORK).")
_run_verb("index", "Step 2: build the known-face index from the scan and the galleries (into WORK).")
_run_verb(
    "identities",
    "Step 3: sample and certify the fake identities (into WORK).\n\nTo see what they look like, without a run: mfmc identities preview",
)
app.command("identities preview")(identities_cli.preview)
app.command("nightly")(nightly_cli.nightly)
app.command("release")(release_cli.release)
app.command("review")(review_cli.review)
app.command("evaluate")(evaluate_cli.evaluate)
app.command("evaluate compare")(compare_cli.compare)
app.command("evaluate social")(evaluate_cli.social)
app.command("profiles")(profiles_cli.profiles)
app.command("submit")(submit_cli.submit)
app.command("synth")(synth_cli.synth)


@app.command()
@takes_access("What kept faces are held against (default: the run's own people and tables, as they are now)")
def audit(
    out: Annotated[str | None, typer.Argument(help="The published folder or prefix. Default: the file's.")] = None,
    work: Annotated[str | None, typer.Option(help="The run's private folder. Default: OUT-work beside a local OUT.")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="The run's YAML file: OUT, WORK, where they are.")] = None,
    sample: Annotated[
        str | None, typer.Option(help="Look at so many published images, drawn at random, as 200 or 5% (default: at all of them).")
    ] = None,
    sample_seed: Annotated[int | None, typer.Option(help="Draw the same sample again. Default: unpredictable; audit.json has it.")] = None,
    storage_options: Storage = None,
    actors: Actors = None,
    address: Address = None,
    access: Access = NO_ACCESS,
) -> None:
    """Prove or refute the promise on what is published: exit code 0 if it holds, 1 if not.

    Every published picture is looked at again with another detector, every replaced face is embedded again with the guard recognizers,
    every certificate is computed again by a plain search. What is not accounted for is a violation.

    With --sample that is done for a sample of the pictures, and the result says how many of all may violate at most. Rows, what the
    certificates claim, digests and counts are checked in full all the same.
    """
    from mfmc_ray.pipeline.audit_run import audit as run_audit
    from mfmc_ray.pipeline.sampling import Sample

    settings = finished_run(out, work, storage_options, actors, address, access, config_file)
    raise typer.Exit(0 if run_audit(settings, Sample.parse(sample, sample_seed)) else 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the demo; made if absent.")] = Path("mfmc-demo"),
    portraits: Annotated[int, typer.Option(min=4, max=200, help="How many people to generate.")] = 24,
    seed: Annotated[int, typer.Option(help="Other seeds, other people.")] = 0,
) -> None:
    """Try everything on people who do not exist: generate a small collection, anonymize it, audit it, write the report."""
    from mfmc_ray.pipeline.demo import demo as run_demo

    raise typer.Exit(0 if run_demo(out, portraits=portraits, seed=seed) else 1)


def _execute(verb: str, settings: RunConfig, restart: bool) -> None:
    from mfmc_ray.pipeline.run import Run

    run = Run(settings, restart=restart)
    with run.session():
        if verb == "anonymize":
            _summarize(run.all(), settings)
        else:
            getattr(run, verb)()
            run.console.print(f"[green]{verb}: done[/green]; private results are in {settings.work}")


def _summarize(manifest: dict[str, Any], settings: RunConfig) -> None:
    counts = manifest["counts"]
    images = ", ".join(f"{n} {verdict}" for verdict, n in counts["images"].items())
    faces = ", ".join(f"{n} {verdict}" for verdict, n in counts["faces"].items()) or "none"
    console = Console(highlight=False, soft_wrap=True)
    for notice in manifest["notices"]:
        Console(stderr=True, highlight=False).print(f"[yellow]{notice}[/yellow]")
    console.print(f"Images: {images}. Faces: {faces}. Published in {settings.out}, report {settings.out}/report/index.html")
    console.print(f"Check it: mfmc audit {settings.out} --work {settings.work}")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mfmc-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    verbose: Annotated[
        bool, typer.Option(*_VERBOSE, help="Name files of the collection and galleries in messages, too, and show errors in full.")
    ] = False,
) -> None:
    discreet.speak_freely(verbose)


# what a folder that cannot be written says: full, read-only, forbidden, no folder
_PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def main() -> None:
    """The entry point: errors a user can mend are one sentence; exit codes 0 done, 1 refuted or failed, 2 wrong usage."""
    try:
        app()
    except KeyboardInterrupt:
        Console(stderr=True).print("mfmc: interrupted; run the same command again to go on")
        sys.exit(130)
    except Exception as error:
        _failed(error)
    finally:
        gc.freeze()  # or the end of the process would look through all that was imported, for half a second


def _failed(error: Exception) -> NoReturn:
    from mfmc_ray.errors import USER_ERRORS  # of every module, which takes longer to import than many a verb to run

    if isinstance(error, USER_ERRORS):
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]mfmc:[/red] {escape(' '.join(discreet.told(error).split()))}")
        if discreet.names_allowed():
            sys.stderr.writelines(getattr(error, "__notes__", ()))  # of a worker: its traceback
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    if not isinstance(error, OSError) or error.errno not in _PLACES:
        _broken(error)
    where = f" ({error.filename or 'in OUT, WORK or the folder for temporary files'})"
    text = f"mfmc: {error.strerror}{where}; make room or give another OUT or --work, then run the same command again"
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
    sys.exit(1)


def _broken(error: Exception) -> NoReturn:
    """An error of the program's own: where it is, and with --verbose what it says, which may be anything."""
    if discreet.names_allowed():
        traceback.print_exc()
    else:
        print(f"{discreet.frames(error)}mfmc: {discreet.kind_and_words(error)}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
