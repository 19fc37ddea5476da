"""One's own strong labels: tables of events (`filename`, `onset`, `offset`, `event_label`), one row for each event.

Times are in seconds. A row with a filename alone is a clip without events. Further columns that are understood:
`split` and `fold` (the same in all rows of a clip). A table with the column `event_labels` in place of the last three
has weak labels: one row for each clip, classes separated by commas. A table may have the columns of both kinds; within
a split all clips are of one kind. Columns are separated by tabs, `;` or `,`.

One table, or a folder with one: the column `split` says the splits; without it all clips are in train. A folder with
several tables (in it, or in its `metadata/` or `meta/`): each is a split and has its name, as train.tsv and valid.tsv.
Audio is looked for at `filename` in the table's folder (of tables in metadata/: in the folder above), and then in
`audio/SPLIT/`, `SPLIT/` and `audio/` there; a suffix may be missing in the table, or be that of another format. A
clip's id is its filename without suffix, with `SPLIT/` in front where two splits have files of one name. Classes are
the sorted labels, or the lines of `classes.txt` beside the tables.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import (
    AUDIO_SUFFIXES,
    NOT_READ,
    ClipRef,
    Listing,
    found_in,
    read_lines,
    refuse,
    repeated,
)
from c2ftool.data.sources.strong import EventTable, Key, bare, classes_of, header, span, table_rows
from c2ftool.errors import DataError, MissingError

_SUFFIXES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
_STRONG = ("onset", "offset", "event_label")
_WEAK = "event_labels"
_CLASSES = "classes.txt"
_EXPECTED = (
    f"a table with the columns filename, {', '.join(_STRONG)} (or filename, {_WEAK}), or a folder of such tables"
)


@dataclass
class _Clip:
    """A clip as the tables have it: where it is first named, its file and fold, and its labels or events.

    weak: None where its events are known.
    """

    place: str
    path: str
    fold: int
    weak: list[str] | None
    events: list[tuple[str, float, float]] = field(default_factory=list)


def find(source: Path) -> Listing:
    """The clips by split, training first, in the order in which the tables first name them.

    source: a table, or a folder of tables.
    """
    tables, notes = _tables(source)
    inner = tables[0].parent
    base = inner.parent if inner.name in ("metadata", "meta") else inner
    clips: dict[Key, _Clip] = {}
    first: dict[str, str] = {}
    faults: list[str] = []
    for table in tables:
        _read(table, _stem(table) if len(tables) > 1 else "", base, clips, first, faults)
    known = next((path for path in (inner / _CLASSES, base / _CLASSES) if path.is_file()), None)
    classes = _sorted(list(first)) if known is None else _listed(known, first, faults)
    faults += _shared(clips) + _mixed(clips)
    if not first and not faults:
        faults.append("no row has an event or a label" if clips else "there are no rows under the header")
    refuse(
        faults,
        source,
        "mend the table; nothing was written. Audio is looked for at `filename` in the table's folder, and in "
        "audio/SPLIT/, SPLIT/ and audio/ there",
    )

    splits = list(dict.fromkeys(split for split, _ in clips))
    refs, more = _refs(clips, {name: number for number, name in enumerate(classes)})
    trained = [split for split in splits if split == "train"] or [split for split in splits if "train" in split]
    splits.sort(key=lambda split: split not in trained)
    notes += more
    if len(tables) == 1 and "split" not in header(tables[0]):
        notes.append("the table has no column split: all clips are in the split train")
    if trained != ["train"]:
        notes.append(f"no split is named train: the statistics are measured on {', '.join(trained or splits)}")
    files = [*tables, *([known] if known else [])]
    return Listing(
        layout="events",
        folder=base,
        clips=sorted(refs, key=lambda clip: splits.index(clip.split)),
        classes=classes,
        train_splits=tuple(trained or splits),
        notes=notes,
        metadata_files=[path.relative_to(base).as_posix() for path in files],
        extra={"labels": {split: "strong" if clip.weak is None else "weak" for (split, _), clip in clips.items()}},
    )


def _tables(source: Path) -> tuple[list[Path], list[str]]:
    """The tables, by name, and a note on those beside them that hold no events."""
    if source.is_file():
        return [source], []
    if not source.is_dir():
        raise MissingError(
            f"no such file or folder; expected {_EXPECTED}", place=str(source), cure="give --from a table"
        )
    for folder in (source, source / "metadata", source / "meta"):
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        every = [path for path in found if path.name.endswith(_SUFFIXES) and path.name[0] != "." and path.is_file()]
        tables = [path for path in every if len(every) == 1 or {*_STRONG, _WEAK} & set(header(path))]
        if not tables:
            continue
        if again := repeated(_stem(path) for path in tables):
            raise DataError(
                f"several tables are named {again[0]}", place=str(folder), cure="keep one of them: a table is a split"
            )
        others = [path.name for path in every if path not in tables]
        return tables, [f"not read: {', '.join(others)} (none of the columns of events)"] if others else []
    raise MissingError(
        f"no table of events here: expected {_EXPECTED}; {found_in(source)}",
        place=str(source),
        cure="give --from the table",
    )


def _stem(table: Path) -> str:
    suffix = next((suffix for suffix in reversed(_SUFFIXES) if table.name.endswith(suffix)), "")
    return table.name.removesuffix(suffix)


def _read(
    table: Path, split: str, base: Path, clips: dict[Key, _Clip], first: dict[str, str], faults: list[str]
) -> None:
    """Adds the clips of a table, and each class with the place where it is first named.

    split: the table's; empty where its column says it.
    """
    columns = header(table)
    weak = _WEAK in columns
    strong = not weak or any(column in columns for column in _STRONG)
    needed = ["filename", *(_STRONG if strong else ()), *([_WEAK] if weak else ())]
    if split and "split" in columns:
        raise DataError(
            f"a column split, where each of several tables is the split of its name ({split})",
            place=f"{table}:1",
            cure="give --from this table alone, or take the column out",
        )
    own = [column for column in ("split", "fold") if column in columns]
    for place, cells in table_rows(table, table.name, [*needed, *own], faults):
        row = {"split": split or "train", **dict(zip((*needed, *own), cells, strict=True))}
        wrong = [f"no {column}" for column in ("filename", "split") if not row[column]]
        happened = any(row.get(column) for column in _STRONG)
        labels = list(filter(None, (label.strip() for label in row.get(_WEAK, "").split(","))))
        if happened and labels:
            wrong.append("an event and event_labels in one row")
        clip = None if wrong else _clip(row, labels if labels or not strong else None, place, base, clips, wrong)
        if happened:
            start, end = span(row["onset"], row["offset"], wrong)
            labels = [label for label in (row["event_label"],) if label]
            if not labels:
                wrong.append("no event_label")
            elif clip is not None and not wrong:
                clip.events.append((labels[0], start, end))
        faults += [f"{place}: {fault}" for fault in wrong]
        for label in labels:
            first.setdefault(label, place)


def _clip(
    row: dict[str, str], weak: list[str] | None, place: str, base: Path, clips: dict[Key, _Clip], wrong: list[str]
) -> _Clip:
    """The clip of a row, made where it is the first; what is wrong with it is added to the faults.

    weak: the row's labels; None of a row with an event, or without any.
    """
    path, fold = PurePosixPath(row["filename"]), row.get("fold")
    if fold is not None and not (fold.isascii() and fold.isdecimal() and int(fold)):
        wrong.append(f"fold {fold!r} is not a number from 1")
        fold = None
    key = row["split"], bare(path.as_posix())
    if (clip := clips.get(key)) is None:
        where = _locate(base, path, row["split"])
        if where is None:
            wrong.append(f"no such file: {row['filename']}")
        return clips.setdefault(key, _Clip(place, where or "", int(fold or 0), weak))
    if fold is not None and int(fold) != clip.fold:
        wrong.append(f"fold {fold}, and {clip.fold} in {clip.place}")
    if weak is not None and clip.weak is not None:
        wrong.append(f"the clip stands already in {clip.place}")
    elif weak is not None or clip.weak is not None:
        wrong.append(f"the clip has weak labels, and events ({clip.place})")
    return clip


def _locate(base: Path, name: PurePosixPath, split: str) -> str | None:
    """The path of a clip's file, or None where it is not there."""
    known = name.suffix.lower() in (*AUDIO_SUFFIXES, *NOT_READ, ".jams")
    names = [name.as_posix(), *(bare(name.as_posix()) + suffix for suffix in AUDIO_SUFFIXES)]
    for candidate in names if known else names[1:]:
        for place in ("", f"audio/{split}", split, "audio"):
            path = PurePosixPath(place, candidate)
            if os.path.isfile(base / path) and path.suffix.lower() in AUDIO_SUFFIXES:  # noqa: PTH113 (never raises)
                return path.as_posix()
    return None


