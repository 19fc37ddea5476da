"""Tables of events on disk, as DCASE and the libraries for PSDS have them: truth, durations, detections.

Tab-separated, the first line naming the columns: `filename onset offset event_label` (and `score`), times in seconds;
`filename duration`. A row with a filename alone says that the clip has no events. Names of clips are read with and
without the suffix of an audio file: `a.wav` is clip `a`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from c2ftool.errors import DataError, MissingError
from c2ftool.events import merged
from c2ftool.files import write_atomically
from c2ftool.metrics.tables import Float64, Truth

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".aac")
_EVENTS = ("filename", "onset", "offset", "event_label")
_SHOWN = 20


@dataclass(frozen=True)
class TruthTable:
    """The events of a table, and what had to be decided about them.

    merged: events fewer than rows, since those of one class that overlap or touch are one. past_end: events that last
    beyond their clip, kept as they are. unlisted: clips that have a duration and no row, taken to be without events.
    """

    truth: Truth
    merged: int
    past_end: int
    unlisted: tuple[str, ...]

    def notes(self) -> list[str]:
        """A sentence on each decision that was made."""
        notes = []
        if self.merged:
            notes.append(f"{self.merged} events overlap or touch one of their class and are one with it")
        if self.past_end:
            notes.append(f"{self.past_end} events last beyond the end of their clip and are kept as they are")
        if self.unlisted:
            named = ", ".join(self.unlisted[:5]) + (", .." if len(self.unlisted) > 5 else "")
            notes.append(f"{len(self.unlisted)} clips have no row and are taken to be without events: {named}")
        return notes


def clip_id(filename: str) -> str:
    """The clip's name: the filename without the suffix of an audio file, if it has one. Other dots stay."""
    name, dot, suffix = filename.rpartition(".")
    return name if name and dot + suffix.lower() in AUDIO_SUFFIXES else filename


def read_durations(path: Path) -> dict[str, float]:
    """Seconds of each clip, in the table's order.

    Raises MissingError without the file, DataError with all faults: no number, not above 0, a clip named twice.
    """
    faults: list[str] = []
    durations: dict[str, float] = {}
    for line, (filename, text) in _rows(path, ("filename", "duration")):
        clip, seconds = clip_id(filename), _number(text)
        if not clip:
            faults.append(f"line {line}: no filename")
        elif clip in durations:
            faults.append(f"line {line}: clip {clip!r} a second time")
        elif not 0 < seconds < math.inf:
            faults.append(f"line {line}: the duration must be a number above 0, not {text!r}")
        durations.setdefault(clip, seconds)
    _refuse(faults, path, "mend the table: filename and duration in seconds, a line for each clip")
    return durations


def read_truth(path: Path, durations: Mapping[str, float], classes: Sequence[str] | None = None) -> TruthTable:
    """The true events of the clips that have a duration, sorted by clip, onset and class.

    classes: their names, in order; None takes those that occur, sorted. Events of one class that overlap or touch are
    made one; what lasts beyond a clip's end is kept; an event may have no length.

    Raises MissingError without the file, DataError with all faults: times that are no numbers, negative, or the wrong
    way round; unknown clips and classes; a row twice; a clip said to be silent that has events.
    """
    table = _read_events(path, tuple(durations), classes)
    order = sorted(set(table.names)) if classes is None else list(classes)
    number = {name: place for place, name in enumerate(order)}
    label = np.array([number[name] for name in table.names], np.int64)
    events = merged(np.array(table.clips, np.int64), label, np.array(table.onsets), np.array(table.offsets))
    truth = Truth(tuple(durations), tuple(order), np.array(list(durations.values())), *events)
    return TruthTable(
        truth,
        merged=len(label) - len(truth.clip),
        past_end=int((truth.offset > truth.durations[truth.clip]).sum()),
        unlisted=tuple(name for place, name in enumerate(durations) if place not in table.listed),
    )


def read_detections(path: Path, truth: Truth) -> tuple[Truth, Float64 | None]:
    """(detections of the truth's clips and classes, in the table's order, (E,) their scores if there is such a column).

    Nothing is merged. Faults are those of `read_truth`, and scores that are no finite numbers.
    """
    table = _read_events(path, truth.ids, truth.classes)
    number = {name: place for place, name in enumerate(truth.classes)}
    label = np.array([number[name] for name in table.names], np.int64)
    times = np.array(table.onsets), np.array(table.offsets)
    found = Truth(truth.ids, truth.classes, truth.durations, np.array(table.clips, np.int64), label, *times)
    return found, np.array(table.scores) if table.scores is not None else None


