"""AudioSet with strong labels (Hershey et al., ICASSP 2021): the events of clips of AudioSet, with their times.

Tables (in the folder, or in `meta/`, `metadata/`, `csv/`, `data/` or `annotations/`; each also as `.gz`):
`mid_to_display_name.tsv` (no header: mid, name) and one or both of `audioset_train_strong.tsv` and
`audioset_eval_strong.tsv` (segment_id, start_time_seconds, end_time_seconds, label; a segment id is `ID_STARTMS`, a
label a mid). Audio as in the layout `audioset`; a file in a folder of its split (`train`, `eval`) is preferred.

Classes are all names of `mid_to_display_name.tsv`, sorted: 456, of which 447 occur in the table for training and 416
in that for evaluation; `sources.named` in `c2f.json` holds the class numbers that each table names, whether or not the
clips are there. A clip's id is `Y` and its YouTube id, as in published files of scores, logits and durations.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.audioset import file_id
from c2ftool.data.sources.listing import (
    ClipRef,
    Listing,
    audio_files,
    found_in,
    locate,
    read_lines,
    refuse,
    repeated,
    require_folder,
)
from c2ftool.data.sources.named import none_found
from c2ftool.data.sources.strong import EventTable, Key, classes_of, span, table_rows
from c2ftool.errors import MissingError

CLASSES = 456
_TABLES = {"train": "audioset_train_strong.tsv", "eval": "audioset_eval_strong.tsv"}
_COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
_NAMES = "mid_to_display_name.tsv"
_SEGMENT = re.compile(r"([\w-]{11})_([0-9]+)")
_WEAK = ("balanced_train_segments.csv", "unbalanced_train_segments.csv", "eval_segments.csv")
_EXPECTED = (
    f"{_NAMES}, one or both of {' and '.join(_TABLES.values())} (columns {', '.join(_COLUMNS)}), "
    "and audio files YID.wav, ID.wav or ID_STARTMS.flac"
)


def find(folder: Path) -> Listing:
    """The clips by split (train, eval), in the order of the tables."""
    require_folder(folder, _EXPECTED)
    names = locate(folder, _NAMES)
    tables = {split: path for split, name in _TABLES.items() if (path := locate(folder, name))}
    if names is None or not tables:
        raise MissingError(
            f"not in the layout of AudioSet Strong: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {_NAMES if names is None else 'the tables of events'}",
        )
    faults: list[str] = []
    numbers, classes = _classes(names, faults)
    refuse(faults, names, "fetch the table again")
    events = EventTable()
    named = {split: sorted(_read(table, split, numbers, events, faults)) for split, table in tables.items()}
    refuse(faults, folder, "mend the lines, or fetch the tables again")

    of_clip = events.by_clip()
    ids, notes = _ids(list(of_clip))
    notes += events.notes()
    files = audio_files(folder)
    found: dict[str, list[tuple[int | None, str]]] = defaultdict(list)
    for file in files.paths:
        if (parsed := file_id(file)) is not None:
            found[parsed[0]].append((parsed[1], file))
    clips: list[ClipRef] = []
    missing: list[tuple[str, str]] = []
    several = 0
    for (split, segment), happened in of_clip.items():
        name = ids[split, segment]
        paths = _fitting(found.get(segment[:11], []), segment, alone=name == f"Y{segment[:11]}")
        if not paths:
            missing.append((split, name))
            continue
        several += len(paths) > 1
        _, file = min((not _within(file, split), file) for file in paths)
        clips.append(ClipRef(id=name, path=file, split=split, labels=classes_of(happened), events=happened))
    if not clips:
        raise none_found(folder, len(missing), " and ".join(table.name for table in tables.values()), files, _EXPECTED)
    if several:
        notes.append(f"{several} clips have several audio files: one in a folder named after the split was preferred")
    notes += _remarks(folder, names, classes, tables, clips)
    return Listing(
        layout="audioset_strong",
        folder=folder,
        clips=clips,
        classes=classes,
        train_splits=(clips[0].split,),
        missing=missing,
        notes=notes + files.notes(),
        metadata_files=[path.relative_to(folder).as_posix() for path in (names, *tables.values())],
        extra={"named": named, "labels": {clip.split: "strong" for clip in clips}},
    )


def _classes(path: Path, faults: list[str]) -> tuple[dict[str, int], list[str]]:
    """Class number by mid, and the names, sorted."""
    mids: dict[str, str] = {}
    for line, text in enumerate(read_lines(path), 1):
        mid, _, name = (part.strip() for part in text.partition("\t"))
        if not text.strip() or (line == 1 and mid == "mid"):
            continue
        if not mid.startswith("/") or not name:
            faults.append(f"line {line}: expected `mid<tab>name`, not {text[:60]!r}")
        elif mid in mids:
            faults.append(f"line {line}: {mid} stands there more than once")
        else:
            mids[mid] = name
    faults += [f"several mids have the name {name!r}" for name in repeated(mids.values())]
    if not mids and not faults:
        faults.append("there are no lines")
    classes = sorted(mids.values())
    numbers = {name: number for number, name in enumerate(classes)}
    return {mid: numbers[name] for mid, name in mids.items()}, classes


def _read(table: Path, split: str, numbers: dict[str, int], events: EventTable, faults: list[str]) -> set[int]:
    """The class numbers that a table names, after adding its events."""
    named: set[int] = set()
    rows = 0
    for place, (segment, start, end, mid) in table_rows(table, table.name, _COLUMNS, faults):
        rows += 1
        wrong: list[str] = []
        if _SEGMENT.fullmatch(segment) is None:
            wrong.append(f"segment id {segment!r} is not ID_STARTMS")
        onset, offset = span(start, end, wrong)
        label = numbers.get(mid)
        if label is None:
            wrong.append(f"label {mid!r} is not in {_NAMES}")
        elif not wrong:
            named.add(label)
            events.add((split, segment), label, onset, offset)
        faults += [f"{place}: {fault}" for fault in wrong]
    if not rows and not faults:
        faults.append(f"{table.name}: there are no rows under the header")
    return named


def _ids(clips: list[Key]) -> tuple[dict[Key, str], list[str]]:
    """The id of each clip (split, segment): of a video with several, all after the first have their start in it."""
    ids: dict[Key, str] = {}
    seen: set[str] = set()
    later: list[str] = []
    for split, segment in clips:
        name = f"Y{segment[:11]}"
        if name in seen:
            name = f"Y{segment}" if f"Y{segment}" not in seen else f"Y{segment}_{split}"
            later.append(name)
        seen.add(name)
        ids[split, segment] = name
    if not later:
        return ids, []
    return ids, [
        f"{len(later)} clips are of a video that the tables name before: their ids have the start in them, as "
        f"{later[0]}, and they take only files that have it in their name"
    ]


def _fitting(candidates: list[tuple[int | None, str]], segment: str, alone: bool) -> list[str]:
    """The files of a segment. alone: files whose name has no start are its own."""
    start = int(segment[12:])
    return [path for at, path in candidates if (alone if at is None else at == start)]


def _within(path: str, split: str) -> bool:
    return any(split in part for part in PurePosixPath(path.lower()).parts[:-1])


def _remarks(folder: Path, names: Path, classes: list[str], tables: dict[str, Path], clips: list[ClipRef]) -> list[str]:
    """What is unusual about the metadata, or not read of it."""
    notes = []
    if len(classes) != CLASSES:
        notes.append(f"{names.name}: {len(classes)} classes; AudioSet Strong has {CLASSES}")
    notes += [
        f"{name} is not there: there is no split {split}" for split, name in _TABLES.items() if split not in tables
    ]
    here = {clip.split for clip in clips}
    notes += [
        f"none of the clips of {table.name} was found: there is no split {split}"
        for split, table in tables.items()
        if split not in here
    ]
    if weak := [path.name for name in _WEAK if (path := locate(folder, name))]:
        notes.append(f"{', '.join(weak)} not read: clips and labels are those of the tables of events")
    return notes
