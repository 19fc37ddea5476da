"""Kinetics-Sounds (Arandjelovic and Zisserman, ICCV 2017): the classes of Kinetics-400 that can be heard.

There is no official list of clips: it is cut from the tables of Kinetics, and lists of 31 to 34 classes are in use. The
classes are therefore the sorted labels of the tables that are here, and they are stored with the set. Tables (in the
folder, or in `annotations/`, `data/`, `meta/`, `metadata/`, `csv/`; each also as `.gz`) have the columns `label`,
`youtube_id`, `time_start`, `time_end`, `split`: one `kinetics_sounds.csv`, or `train.csv`, `val.csv` and `test.csv`,
whose names say the split where the column does not. Audio at any depth: `ID_START_END.wav` (or flac, ogg, mp3; six
digits each, as the public videos are named), or `ID.wav`. Clips that are gone are counted.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from c2ftool.data.sources.listing import (
    Listing,
    audio_files,
    found_in,
    locate,
    read_table,
    refuse,
    require_folder,
    stem,
)
from c2ftool.data.sources.named import Named, gather, none_found, repeats
from c2ftool.errors import MissingError

# each split under the names that tables and folders of Kinetics give it
_SPLITS = {"train": ("train",), "valid": ("val", "valid", "validate", "validation"), "test": ("test",)}
_SPLIT = {name: split for split, names in _SPLITS.items() for name in names}
_LIST = "kinetics_sounds.csv"
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_ID = 11
_EXPECTED = (
    f"{_LIST}, or train.csv, val.csv and test.csv (columns {', '.join(_COLUMNS)}, split), "
    "and audio files ID_START_END.wav with times in six digits, or ID.wav"
)


def find(folder: Path) -> Listing:
    """The clips by split (train, valid, test), in the order of the tables; classes are the sorted labels."""
    require_folder(folder, _EXPECTED)
    tables, notes = _tables(folder)
    names = ", ".join(table.name for table in tables)
    faults: list[str] = []
    rows = [row for table, split in tables.items() for row in _rows(table, split, faults)]
    if not rows and not faults:
        faults.append(f"{names}: there are no rows under the header")
    files = audio_files(folder)
    stems: dict[str, list[str]] = defaultdict(list)
    for path in files.paths:
        stems[stem(path)].append(path)
    faults += repeats(rows) + _ambiguous(rows, stems)
    refuse(faults, folder, "mend the rows, or the names of the files")

    found = {row.id: stems.get(row.id) or stems.get(row.id[:_ID], []) for row in rows}
    gathered = gather(rows, found, _SPLITS)
    if gathered is None:
        raise none_found(folder, len(rows), names, files, _EXPECTED)
    notes.append(f"{len(gathered.classes)} classes, as {names} has them; the lists in use have 31 to 34")
    if whole := sum(clip.id not in stems for clip in gathered.clips):
        notes.append(f"{whole} files are named by the video alone and taken as they are: nothing is cut out of them")
    return gathered.listing("kinetics_sounds", folder, tables, notes + files.notes() + gathered.notes)


def _tables(folder: Path) -> tuple[dict[Path, str | None], list[str]]:
    """The tables to read, each with the split that its name says (None: its column says it), and notes."""
    whole = locate(folder, _LIST)
    parts: dict[Path, str | None] = {
        path: split for name, split in _SPLIT.items() if (path := locate(folder, f"{name}.csv"))
    }
    if whole is not None:
        ignored = ", ".join(path.name for path in parts)
        return {whole: None}, [f"{ignored} not read: {whole.name} is there"] if ignored else []
    if not parts:
        raise MissingError(
            f"not in the layout of Kinetics-Sounds: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {_LIST}, the rows of your classes in the tables of Kinetics-400",
        )
    return parts, []


def _rows(table: Path, split: str | None, faults: list[str]) -> list[Named]:
    """The clips of one table; what is wrong with other rows is added to the faults."""
    rows: list[Named] = []
    for line, cells in read_table(table, _COLUMNS if split else (*_COLUMNS, "split")):
        place = f"{table.name}, line {line}"
        wrong: list[str] = []
        video, label = cells["youtube_id"], cells["label"]
        if re.fullmatch(rf"[\w-]{{{_ID}}}", video) is None:
            wrong.append(f"youtube_id {video!r} is not {_ID} letters, digits, - and _")
        if not label:
            wrong.append("no label")
        start, end = (_seconds(cells[key], key, wrong) for key in ("time_start", "time_end"))
        if end <= start and not wrong:
            wrong.append(f"time_end {end} is not after time_start {start}")
        said = cells.get("split", "") or split or ""
        meant = _SPLIT.get(said.lower(), "")
        if not meant:
            wrong.append(f"split {said!r} is none of {', '.join(_SPLIT)}")
        elif split and meant != split:
            wrong.append(f"split {said!r} in {table.name}")
        faults += [f"{place}: {fault}" for fault in wrong]
        if not wrong:
            rows.append(Named(f"{video}_{start:06d}_{end:06d}", label, meant, place))
    return rows


def _seconds(text: str, key: str, faults: list[str]) -> int:
    if re.fullmatch(r"[0-9]{1,6}(\.0*)?", text) is None:
        faults.append(f"{key} {text!r} is not a time in whole seconds")
        return 0
    return int(text.split(".", 1)[0])


def _ambiguous(rows: list[Named], stems: dict[str, list[str]]) -> list[str]:
    """A fault for each file `ID.wav` that could be any of several clips of its video."""
    clips = {row.id for row in rows}
    several = Counter(name[:_ID] for name in clips)
    unsure = {name[:_ID] for name in clips if name not in stems and several[name[:_ID]] > 1} & stems.keys()
    return [
        f"{stems[video][0]} could be any of {several[video]} clips of that video: name it ID_START_END"
        for video in sorted(unsure)
    ]