def write_events(
    path: Path, events: Truth, scores: ArrayLike | None = None, *, suffix: str = "", silent_clips: bool = False
) -> None:
    """Writes a table of events, whole or not at all, in the order they are in.

    scores: (E,) for a fifth column. suffix: put behind the clips' names. silent_clips: clips without events have a row
    of their own, as in a table of true events; tables of detections have none. Times are written so that they are read
    back exactly. Raises RunError where the file system refuses, ValueError for scores of another number.
    """
    columns: list[list[object]] = [
        [events.ids[clip] + suffix for clip in events.clip.tolist()],
        [*map(repr, events.onset.tolist())],
        [*map(repr, events.offset.tolist())],
        [events.classes[label] for label in events.label.tolist()],
    ]
    if scores is not None:
        columns.append([*map(repr, np.asarray(scores, np.float64).tolist())])
        if len(columns[-1]) != len(columns[0]):
            raise ValueError(f"{len(columns[-1])} scores for {len(columns[0])} events")
    names = [*_EVENTS, *(["score"] if scores is not None else [])]
    silent = sorted(set(range(len(events.ids))) - set(events.clip.tolist())) if silent_clips else []
    blank = [""] * (len(names) - 1)
    _write(path, [names, *map(list, zip(*columns, strict=True)), *([events.ids[n] + suffix, *blank] for n in silent)])


def write_durations(path: Path, events: Truth, *, suffix: str = "") -> None:
    """Writes the table of the clips' durations. Errors as for `write_events`."""
    rows = ([name + suffix, repr(d)] for name, d in zip(events.ids, events.durations.tolist(), strict=True))
    _write(path, [["filename", "duration"], *rows])


@dataclass
class _Events:
    """Rows of a table in its order. listed: the clips that have a row."""

    scores: list[float] | None
    clips: list[int] = field(default_factory=list)
    onsets: list[float] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    listed: set[int] = field(default_factory=set)


def _read_events(path: Path, ids: Sequence[str], classes: Sequence[str] | None) -> _Events:
    """The table's events; raises DataError with all its faults."""
    place = {name: number for number, name in enumerate(ids)}
    known = None if classes is None else frozenset(classes)
    scored = "score" in _header(path)
    table = _Events([] if scored else None)
    seen: dict[tuple[object, ...], int] = {}
    silent: dict[str, int] = {}
    active: set[str] = set()
    faults: list[str] = []
    for line, (filename, *fields) in _rows(path, (*_EVENTS, *(["score"] if scored else []))):
        clip = filename if filename in place else clip_id(filename)
        is_event = any(fields[:3])
        wrong = list(_event_faults(fields, known)) if is_event else []
        if clip not in place:
            wrong.append(f"no duration is known of clip {clip!r}" if clip else "no filename")
        onset, offset = _number(fields[0]), _number(fields[1])
        row = (clip, onset, offset, fields[2]) if is_event else (clip,)
        if row in seen:
            wrong.append(f"the same as line {seen[row]}")
        seen.setdefault(row, line)
        if is_event:
            active.add(clip)
        else:
            silent.setdefault(clip, line)
        faults += [f"line {line}: {fault}" for fault in wrong]
        if wrong:
            continue
        table.listed.add(place[clip])
        if is_event:
            table.clips.append(place[clip])
            table.onsets.append(onset)
            table.offsets.append(offset)
            table.names.append(fields[2])
            if table.scores is not None:
                table.scores.append(_number(fields[3]))
    for clip in sorted(active & silent.keys(), key=silent.__getitem__):
        faults.append(f"line {silent[clip]}: clip {clip!r} is said to have no events, and has some")
    _refuse(faults, path, "mend the table: the clips are those with a duration, times are in seconds")
    return table


def _event_faults(fields: Sequence[str], known: frozenset[str] | None) -> Iterator[str]:
    """What is wrong with an event's onset, offset, class and score, if it has one."""
    onset, offset, label, *score = fields
    start, stop = _number(onset), _number(offset)
    if not math.isfinite(start) or not math.isfinite(stop):
        yield f"onset {onset!r} and offset {offset!r} must be numbers"
    elif start < 0:
        yield f"onset {onset} is negative"
    elif stop < start:
        yield f"offset {offset} lies before onset {onset}"
    if not label:
        yield "times without a class"
    elif known is not None and label not in known:
        yield f"no class {label!r}"
    if score and not math.isfinite(_number(score[0])):
        yield f"score {score[0]!r} must be a finite number"


def _number(text: str) -> float:
    """The number, or NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _header(path: Path) -> list[str]:
    """The names of the columns; raises MissingError without the file, DataError where it is not text."""
    return next(_lines(path), (1, []))[1]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a tab-separated file, empty lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            yield from ((reader.line_num, [part.strip() for part in row]) for row in reader if row)
    except FileNotFoundError:
        raise MissingError("no such file", place=str(path), cure="give the table's path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"not a tab-separated UTF-8 table ({fault})", place=str(path), cure="save it as such") from None


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, the wanted columns) of each row, absent fields as empty; raises DataError without a column."""
    lines = _lines(path)
    names = next(lines, (1, []))[1]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise DataError(
            f"no column {', '.join(absent)}; the first line has {', '.join(names) or 'nothing'}",
            place=f"{path}:1",
            cure=f"the first line must name the columns {', '.join(wanted)}, separated by tabs",
        )
    columns = [names.index(name) for name in wanted]
    for line, row in lines:
        yield line, [row[column] if column < len(row) else "" for column in columns]


def _refuse(faults: list[str], path: Path, cure: str) -> None:
    """Raises one DataError with all faults, if there are any (the first twenty in full)."""
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError("\n  ".join([f"{count}:", *faults[:_SHOWN], *more]), place=str(path), cure=cure)


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue())
