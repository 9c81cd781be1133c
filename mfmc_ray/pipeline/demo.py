"""The demo: people who do not exist, anonymized and audited with the same code as any collection."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from mfmc_ray.config import GuardConfig, RunConfig, SwapConfig
from mfmc_ray.evaluate.people import NOTICE
from mfmc_ray.evaluate.scenes import DemoCollection, make_demo_collection
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import pull
from mfmc_ray.pipeline.audit_run import audit_in_session
from mfmc_ray.pipeline.run import Run


def demo(folder: Path, *, portraits: int = 24, seed: int = 0) -> bool:
    """Makes `folder/collection`, `folder/out` (publishable) and `folder/out-work` (private); True if the audit found nothing.

    Args:
        folder: made if absent; an earlier demo in it is replaced.
        portraits: how many people are generated.
        seed: of the people.
    """
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    # once for all that follows, so that no stage waits for a download
    pull(files_of(["yunet", "centerface", "sface", "dlib", "openface", "mesh", "people"]))
    console.print("Demo: the people are generated with MobileStyleGAN, whose weights are [bold]for non-commercial use only[/bold];")
    console.print("no other command uses them, and the fake identities do not come from them.")
    collection = _people(folder / "collection", portraits, seed)
    config = RunConfig(
        input=str(collection.photos),
        out=str(folder / "out"),
        work=str(folder / "out-work"),
        guard=GuardConfig(galleries=(str(collection.known),)),
        swap=SwapConfig(seed=seed),
    )
    run = Run(config, restart=True, notices=(NOTICE,))
    with run.session():
        manifest = run.all()
        passed = audit_in_session(config)
    counts = manifest["counts"]
    images = ", ".join(f"{n} {verdict}" for verdict, n in counts["images"].items())
    faces = ", ".join(f"{n} {verdict}" for verdict, n in counts["faces"].items())
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"Images: {images}. Faces: {faces}. Audit: {'passed' if passed else 'FAILED'}. {time.monotonic() - started:.0f} s.")
    out.print(f"Publishable: {folder}/out (open {folder}/out/report/index.html)")
    out.print(f"Private, before and after: {folder}/out-work/report/index.html")
    return passed


def _people(folder: Path, portraits: int, seed: int) -> DemoCollection:
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("Generating people who do not exist", total=None)
        return make_demo_collection(
            folder, portraits=portraits, seed=seed, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
