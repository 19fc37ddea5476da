"""One folder for each class; where there are splits, `train`, `valid` and `test` at the top hold the class folders."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import ClipRef, Listing, audio_files, found_in, refuse, repeated, require_folder
from c2ftool.errors import DataError, MissingError

SPLITS = ("train", "valid", "test")
_EXPECTED = "a folder for each class with audio in it, or train/, valid/ and test/ holding such folders"


def find(folder: Path) -> Listing:
    """The clips by split, class and path; without split folders all are in `train`."""
    require_folder(folder, _EXPECTED)
    tops = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    splits = [name for name in SPLITS if name in tops]
    if splits and (len(splits) < len(tops) or "train" not in splits):
        raise DataError(
            f"folders of splits beside others: {', '.join(tops)}",
            place=str(folder),
            cure="either the folders are train, valid, test (train must be there), or every folder is a class",
        )
    files = audio_files(folder)
    depth = 2 if splits else 1
    rows: list[tuple[str, str, str]] = []
    loose = 0
    for path in files.paths:
        parts = PurePosixPath(path).parts
        if len(parts) <= depth:
            loose += 1
        else:
            rows.append((parts[0] if splits else "train", parts[depth - 1], path))
    if not rows:
        raise MissingError(
            f"no audio in class folders: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure="for a table of files and labels use the layout `csv`",
        )
    classes = sorted({name for _, name, _ in rows})
    numbers = {name: number for number, name in enumerate(classes)}
    order = {split: place for place, split in enumerate(SPLITS)}
    clips = [
        ClipRef(id=PurePosixPath(path).with_suffix("").as_posix(), path=path, split=split, labels=(numbers[name],))
        for split, name, path in sorted(rows, key=lambda row: (order[row[0]], row[1], row[2]))
    ]
    refuse(
        [
            f"two audio files are named {name} and differ by suffix alone"
            for name in repeated(clip.id for clip in clips)
        ],
        folder,
        "keep one of them",
    )
    notes = files.notes()
    if loose:
        notes.append(f"{loose} audio files outside a class folder were left out")
    trained = {name for split, name, _ in rows if split == "train"}
    notes += [f"class {name} has no clip in train" for name in classes if name not in trained]
    return Listing(layout="folder", folder=folder, clips=clips, classes=classes, train_splits=("train",), notes=notes)
