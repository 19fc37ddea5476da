"""Event detection tasks as HEAR distributes them (Turian et al., 2022): DCASE 2016 task 2, and MAESTRO.

A task's folder holds `labelvocabulary.csv` (idx, label), a JSON file for each split or fold (file name -> a list of
events with `label`, `start` and `end`, times in milliseconds), and the audio, `RATE/SPLIT/FILE`, at one or several
sample rates. It is the folder given, or the one below it that bears the task's name, as the archives unpack
(`hear-2021.0.6/tasks/dcase2016_task2-hear2021-full/`). Of several rates that of the prepared set is read, else the
next higher, else the highest. Classes are numbered by `idx`; a clip's id is its file name without suffix.

DCASE 2016 task 2: `train.json`, `valid.json`, `test.json`; 11 classes. MAESTRO: `fold00.json`, `fold01.json`, ..: all
clips are in the split train, with the folds 1, 2, ..; classes are piano keys as MIDI numbers, 88 at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2ftool.data.sources.listing import (
    ClipRef,
    Listing,
    found_in,
    read_lines,
    read_table,
    refuse,
    repeated,
    require_folder,
)
from c2ftool.data.sources.strong import EventTable, audio_in, bare, classes_of, span
from c2ftool.errors import DataError, MissingError

_VOCABULARY = "labelvocabulary.csv"
_DEPTH = 4
_DCASE_CLASSES, _KEYS, _FOLDS = 11, 88, 5


@dataclass(frozen=True)
class _Part:
    """One JSON file: the folder of its audio (RATE/name), and where its clips belong."""

    name: str
    split: str
    fold: int = 0


def find_dcase2016_task2(folder: Path, rate: int) -> Listing:
    """The clips by split (train, valid, test), in the order of the JSON files. rate: of the prepared set."""
    splits = ("train", "valid", "test")
    expected = f"train.json, valid.json, test.json, {_VOCABULARY}, and 16000/train/*.wav and so on (or another rate)"
    task = _task(folder, "dcase2016_task2", expected)
    parts = [_Part(split, split) for split in splits if (task / f"{split}.json").is_file()]
    if "train" not in {part.split for part in parts}:
        raise _wrong(task, expected, "train.json")
    notes = [f"{split}.json is not there" for split in splits if not (task / f"{split}.json").is_file()]
    return _find("dcase2016_task2", task, parts, rate, _DCASE_CLASSES, notes, expected)


def find_maestro(folder: Path, rate: int) -> Listing:
    """The clips by fold, in the order of the JSON files; all are in the split train. rate: of the prepared set."""
    expected = f"fold00.json .. fold04.json, {_VOCABULARY}, and 16000/fold00/*.wav and so on (or another rate)"
    task = _task(folder, "maestro", expected)
    names = sorted(path.stem for path in task.glob("fold*.json") if re.fullmatch(r"fold\d+", path.stem))
    if not names:
        raise _wrong(task, expected, "the folds' JSON files")
    notes = [f"{len(names)} folds: {', '.join(names)}; MAESTRO in HEAR has {_FOLDS}"] if len(names) != _FOLDS else []
    parts = [_Part(name, "train", int(name.removeprefix("fold")) + 1) for name in names]
    return _find("maestro", task, parts, rate, _KEYS, notes, expected)


def _find(
    layout: str, task: Path, parts: list[_Part], rate: int, classes: int, notes: list[str], expected: str
) -> Listing:
    faults: list[str] = []
    names = _classes(task / _VOCABULARY)
    numbers = {name: number for number, name in enumerate(names)}
    events = EventTable()
    for part in parts:
        _read(task / f"{part.name}.json", part.name, numbers, events, faults)
    of_clip = events.by_clip() if not faults else {}
    faults += [f"clip {name} is in several JSON files" for name in repeated(name for _, name in of_clip)]
    refuse(faults, task, "mend the files, or unpack the task again")

    audio, others = _audio(task, parts, rate)
    clips: list[ClipRef] = []
    missing: list[tuple[str, str]] = []
    unnamed = 0
    for part in parts:
        files = audio_in(audio / part.name)
        for (name, clip), happened in of_clip.items():
            if name != part.name:
                continue
            if clip not in files:
                missing.append((part.split, clip))
                continue
            path = (audio / part.name / files.pop(clip)).relative_to(task).as_posix()
            clips.append(ClipRef(clip, path, part.split, part.fold, classes_of(happened), happened))
        unnamed += len(files)
    where = audio.relative_to(task).as_posix()
    if not clips:
        raise MissingError(
            f"none of the {len(missing)} clips of {', '.join(f'{part.name}.json' for part in parts)} is in "
            f"{' or '.join(f'{where}/{part.name}/' for part in parts)}",
            place=str(task),
            cure=f"expected {expected}",
        )
    if others:
        notes.append(f"the audio of {where}/ is read, not that of {', '.join(others)}/")
    if unnamed:
        notes.append(f"{unnamed} audio files that the JSON files do not name were left out")
    if len(names) != classes:
        notes.append(f"{_VOCABULARY}: {len(names)} classes; {layout} has {classes}")
    return Listing(
        layout=layout,
        folder=task,
        clips=clips,
        classes=names,
        train_splits=("train",) if any(clip.split == "train" for clip in clips) else (clips[0].split,),
        missing=missing,
        notes=notes + events.notes(),
        metadata_files=[_VOCABULARY, *(f"{part.name}.json" for part in parts)],
        extra={"labels": {clip.split: "strong" for clip in clips}},
    )


def _task(folder: Path, prefix: str, expected: str) -> Path:
    """The task's folder: the one given, or the one of that name below it; raises where there is none, or several."""
    require_folder(folder, expected)
    if (folder / _VOCABULARY).is_file():
        return folder
    below = sorted(path.parent for depth in range(1, _DEPTH + 1) for path in folder.glob("*/" * depth + _VOCABULARY))
    tasks = [path for path in below if path.name.startswith(prefix)]
    if len(tasks) == 1:
        return tasks[0]
    if tasks:
        raise DataError(
            f"several folders of the task: {', '.join(path.relative_to(folder).as_posix() for path in tasks)}",
            place=str(folder),
            cure="give --from one of them",
        )
    raise _wrong(folder, expected, _VOCABULARY, [path.relative_to(folder).as_posix() for path in below])


