"""Clips that tables name and the folder may lack: which of them are there, and what to say of the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from c2ftool.data.sources.listing import NOT_READ, AudioFiles, ClipRef, Listing
from c2ftool.errors import MissingError

_CLASSES_SHOWN = 5


@dataclass(frozen=True)
class Named:
    """One clip as a table names it; place: the table and the line."""

    id: str
    label: str
    split: str
    place: str


@dataclass(frozen=True)
class Gathered:
    """The clips that are there, by split and then in the tables' order; classes: all labels of the tables."""

    clips: list[ClipRef]
    classes: list[str]
    train_splits: tuple[str, ...]
    missing: list[tuple[str, str]]
    notes: list[str]

    def listing(self, layout: str, folder: Path, tables: Iterable[Path], notes: list[str]) -> Listing:
        """The clips as a layout's listing. tables: the metadata that was read. notes: all of them."""
        return Listing(
            layout=layout,
            folder=folder,
            clips=self.clips,
            classes=self.classes,
            train_splits=self.train_splits,
            missing=self.missing,
            notes=notes,
            metadata_files=[table.relative_to(folder).as_posix() for table in tables],
        )


def repeats(rows: Sequence[Named]) -> list[str]:
    """A fault for each clip that is named again, with both places."""
    first: dict[str, Named] = {}
    return [
        f"{row.place}: clip {row.id} ({row.label}, {row.split}) stands already in {seen.place} "
        f"({seen.label}, {seen.split})"
        for row in rows
        if (seen := first.setdefault(row.id, row)) is not row
    ]


def gather(
    rows: Sequence[Named],
    found: Mapping[str, list[str]],
    splits: Mapping[str, Collection[str]],
    classes: Sequence[str] | None = None,
) -> Gathered | None:
    """The named clips with their files, or None where not one is there.

    found: audio files by clip id. splits: every split, in order, with the names of the folders whose files are
    preferred for it where a clip has several. classes: all labels of the rows, if they have an order of their own.
    """
    classes = sorted({row.label for row in rows}) if classes is None else list(classes)
    numbers = {name: number for number, name in enumerate(classes)}
    clips: list[ClipRef] = []
    missing: list[tuple[str, str]] = []
    notes: list[str] = []
    here: list[str] = []
    for split, own in splits.items():
        before = len(clips)
        wanted = [row for row in rows if row.split == split]
        for row in wanted:
            path = _preferred(found.get(row.id, []), own)
            if path is None:
                missing.append((split, row.id))
            else:
                clips.append(ClipRef(id=row.id, path=path, split=split, labels=(numbers[row.label],)))
        if len(clips) > before:
            here.append(split)
        elif wanted:
            notes.append(f"none of the {len(wanted)} clips of {split} was found: there is no split {split}")
    if not clips:
        return None
    if "train" not in here:
        notes.append(f"there is no split train: the statistics are measured on {here[0]}")
    if double := sum(len(found[clip.id]) > 1 for clip in clips):
        folders = ", ".join(f"{name}/" for names in splits.values() for name in names)
        rule = f"one in a folder of the split ({folders}) was preferred" if folders else "the first by name was taken"
        notes.append(f"{double} clips have several audio files: {rule}")
    notes += _without_clips(classes, clips)
    return Gathered(clips, classes, (here[0],), missing, notes)


def none_found(folder: Path, named: int, tables: str, files: AudioFiles, expected: str) -> MissingError:
    """The error where none of the named clips is there; of videos it says how they become audio."""
    first = f" (the first is {files.paths[0]})" if files.paths else ""
    message = f"none of the {named} clips of {tables} was found among {len(files.paths)} audio files{first}"
    videos = max(
        sorted(suffix for suffix in files.others if suffix.lower() in NOT_READ),
        key=files.others.__getitem__,
        default=None,
    )
    if videos is None:
        return MissingError(message, place=str(folder), cure=f"expected {expected}")
    convert = f'ffmpeg -nostdin -i "$0" -vn -ac 1 "${{0%{videos}}}.wav"'
    return MissingError(
        f"{message}; there are {files.others[videos]} {videos} files: their audio must be extracted first",
        place=str(folder),
        cure=f"in that folder: find . -name '*{videos}' -exec sh -c '{convert}' {{}} \\;",
    )


def _preferred(paths: list[str], folders: Collection[str]) -> str | None:
    """The first path in a folder of one of those names, else the first; whole names, as `train horning` is a class."""
    return min(paths, key=lambda path: (not _within(path, folders), path), default=None)


def _within(path: str, folders: Collection[str]) -> bool:
    return any(part.lower() in folders for part in PurePosixPath(path).parts[:-1])


def _without_clips(classes: list[str], clips: list[ClipRef]) -> list[str]:
    """A sentence on the classes of which the folder has no clip, if there are any."""
    seen = {label for clip in clips for label in clip.labels}
    gone = [name for number, name in enumerate(classes) if number not in seen]
    if not gone:
        return []
    more = f" and {len(gone) - _CLASSES_SHOWN} more" if len(gone) > _CLASSES_SHOWN else ""
    return [f"{len(gone)} of the {len(classes)} classes have no clip here: {'; '.join(gone[:_CLASSES_SHOWN])}{more}"]
