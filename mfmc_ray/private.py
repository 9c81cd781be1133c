"""The private folder's hygiene: who else could read it, and what a run that was killed has left in it or beside it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mfmc_ray.places import LedgerError, full, inside, is_remote

SCRATCH = ("ray", "ray-spill", "staging")
"""Folders of WORK that no command leaves there."""
_ELSEWHERE, _SHORT, _PREFIX = "elsewhere", Path("/tmp"), "mfmc-"  # noqa: S108 (in there is a folder of mode 700)
_HALF = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|(generation-\d+\.(json|parquet)|finished\.json|galleries\.json)\.tmp")
"""Files that were never finished: of `places` and of `known.generations`."""

NAMES = (
    "Paths are published as they are in the collection (column path, report): a name of a person in a file's or folder's name is "
    "published with it."
)
"""What whoever starts or uses a run must know of names."""


def scratch(work: Path) -> Path:
    """A private folder for files that are read again in a moment, WORK/staging; `tidy` removes it."""
    folder = work / "staging"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def private_folder(work: str, name: str, root: str) -> Path:
    """WORK/name, for pictures and embeddings of real people: nobody else may read it, and nothing that is published or read is in it.

    Args:
        work: a local folder; made if it is absent.
        name: of the folder in it.
        root: of the collection that these people are in.

    Raises:
        LedgerError: WORK is remote, is in the collection or in what a run publishes, the collection is in the folder, or it cannot be made.
    """
    if is_remote(work):
        raise LedgerError(f"WORK must be a local folder, not {work}")
    place, root = Path(full(work)), full(root)
    if inside(str(place), root):
        raise LedgerError(f"WORK ({place}) is in the collection ({root}), where it would be read as input; put it elsewhere")
    if inside(root, str(place / name)):
        raise LedgerError(f"the collection ({root}) is in {place / name}, which is written and removed; put WORK elsewhere")
    if published := next((one for one in (place, *place.parents) if (one / "manifest.json").is_file() and (one / "images").is_dir()), None):
        raise LedgerError(f"WORK ({place}) is in a result ({published}), so originals would be published; put it elsewhere")
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / name).mkdir(exist_ok=True, mode=0o700)
        (place / name).chmod(0o700)  # whoever made it
    except OSError as error:
        raise LedgerError(f"{place / name} cannot be made: {error}") from error
    return place / name


def complaints(work: Path) -> list[str]:
    """Why others could read WORK or write there; sentences."""
    try:
        about = work.stat()
    except OSError:
        return []
    mode = stat.S_IMODE(about.st_mode)
    if not mode & 0o077:
        return []
    what = "read and changed" if mode & 0o022 else "read"
    return [
        f"WORK ({work}) can be {what} by other users of this machine (mode {mode:o}), and holds embeddings of real faces: "
        f"unless you share it on purpose, chmod 700 {work}"
    ]


def short_link(work: Path, target: Path) -> Path:
    """A link with a short path to a folder in WORK, in a private folder of /tmp; `tidy` removes both.

    For sockets, whose path the system limits to 107 bytes. WORK notes where it is before it is made, so that it is found after a crash.
    """
    for _ in range(100):
        folder = _SHORT / (_PREFIX + secrets.token_hex(4))
        with contextlib.suppress(FileExistsError):
            _note(work, folder)
            folder.mkdir(mode=0o700)
            break
    else:
        raise FileExistsError(f"no free name in {_SHORT}")
    link = folder / "s"
    link.symlink_to(target)
    return link


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and those below it, while others may come and go (`Path.rglob` raises when a folder does)."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def tidy(work: Path) -> None:
    """Removes what is of use only while a command runs: Ray's files and spilled objects, staging, half-written files, a link in /tmp.

    Hold the run's lock: what another process would be using goes, too.
    """
    for name in SCRATCH:
        shutil.rmtree(work / name, ignore_errors=True)
    for path in files_below(work):
        if _HALF.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
    note = work / _ELSEWHERE
    try:
        folder = Path(note.read_text())
    except (OSError, ValueError):
        return
    if _is_ours(folder, work):
        with contextlib.suppress(OSError):  # what is not ours in it stays
            (folder / "s").unlink(missing_ok=True)
            folder.rmdir()
    note.unlink(missing_ok=True)


def _note(work: Path, folder: Path) -> None:
    with open(os.open(work / _ELSEWHERE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        file.write(str(folder))


def _is_ours(folder: Path, work: Path) -> bool:
    """Whether it is a folder that `short_link` made for this WORK, which may be a copy of one that is in use, with its note."""
    try:
        about, target = folder.lstat(), (folder / "s").readlink()
    except (OSError, ValueError):
        return False
    return (
        folder.parent == _SHORT
        and folder.name.startswith(_PREFIX)
        and stat.S_ISDIR(about.st_mode)
        and about.st_uid == os.geteuid()
        and stat.S_IMODE(about.st_mode) == 0o700
        and target.resolve().is_relative_to(work.resolve())
    )