def _wrong(folder: Path, expected: str, missing: str, tasks: list[str] | None = None) -> MissingError:
    there = f"; tasks there: {', '.join(tasks)}" if tasks else ""
    return MissingError(
        f"not the folder of the task as HEAR has it: expected {expected}; {found_in(folder)}{there}",
        place=str(folder),
        cure=f"missing: {missing}",
    )


def _classes(path: Path) -> list[str]:
    """The labels in the order of their numbers."""
    faults: list[str] = []
    labels: dict[int, str] = {}
    for line, row in read_table(path, ("idx", "label")):
        number = row["idx"]
        if not (number.isascii() and number.isdecimal()) or int(number) in labels:
            faults.append(f"line {line}: idx {number!r} is no number, or stands there more than once")
        elif not row["label"]:
            faults.append(f"line {line}: no label")
        else:
            labels[int(number)] = row["label"]
    faults += [f"label {name!r} stands there more than once" for name in repeated(labels.values())]
    if not faults and sorted(labels) != list(range(len(labels))):
        faults.append(f"the numbers are not 0 .. {len(labels) - 1}")
    if not faults and not labels:
        faults.append("there are no rows under the header")
    refuse(faults, path, "unpack the task again")
    return [labels[number] for number in range(len(labels))]


def _read(path: Path, part: str, numbers: dict[str, int], events: EventTable, faults: list[str]) -> None:
    """Adds the clips and events of a JSON file; what is wrong with it is added to the faults."""
    entries = list(_entries(path, faults))
    faults += [
        f"{path.name}: clip {name} stands there more than once" for name in repeated(bare(f) for f, _ in entries)
    ]
    for file, entry in entries:
        clip = (part, bare(file))
        events.name(clip)
        place = f"{path.name}, {file}"
        if not isinstance(entry, list):
            faults.append(f"{place}: expected a list of events, not {str(entry)[:40]}")
            continue
        for number, event in enumerate(entry, 1):
            wrong: list[str] = []
            if not isinstance(event, dict) or not {"label", "start", "end"} <= event.keys():
                faults.append(f"{place}, event {number}: expected label, start and end, not {str(event)[:60]}")
                continue
            onset, offset = span(_text(event["start"]), _text(event["end"]), wrong)
            label = _text(event["label"])
            if label not in numbers:
                label = label.removesuffix(".0")  # keys of a piano, which pandas makes floats of
            if label not in numbers:
                wrong.append(f"label {label!r} is not in {_VOCABULARY}")
            faults += [f"{place}, event {number} (ms): {fault}" for fault in wrong]
            if not wrong:
                events.add(clip, numbers[label], onset / 1000, offset / 1000)


def _entries(path: Path, faults: list[str]) -> Iterator[tuple[str, Any]]:
    """(file name, events) of a JSON file, each once."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        # of a file that stands there twice, a plain parser would keep the last
        faults.extend(
            f"{path.name}: {name!r} stands there more than once" for name in repeated(key for key, _ in items)
        )
        return dict(items)

    try:
        entries = json.loads("\n".join(read_lines(path)), object_pairs_hook=pairs)
    except ValueError as error:
        raise DataError(f"not JSON ({error})", place=str(path), cure="unpack the task again") from error
    if not isinstance(entries, dict):
        faults.append(f"{path.name}: expected file names with their events")
        return
    yield from entries.items()


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _audio(task: Path, parts: list[_Part], rate: int) -> tuple[Path, list[str]]:
    """The folder whose subfolders hold the audio of the parts, and the names of those of other rates."""
    rates = sorted(int(entry.name) for entry in task.iterdir() if entry.is_dir() and entry.name.isdecimal())
    rates = [number for number in rates if any((task / str(number) / part.name).is_dir() for part in parts)]
    if not rates:
        return task, []
    chosen = next((number for number in rates if number >= rate), rates[-1])
    return task / str(chosen), [str(number) for number in rates if number != chosen]
