"""VGGSound (Chen et al., ICASSP 2020): clips of about 10 s with one of 309 labels.

Lists (in the folder, or in `data/`, `meta/`, `metadata/`, `csv/`; each also as `.gz`): `vggsound.csv` without a header
(`ID, start in seconds, label, train or test`), or those of the authors' repository, `train.csv` and `test.csv`
(`ID_START.mp4, label`), of which one will do. Audio at any depth, named `ID_START.wav` (or flac, ogg, mp3) with the
start in six digits; where a clip is found more than once, a file in a folder named after its split wins. Classes are
the sorted labels of the lists, whether or not their clips are there. Clips that are gone are counted.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

from c2ftool.data.sources.listing import (
    Listing,
    audio_files,
    found_in,
    locate,
    read_lines,
    refuse,
    require_folder,
    stem,
)
from c2ftool.data.sources.named import Named, gather, none_found, repeats
from c2ftool.errors import MissingError

CLASSES = 309
_SPLITS = {"train": ("train",), "test": ("test",)}
_LIST = "vggsound.csv"
# A copy of vggsound.csv with 199,467 lines has this 310th label, which the authors' class list (199,176 clips) and test
# list lack. As a class it would change the numbers of all after it, and the size of the head.
_NO_CLASS = "extending ladders"
_EXPECTED = (
    f"{_LIST} (ID, start in seconds, label, train or test; no header), or train.csv and test.csv "
    "(ID_START.mp4, label), and audio files ID_START.wav with the start in six digits"
)


def find(folder: Path) -> Listing:
    """The clips by split (train, test), in the order of the lists; classes are the sorted labels."""
    require_folder(folder, _EXPECTED)
    tables, notes = _tables(folder)
    names = " and ".join(table.name for table in tables)
    faults: list[str] = []
    every = [row for table, split in tables.items() for row in _rows(table, split, faults)]
    rows = [row for row in every if row.label != _NO_CLASS]
    if not rows and not faults:
        faults.append(f"{names}: there are no clips")
    refuse(faults + repeats(rows), folder, "mend the lines, or fetch the lists again")
    if left := len(every) - len(rows):
        notes.append(f"{left} clips labelled `{_NO_CLASS}` were left out: it is none of the {CLASSES} classes")

    files = audio_files(folder)
    found: dict[str, list[str]] = defaultdict(list)
    for path in files.paths:
        found[stem(path)].append(path)
    gathered = gather(rows, found, _SPLITS)
    if gathered is None:
        raise none_found(folder, len(rows), names, files, _EXPECTED)
    if len(gathered.classes) != CLASSES:
        notes.append(f"{names}: {len(gathered.classes)} labels; VGGSound has {CLASSES}")
    splits_of = Counter(video for video, _ in {(row.id[:11], row.split) for row in rows})
    if both := sum(count > 1 for count in splits_of.values()):
        notes.append(f"{both} videos have clips in train and in test, as the lists say")
    return gathered.listing("vggsound", folder, tables, notes + files.notes() + gathered.notes)


def _tables(folder: Path) -> tuple[dict[Path, str | None], list[str]]:
    """The lists to read, each with the split that its name says (None: its lines say it), and notes."""
    whole = locate(folder, _LIST)
    parts: dict[Path, str | None] = {path: split for split in _SPLITS if (path := locate(folder, f"{split}.csv"))}
    if whole is not None:
        ignored = " and ".join(path.name for path in parts)
        return {whole: None}, [f"{ignored} not read: {whole.name} names both splits"] if ignored else []
    if not parts:
        raise MissingError(
            f"not in the layout of VGGSound: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {_LIST}, or train.csv and test.csv",
        )
    return parts, [f"{split}.csv is not there" for split in _SPLITS if split not in parts.values()]


def _rows(table: Path, split: str | None, faults: list[str]) -> list[Named]:
    """The clips of one list; what is wrong with other lines is added to the faults."""
    form = "ID, start in seconds, label, train or test" if split is None else "ID_START.mp4, label"
    rows: list[Named] = []
    for line, text in enumerate(read_lines(table), 1):
        if not text.strip() or text.startswith("#"):
            continue
        place = f"{table.name}, line {line}"
        fields = [field.strip() for field in next(csv.reader([text], skipinitialspace=True))]
        row = _whole(fields, place) if split is None else _part(fields, split, place)
        if row is None:
            faults.append(f"{place}: expected `{form}`, not {text[:60]!r}")
        else:
            rows.append(row)
    return rows


def _whole(fields: list[str], place: str) -> Named | None:
    if len(fields) != 4 or not fields[2] or fields[3] not in _SPLITS:
        return None
    if re.fullmatch(r"[\w-]{11}", fields[0]) is None or re.fullmatch(r"[0-9]{1,6}", fields[1]) is None:
        return None
    return Named(f"{fields[0]}_{int(fields[1]):06d}", fields[2], fields[3], place)


def _part(fields: list[str], split: str, place: str) -> Named | None:
    match = re.fullmatch(r"([\w-]{11}_[0-9]{6})\.\w+", fields[0])
    return Named(match.group(1), fields[1], split, place) if match and len(fields) == 2 and fields[1] else None
