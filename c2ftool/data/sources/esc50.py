"""ESC-50 and ESC-10 (Piczak, ACM MM 2015): `meta/esc50.csv` and `audio/`, five folds.

Classes stand in the order of the CSV's `target`; where targets have gaps (ESC-10 as a part of ESC-50) the classes are
numbered without them. Every clip is in the split `train`: the folds say what is held out.
"""

from __future__ import annotations

from pathlib import Path

from c2ftool.data.sources.listing import (
    ClipRef,
    Listing,
    audio_files,
    found_in,
    read_table,
    refuse,
    repeated,
    require_folder,
    stem,
)
from c2ftool.errors import MissingError

_EXPECTED = "meta/esc50.csv and audio/*.wav (or .flac, .ogg, .mp3)"


def find(folder: Path) -> Listing:
    """The clips of ESC-50 in the CSV's order; audio files may be in any readable format."""
    require_folder(folder, _EXPECTED)
    table = folder / "meta" / "esc50.csv"
    if not table.is_file() or not (folder / "audio").is_dir():
        raise MissingError(
            f"not an ESC-50 folder: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure="give --from the folder that holds meta/ and audio/",
        )
    files = audio_files(folder, "audio")
    by_stem = {stem(path): path for path in files.paths}
    faults: list[str] = []
    rows: list[tuple[str, int, int]] = []
    names: dict[int, str] = {}
    for line, row in read_table(table, ("filename", "fold", "target", "category")):
        fold, target = row["fold"], row["target"]
        if not fold.isdecimal() or int(fold) < 1:
            faults.append(f"line {line}: fold {fold!r} is not a number from 1")
        elif not target.isdecimal():
            faults.append(f"line {line}: target {target!r} is not a number")
        elif names.setdefault(int(target), row["category"]) != row["category"]:
            faults.append(f"line {line}: target {target} is both {names[int(target)]!r} and {row['category']!r}")
        else:
            rows.append((Path(row["filename"]).stem, int(fold), int(target)))
    faults += [f"clip {name} stands there more than once" for name in repeated(name for name, _, _ in rows)]
    refuse(faults, table, "mend the lines, or fetch the file again")
    numbers = {target: number for number, target in enumerate(sorted(names))}
    clips = [
        ClipRef(id=name, path=by_stem[name], split="train", fold=fold, labels=(numbers[target],))
        for name, fold, target in rows
        if name in by_stem
    ]
    missing = [("train", name) for name, _, _ in rows if name not in by_stem]
    if not clips:
        raise MissingError(
            f"none of the {len(rows)} clips of meta/esc50.csv is in audio/ ({len(files.paths)} audio files there)",
            place=str(folder),
            cure=f"expected {_EXPECTED}, with the file names of the CSV",
        )
    notes = files.notes()
    if unused := len(set(by_stem) - {name for name, _, _ in rows}):
        notes.append(f"{unused} audio files that meta/esc50.csv does not name were left out")
    return Listing(
        layout="esc50",
        folder=folder,
        clips=clips,
        classes=[names[target] for target in sorted(names)],
        train_splits=("train",),
        missing=missing,
        notes=notes,
        metadata_files=["meta/esc50.csv"],
    )
