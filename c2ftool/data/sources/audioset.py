"""AudioSet (Gemmeke et al., ICASSP 2017) with clip labels: the three segment lists and audio as users have it.

Metadata (in the folder, or in `meta/`, `metadata/`, `csv/` or `data/`; each also as `.gz`):
`class_labels_indices.csv` and any of `balanced_train_segments.csv`, `unbalanced_train_segments.csv`,
`eval_segments.csv`. Audio at any depth, named `ID.wav`, `YID.wav` or `ID_STARTMS.flac` (wav, flac, ogg or mp3); an ID
has 11 characters and may start with `-` or `_`. Where an id is found more than once, a file in a folder named after its
split wins. Clips that are gone are counted.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import (
    ClipRef,
    Listing,
    audio_files,
    found_in,
    locate,
    read_lines,
    read_table,
    refuse,
    repeated,
    require_folder,
)
from c2ftool.errors import MissingError

_TABLES = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
_INDEX = "class_labels_indices.csv"
_EXPECTED = f"{_INDEX}, any of {', '.join(_TABLES.values())}, and audio files YID.wav, ID.wav or ID_STARTMS.flac"
_ID = 11


def find(folder: Path) -> Listing:
    """The clips by split (balanced, unbalanced, eval), in the order of the lists."""
    require_folder(folder, _EXPECTED)
    index = locate(folder, _INDEX)
    tables = {split: path for split, name in _TABLES.items() if (path := locate(folder, name))}
    if index is None or not tables:
        raise MissingError(
            f"not in the layout of AudioSet: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {_INDEX if index is None else 'the segment lists'}",
        )
    mids, classes = _classes(index)
    files = audio_files(folder)
    found = _by_id(files.paths)
    notes = files.notes()
    clips: list[ClipRef] = []
    missing: list[tuple[str, str]] = []
    for split, table in tables.items():
        here = 0
        for name, start, labels in _segments(table, mids):
            file = _choose(found.get(name, []), split, start)
            if file is None:
                missing.append((split, name))
            else:
                clips.append(ClipRef(id=name, path=file, split=split, labels=labels))
                here += 1
        if not here:
            notes.append(f"none of the clips of {table.name} was found: there is no split {split}")
    if not clips:
        raise MissingError(
            f"none of the {len(missing)} clips of the segment lists was found among {len(files.paths)} audio files",
            place=str(folder),
            cure=f"expected {_EXPECTED}",
        )
    refuse(
        [f"clip {name} stands in the lists more than once" for name in repeated(clip.id for clip in clips)],
        folder,
        "each clip belongs to one list",
    )
    if double := sum(len(paths) > 1 for paths in found.values()):
        notes.append(f"{double} ids have several audio files; one in a folder named after the split was preferred")
    trained = tuple(split for split in ("balanced", "unbalanced") if any(clip.split == split for clip in clips))
    return Listing(
        layout="audioset",
        folder=folder,
        clips=clips,
        classes=classes,
        train_splits=trained or ("eval",),
        missing=missing,
        notes=notes,
        metadata_files=[path.relative_to(folder).as_posix() for path in (index, *tables.values())],
    )


def file_id(path: str) -> tuple[str, int | None] | None:
    """(id, start in ms if the name has it) of an audio file's path, or None where the name is no AudioSet clip."""
    name = PurePosixPath(path).stem
    if len(name) == _ID:
        return name, None
    if len(name) == _ID + 1 and name.startswith("Y"):
        return name[1:], None
    match = re.fullmatch(r"(Y?)(.{11})_(\d+)", name)
    return (match.group(2), int(match.group(3))) if match else None


def _classes(path: Path) -> tuple[dict[str, int], list[str]]:
    """Class number by mid, and display names in the order of the index."""
    rows = list(read_table(path, ("index", "mid", "display_name")))
    faults = [
        f"line {line}: index {row['index']!r} where {number} was expected"
        for number, (line, row) in enumerate(rows)
        if row["index"] != str(number)
    ]
    refuse(faults, path, "the rows must be numbered from 0")
    return {row["mid"]: number for number, (_, row) in enumerate(rows)}, [row["display_name"] for _, row in rows]


def _by_id(paths: list[str]) -> dict[str, list[tuple[int | None, str]]]:
    found: dict[str, list[tuple[int | None, str]]] = defaultdict(list)
    for path in paths:
        if (named := file_id(path)) is not None:
            found[named[0]].append((named[1], path))
    return found


def _segments(path: Path, mids: dict[str, int]) -> list[tuple[str, float, tuple[int, ...]]]:
    """(id, start in seconds, class numbers) of each row of a segment list."""
    faults: list[str] = []
    rows: list[tuple[str, float, tuple[int, ...]]] = []
    for line, text in enumerate(read_lines(path), 1):
        if not text.strip() or text.startswith("#"):
            continue
        fields = next(csv.reader([text], skipinitialspace=True))
        if len(fields) != 4 or len(fields[0]) != _ID:
            faults.append(f'line {line}: expected `ID, start, end, "mid,mid"`, not {text[:60]!r}')
            continue
        names = fields[3].split(",")
        unknown = [name for name in names if name not in mids]
        if unknown:
            faults.append(f"line {line}: labels {', '.join(unknown)} are not in {_INDEX}")
            continue
        try:
            start = float(fields[1])
        except ValueError:
            faults.append(f"line {line}: start {fields[1]!r} is not a time in seconds")
            continue
        rows.append((fields[0], start, tuple(sorted({mids[name] for name in names}))))
    refuse(faults, path, "fetch the list again")
    return rows


def _choose(candidates: list[tuple[int | None, str]], split: str, start: float) -> str | None:
    """The file of a segment: its start must agree where the name has one; a folder named after the split wins."""
    fitting = [path for at, path in candidates if at is None or at == round(start * 1000)]
    return min(fitting, key=lambda path: (not _in_split(path, split), path), default=None)


def _in_split(path: str, split: str) -> bool:
    folders = PurePosixPath(path).parent.as_posix().lower()
    if split == "balanced":
        folders = folders.replace("unbalanced", "")
    return split in folders