def _sorted(labels: list[str]) -> list[str]:
    return sorted(labels, key=int) if all(label.isascii() and label.isdecimal() for label in labels) else sorted(labels)


def _listed(known: Path, first: dict[str, str], faults: list[str]) -> list[str]:
    """The classes of classes.txt; labels that it lacks are added to the faults."""
    classes = [line.strip() for line in read_lines(known) if line.strip()]
    faults += [f"{_CLASSES}: {name!r} stands there more than once" for name in repeated(classes)]
    faults += [f"{place}: {label!r} is not in {_CLASSES}" for label, place in first.items() if label not in classes]
    return classes


def _shared(clips: dict[Key, _Clip]) -> list[str]:
    """A fault for each file that is two clips."""
    seen: dict[str, tuple[str, str]] = {}
    faults = []
    for (split, _), clip in clips.items():
        path = os.path.normpath(clip.path) if clip.path else ""
        other, place = seen.setdefault(path, (split, clip.place))
        if path and place != clip.place:
            faults.append(f"{clip.place}: {clip.path} ({split}) is also a clip in {place} ({other})")
    return faults


def _mixed(clips: dict[Key, _Clip]) -> list[str]:
    """A fault for each split with clips of both kinds."""
    kinds: dict[str, dict[bool, str]] = {}
    for (split, _), clip in clips.items():
        kinds.setdefault(split, {}).setdefault(clip.weak is None, clip.place)
    return [
        f"split {split} has clips with events ({places[True]}) and with weak labels ({places[False]}): "
        "give the weak ones a split of their own"
        for split, places in kinds.items()
        if len(places) > 1
    ]


def _refs(clips: dict[Key, _Clip], numbers: dict[str, int]) -> tuple[list[ClipRef], list[str]]:
    """The clips with their class numbers, and notes."""
    table = EventTable()
    for key, clip in clips.items():
        table.name(key)
        for label, onset, offset in clip.events:
            table.add(key, numbers[label], onset, offset)
    names = Counter(name for _, name in clips)
    several = any(count > 1 for count in names.values())
    refs = []
    empty = {"events": 0, "labels": 0}
    for (split, name), events in table.by_clip().items():
        clip = clips[split, name]
        labels = classes_of(events) if clip.weak is None else tuple(sorted({numbers[label] for label in clip.weak}))
        empty["events" if clip.weak is None else "labels"] += not labels
        identity = f"{split}/{name}" if several else name
        refs.append(ClipRef(identity, clip.path, split, clip.fold, labels, events))
    notes = table.notes()
    if several:
        notes.append("files of one name are in several splits: the clips' ids have the split in front")
    return refs, notes + [f"{count} clips have no {what}, kept" for what, count in empty.items() if count]
