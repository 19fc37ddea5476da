"""What a layout module returns, and how it reads folders and tables."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from c2ftool.errors import DataError, MissingError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
NOT_READ = (".m4a", ".mp4", ".mkv", ".webm", ".avi", ".aac", ".wma", ".opus")
_PLACES = ("", "meta", "metadata", "csv", "data", "annotations")
_SHOWN = 20


@dataclass(frozen=True)
class Event:
    """One sound event: onset and offset in seconds from the start of the clip, and its class number."""

    onset: float
    offset: float
    label: int


@dataclass(frozen=True)
class Inside:
    """A data set of samples in an HDF5 file: its name there, and its rate in Hz, which such files do not say."""

    name: str
    rate: int


@dataclass(frozen=True)
class ClipRef:
    """One clip of a listing.

    path: of the audio file, relative to the listing's folder with forward slashes (or absolute).
    fold: 1, 2, ..; 0 where the set has none.
    labels: class numbers, ascending. events: empty where only the clip is labelled.
    start, stop: the part of the file in seconds that makes the clip; None is the file's own start or end.
    inside: what of the file holds the samples, where it is an HDF5 file.
    """

    id: str
    path: str
    split: str
    fold: int = 0
    labels: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    start: float | None = None
    stop: float | None = None
    inside: Inside | None = None

    @property
    def place(self) -> str:
        """The path, with the name of the data set behind it where the samples lie in one."""
        return self.path if self.inside is None else f"{self.path}/{self.inside.name}"


@dataclass(frozen=True)
class Listing:
    """The clips of a data set, in stored order, before any is decoded.

    train_splits: the splits whose log-mel statistics are measured.
    missing: (split, clip) of clips that the metadata names and the folder lacks.
    metadata_files: relative to the folder; their hashes are recorded.
    extra: what else is recorded of the source (`sources` in `c2f.json`), in plain JSON.
    """

    layout: str
    folder: Path
    clips: list[ClipRef]
    classes: list[str]
    train_splits: tuple[str, ...]
    missing: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    metadata_files: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AudioFiles:
    """The audio files under a folder: paths relative to it, sorted; and what was left out.

    others: other files by suffix, in the case it is written in.
    """

    paths: list[str]
    unnamed: int
    others: dict[str, int]

    def notes(self) -> list[str]:
        """A sentence on each kind of file that was left out."""
        notes = []
        if self.unnamed:
            notes.append(f"{self.unnamed} audio files left out: their names are not UTF-8")
        sounds = {suffix: n for suffix, n in self.others.items() if suffix.lower() in NOT_READ}
        if sounds:
            kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(sounds.items()))
            notes.append(f"not read: {kinds} (only {', '.join(AUDIO_SUFFIXES)})")
        return notes


def audio_files(folder: Path, under: str = "") -> AudioFiles:
    """The audio files under `folder/under`, at any depth; hidden files and folders are passed over."""
    paths: list[str] = []
    unnamed = 0
    others: dict[str, int] = {}
    for here, subfolders, names in os.walk(folder / under, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(here).relative_to(folder)
        for name in names:
            suffix = os.path.splitext(name)[1]  # noqa: PTH122 (millions of names)
            if name.startswith("."):
                continue
            if suffix.lower() not in AUDIO_SUFFIXES:
                others[suffix] = others.get(suffix, 0) + 1
                continue
            path = (relative / name).as_posix()
            if path.isprintable() or _encodable(path):
                paths.append(path)
            else:
                unnamed += 1
    return AudioFiles(sorted(paths), unnamed, others)


def stem(path: str) -> str:
    """The file's name without folder and suffix."""
    return PurePosixPath(path).stem


def require_folder(folder: Path, expected: str) -> None:
    """Raises MissingError, naming what was expected in it, if the folder is not there."""
    if not folder.exists():
        raise MissingError(f"no such folder; expected {expected}", place=str(folder), cure="give --from another folder")
    if not folder.is_dir():
        raise MissingError(f"not a folder; expected {expected}", place=str(folder), cure="give --from a folder")


def locate(folder: Path, name: str) -> Path | None:
    """A metadata file of that name, also gzipped: in the folder, or where the data sets' own repositories put it."""
    places = [folder / under / file for under in _PLACES for file in (name, f"{name}.gz")]
    return next((path for path in places if path.is_file()), None)


def found_in(folder: Path) -> str:
    """A short account of what the folder holds, for messages about what it does not."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "the folder is empty"
    shown = ", ".join(names[:10])
    return f"found {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file (UTF-8, also gzipped); raises DataError where it is not text."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            return file.read().splitlines()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"not a UTF-8 text file ({error})", place=str(path), cure="fetch the file again") from error


def read_table(path: Path, needed: Iterable[str], delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a table with a header; raises DataError, naming the columns, where some are missing."""
    reader = csv.DictReader(read_lines(path), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    absent = [name for name in needed if name not in names]
    if absent:
        raise DataError(
            f"no column {', '.join(absent)}; the header has {', '.join(names) or 'nothing'}",
            place=f"{path}:1",
            cure="the first line must name the columns",
        )
    for row in reader:
        yield reader.line_num, {key: (value or "").strip() for key, value in row.items() if key is not None}


def refuse(faults: list[str], place: Path, cure: str) -> None:
    """Raises one DataError with all faults, if there are any (the first twenty in full)."""
    if not faults:
        return
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise DataError("\n  ".join([f"{count}:", *faults[:_SHOWN], *more]), place=str(place), cure=cure)


def repeated(values: Iterable[str]) -> list[str]:
    """The values that occur more than once, sorted."""
    seen: set[str] = set()
    again: set[str] = set()
    for value in values:
        (again if value in seen else seen).add(value)
    return sorted(again)


def _encodable(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
