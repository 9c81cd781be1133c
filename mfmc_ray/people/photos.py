"""Photos of people, as they are given: a folder with a folder for each person, or a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mfmc_ray.access.decide import AccessError
from mfmc_ray.access.tables import Cells, Layout, load, name_of
from mfmc_ray.collection import Collection
from mfmc_ray.people.quality import RefusedError
from mfmc_ray.people.registry import PeopleError
from mfmc_ray.places import is_remote
from mfmc_ray.sources import MAX_BYTES, Unit, escape, read_unit

TABLES = (".csv", ".parquet", ".pq")
LAYOUT = Layout("PHOTOS", ("path", "person"))


@dataclass(frozen=True)
class PhotoFile:
    """A photo to be enrolled.

    Attributes:
        person: who is said to be on it, as it was given; "" if nobody is.
        name: what the user calls it: its path in the folder, or what the table has.
    """

    person: str
    name: str
    unit: Unit

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            RefusedError: it cannot be read.
            StoreError: its store does not answer.
        """
        source = next(read_unit(self.unit))
        if source.data is None:
            raise RefusedError("unreadable", f"cannot be read ({(source.error or 'vanished').split(':')[0]})")
        return source.data


def listed(place: str) -> list[PhotoFile]:
    """The photos of a folder or table, in an order that depends on nothing but the names.

    Args:
        place: a folder (or URL) in which each person's photos have a folder of their own, which may have further ones in it; or a CSV or
            Parquet file with the columns `path`, absolute or relative to the table, and `person`.

    Raises:
        PeopleError: there are no such photos.
        CollectionError, AccessError: it cannot be read, or a row of the table cannot be used.
    """
    if place.lower().endswith(TABLES):
        if is_remote(place):
            raise PeopleError(f"{place}: a table of photos must be a local file")
        found = load(place, None, LAYOUT, _row)
        folder = Path(place.removeprefix("file://")).expanduser().absolute().parent
        photos = [PhotoFile(person, name, _unit(folder / name, name)) for name, person in found]
    else:
        photos = list(_in_folders(Collection.open(place)))
    if not any(photo.person for photo in photos):
        raise PeopleError(f"{place}: no photo is in a person's folder; wanted PHOTOS/PERSON/photo.jpg, or a table with path and person")
    return photos


def _row(number: int, cells: Cells) -> tuple[str, str]:
    path = cells["path"]  # as it is: file names are bytes
    if not isinstance(path, str) or not path or is_remote(path):
        raise AccessError("no path of a local file")
    return path, name_of(cells["person"], "person")


def _unit(path: Path, name: str) -> Unit:
    try:
        size = path.stat().st_size
    except OSError:
        size = -1  # reading it says what is wrong
    return Unit(escape(str(path)), "file", min(size, MAX_BYTES + 1), "", name)


def _in_folders(collection: Collection) -> Iterator[PhotoFile]:
    for unit in collection.units():
        if unit.kind != "file":
            raise PeopleError(f"there are {unit.kind} files among the photos: wanted pictures, in a folder for each person")
        yield PhotoFile(unit.path.rpartition("/")[0].partition("/")[0], unit.path, unit)
