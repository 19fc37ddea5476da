"""One's own table: columns `path`, `label` or `labels` (several by `;` or `,`), `split` or `fold`.

Further columns that are understood: `id` (else the path without its suffix), `start` and `stop` (seconds: the part of
the file). Paths are relative to the table. Every fault of the table is reported at once.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import ClipRef, Listing, found_in, read_lines, read_table, refuse, repeated
from c2ftool.errors import DataError, MissingError

_EXPECTED = "a CSV file with the columns path, label (or labels), and split or fold"


def find(source: Path) -> Listing:
    """The clips in the table's order. source: the table, or a folder that holds exactly one."""
    table = _table(source)
    header = (read_lines(table) or [""])[0]
    delimiter = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
    columns = {name.strip().strip('"') for name in header.split(delimiter)}
    label = "label" if "label" in columns else "labels"
    rows = list(read_table(table, ("path", label if label in columns else "label or labels"), delimiter))
    faults: list[str] = []
    parsed = [clip for line, row in rows if (clip := _clip(line, row, label, table.parent, faults)) is not None]
    faults += [f"clip {name} stands there more than once" for name in repeated(clip.id for clip, _ in parsed)]
    if not rows:
        faults.append("there are no rows under the header")
    refuse(faults, table, "mend the table; nothing was written")
    names = sorted({name for _, labels in parsed for name in labels})
    if names and all(name.isdecimal() for name in names):
        names.sort(key=int)
    numbers = {name: number for number, name in enumerate(names)}
    clips = [
        ClipRef(**{**vars(clip), "labels": tuple(sorted(numbers[name] for name in labels))}) for clip, labels in parsed
    ]
    splits = sorted({clip.split for clip in clips})
    notes = [] if "split" in columns else ["the table has no column split: all clips are in the split train"]
    if "train" not in splits:
        notes.append(f"no split is named train: the statistics are measured on {', '.join(splits)}")
    return Listing(
        layout="csv",
        folder=table.parent,
        clips=clips,
        classes=names,
        train_splits=("train",) if "train" in splits else tuple(splits),
        notes=notes,
        metadata_files=[table.name],
    )


def _table(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise MissingError(
            f"no such file or folder; expected {_EXPECTED}", place=str(source), cure="give --from a table"
        )
    tables = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    if not tables:
        raise MissingError(
            f"no table here: expected {_EXPECTED}; {found_in(source)}",
            place=str(source),
            cure="give --from the CSV file",
        )
    if len(tables) > 1:
        raise DataError(
            f"several tables: {', '.join(path.name for path in tables)}",
            place=str(source),
            cure="give --from one of them",
        )
    return tables[0]


def _clip(
    line: int, row: dict[str, str], label: str, folder: Path, faults: list[str]
) -> tuple[ClipRef, list[str]] | None:
    """The clip of one row with its class names, or None after noting what is wrong with the row."""
    found: list[str] = []
    path = row["path"]
    if not path:
        found.append("no path")
    elif not (folder / path).is_file():
        found.append(f"no such file: {path}")
    text = row[label]
    labels = [text] if label == "label" else [name.strip() for name in re.split(r"[;,]", text)]
    labels = sorted({name for name in labels if name})
    if label == "label" and not labels:
        found.append("no label")
    fold = row.get("fold", "")
    if "fold" in row and (not fold.isdecimal() or int(fold) < 1):
        found.append(f"fold {fold!r} is not a number from 1")
    split = row.get("split", "train")
    if not split:
        found.append("no split")
    start, stop = (_seconds(row.get(key, ""), key, found) for key in ("start", "stop"))
    if start is not None and stop is not None and stop <= start:
        found.append(f"stop {stop} is not after start {start}")
    faults += [f"line {line}: {fault}" for fault in found]
    if found:
        return None
    part = "" if start is None and stop is None else f"@{row.get('start', '')}-{row.get('stop', '')}"
    name = row.get("id") or PurePosixPath(path).with_suffix("").as_posix() + part
    return ClipRef(name, path, split, int(fold) if fold else 0, start=start, stop=stop), labels


def _seconds(text: str, key: str, faults: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        faults.append(f"{key} {text!r} is not a time in seconds")
        return None
    return value
