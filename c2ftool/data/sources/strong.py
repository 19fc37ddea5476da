"""Strong labels: the sound events of clips as tables list them. What the layouts with events have in common.

Times are seconds from the start of the clip. A time that is no number or lies before 0, and an event that ends before
it begins, are faults. Events of one class in one clip that overlap or touch become one event, and that is counted:
the definitions of detection metrics need it. Events of no length are kept and counted. How long a clip is, and so
whether an event lies past its end, is known once it is decoded (see `shard`).
"""

from __future__ import annotations

import csv
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from c2ftool.data.sources.listing import AUDIO_SUFFIXES, NOT_READ, Event, read_lines, stem
from c2ftool.errors import DataError

Key = tuple[str, str]
"""A clip: its split, and its name there."""


class EventTable:
    """Events and the clips they are in, in the order in which the clips were first named."""

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}
        self._clip, self._label = array("q"), array("q")
        self._onset, self._offset = array("d"), array("d")

    def name(self, clip: Key) -> int:
        """The number of a clip, which may be without events."""
        return self._numbers.setdefault(clip, len(self._numbers))

    def add(self, clip: Key, label: int, onset: float, offset: float) -> None:
        """Adds an event of a class to a clip."""
        self._clip.append(self.name(clip))
        self._label.append(label)
        self._onset.append(onset)
        self._offset.append(offset)

    def by_clip(self) -> dict[Key, tuple[Event, ...]]:
        """The events of each clip by onset, those of one class that overlap or touch made one."""
        events: list[list[Event]] = [[] for _ in self._numbers]
        clip, label, onset, offset = self._merged()
        for number, *event in zip(clip.tolist(), onset.tolist(), offset.tolist(), label.tolist(), strict=True):
            events[number].append(Event(*event))
        return {clip: tuple(of_clip) for clip, of_clip in zip(self._numbers, events, strict=True)}

    def notes(self) -> list[str]:
        """A sentence on what was merged, and one on events of no length."""
        _, _, onset, offset = self._merged()
        notes = []
        if gone := len(self._onset) - len(onset):
            notes.append(
                f"{gone} of {len(self._onset)} events were merged with another of their class in the same clip, "
                "which they overlap or touch"
            )
        if points := int((onset == offset).sum()):
            notes.append(f"{points} events have no length: they are kept (one frame each, none on a frame border)")
        return notes

    def _merged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        from c2ftool.events import merged  # with torch, which listing a set without events does without

        return merged(
            np.array(self._clip, np.int64),
            np.array(self._label, np.int64),
            np.array(self._onset, np.float64),
            np.array(self._offset, np.float64),
        )


def classes_of(events: Sequence[Event]) -> tuple[int, ...]:
    """The class numbers of a clip's events, ascending."""
    return tuple(sorted({event.label for event in events}))


def span(onset: str, offset: str, faults: list[str]) -> tuple[float, float]:
    """(onset, offset) in seconds of an event; what is wrong with them is added to the faults."""
    before = len(faults)
    start, end = (seconds(text, what, faults) for text, what in ((onset, "onset"), (offset, "offset")))
    if end < start and len(faults) == before:
        faults.append(f"offset {offset} is before onset {onset}")
    return start, end


def seconds(text: str, what: str, faults: list[str]) -> float:
    """The time that a text gives; what is wrong with it is added to the faults."""
    try:
        value = math.nan if "_" in text else float(text)  # float() reads 1_0 as 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        faults.append(f"{what} {text!r} is not a time in seconds")
    elif value < 0:
        faults.append(f"{what} {text} is before the start of the clip")
    return value + 0.0  # -0.0 is 0


def header(table: Path) -> list[str]:
    """The names of a table's columns."""
    return _heading(table, (read_lines(table) or [""])[0])[0]


def table_rows(
    table: Path, name: str, needed: Sequence[str], faults: list[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) of each line under a table's header: the needed columns, then the optional ones, stripped.

    Columns are separated by tabs, or by `;` or `,` where the header has no tab. Cells that a short line or the table
    lacks are empty. name: how the place calls the table. A line with more cells than the header, or with a quote that
    is not closed, is added to the faults. Raises DataError, naming the columns, where needed ones are missing.
    """
    lines = read_lines(table)
    columns, delimiter = _heading(table, (lines or [""])[0])
    if absent := [column for column in needed if column not in columns]:
        raise DataError(
            f"no column {', '.join(absent)}; the header has {', '.join(filter(None, columns)) or 'nothing'}",
            place=f"{table}:1",
            cure="the first line must name the columns",
        )
    width = len(columns)
    places = [columns.index(column) if column in columns else width for column in (*needed, *optional)]
    for number, line in enumerate(lines[1:], 2):
        place = f"{name}, line {number}"
        cells = _cells(line, delimiter)
        if cells is not None and not any(cells):
            continue
        if cells is None:
            faults.append(f"{place}: a quote is not closed: {line[:60]!r}")
        elif any(cells[width:]):
            faults.append(f"{place}: {len(cells)} cells where the header has {width}: {line[:60]!r}")
        else:
            cells = [*cells[:width], *[""] * (width + 1 - len(cells))]
            yield place, [cells[column] for column in places]


def bare(filename: str) -> str:
    """A file name of a table without the suffix of an audio file (or of the `.jams` file it was made from)."""
    path = PurePosixPath(filename)
    known = path.suffix.lower() in (*AUDIO_SUFFIXES, *NOT_READ, ".jams")  # Y0123_30.000_40.000 has none
    return (path.with_suffix("") if known else path).as_posix()


def audio_in(folder: Path) -> dict[str, str]:
    """The audio files that lie in a folder itself, by name without suffix; of two, the first by name."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder) if folder.is_dir() else ()):  # noqa: PTH208 (names, of which there are many)
        if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
            found.setdefault(stem(name), name)
    return found


def _heading(table: Path, line: str) -> tuple[list[str], str]:
    """(names of the columns, what separates them) of a table's first line."""
    delimiter = "\t" if "\t" in line else ";" if ";" in line and "," not in line else ","
    columns = _cells(line, delimiter) or []
    twice = {column for column in columns if column and columns.count(column) > 1}
    if twice:
        raise DataError(
            f"column {', '.join(sorted(twice))} more than once", place=f"{table}:1", cure="each column needs its name"
        )
    return columns, delimiter


def _cells(line: str, delimiter: str) -> list[str] | None:
    """The cells of a line, stripped; None where a quote is not closed."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error:
        return None
    return [cell.strip() for cell in cells]
