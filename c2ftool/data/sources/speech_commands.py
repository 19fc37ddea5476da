"""Speech Commands (Warden, 2018), and other words in its layout: `WORD/*.wav`, `validation_list.txt`,
`testing_list.txt`.

What neither list names is training. Classes are the sorted word folders (35 in version 2); `_background_noise_` and
hidden folders are no words.
"""

from __future__ import annotations

from pathlib import Path

from c2ftool.data.sources.listing import (
    ClipRef,
    Listing,
    audio_files,
    found_in,
    read_lines,
    refuse,
    repeated,
    require_folder,
    stem,
)
from c2ftool.errors import MissingError

_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
_EXPECTED = "a folder for each word, validation_list.txt and testing_list.txt"


def find(folder: Path) -> Listing:
    """The clips by split (train, valid, test), in each split by path."""
    require_folder(folder, _EXPECTED)
    absent = [name for name in _LISTS.values() if not (folder / name).is_file()]
    words = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._")
    if absent or not words:
        raise MissingError(
            f"not in the layout of Speech Commands: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {', '.join(absent) if absent else 'the word folders'}"
            + ("; for a folder for each class without split lists use the layout `folder`" if absent else ""),
        )
    split_of: dict[str, str] = {}
    faults: list[str] = []
    for split, name in _LISTS.items():
        for entry in filter(None, (line.strip() for line in read_lines(folder / name))):
            if split_of.setdefault(entry, split) != split:
                faults.append(f"{entry} stands in both lists")
    refuse(faults, folder, "a clip is validated on or tested on, never both")

    paths: list[str] = []
    notes: list[str] = []
    used: list[str] = []
    for word in words:
        files = audio_files(folder, word)
        notes += files.notes()
        paths += files.paths
        if files.paths:
            used.append(word)
        else:
            notes.append(f"folder {word}/ holds no audio and is no class")
    present = {path: split_of.get(path, "train") for path in paths}
    if not present:
        raise MissingError(
            f"the word folders {', '.join(words[:10])} hold no audio", place=str(folder), cure=f"expected {_EXPECTED}"
        )
    numbers = {word: number for number, word in enumerate(used)}
    clips = [
        ClipRef(id=f"{word}/{stem(path)}", path=path, split=split, labels=(numbers[word],))
        for wanted in ("train", "valid", "test")
        for path, split in present.items()
        if split == wanted
        for word in (path.split("/", 1)[0],)
    ]
    refuse(
        [
            f"two audio files are named {name} and differ by suffix alone"
            for name in repeated(clip.id for clip in clips)
        ],
        folder,
        "keep one of them",
    )
    for split, name in _LISTS.items():
        if split not in present.values():
            notes.append(f"no clip of {name} was found: there is no split {split}")
    return Listing(
        layout="speech_commands",
        folder=folder,
        clips=clips,
        classes=used,
        train_splits=("train",),
        missing=[(split, path) for path, split in split_of.items() if path not in present],
        notes=notes,
        metadata_files=list(_LISTS.values()),
    )
