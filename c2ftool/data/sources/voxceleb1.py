"""VoxCeleb1 (Nagrani et al., Interspeech 2017) for identification: 1,251 speakers, `iden_split.txt`.

Audio `ID/VIDEO/00001.wav` (or flac, ogg, mp3) with speakers `id10001` and so on, under any folders: `wav/`, the root,
or `dev/wav/` and `test/wav/` as unpacked. Those two are the splits of verification and say nothing here: the splits
are those of `iden_split.txt` (1, 2, 3 = train, valid, test), in which each speaker has clips in all three. Classes are
the sorted ids of the list. Clips that are gone are counted. `vox1_meta.csv` (names, countries) is recorded if there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from c2ftool.data.sources.listing import Listing, audio_files, found_in, locate, read_lines, refuse, require_folder
from c2ftool.data.sources.named import Named, gather, none_found, repeats
from c2ftool.errors import MissingError

SPEAKERS = 1_251
_SPLIT = {"1": "train", "2": "valid", "3": "test"}
_LIST = "iden_split.txt"
_META = "vox1_meta.csv"
_EXPECTED = f"{_LIST} (lines as `1 id10001/VIDEO/00001.wav`) and audio files wav/id10001/VIDEO/00001.wav"
_CLIP = r"id[0-9]{5}/[^/\s]+/[0-9]+"


def find(folder: Path) -> Listing:
    """The clips by split (train, valid, test), in the order of the list; classes are the speakers' ids."""
    require_folder(folder, _EXPECTED)
    table = locate(folder, _LIST)
    if table is None:
        raise MissingError(
            f"not in the layout of VoxCeleb1: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {_LIST}, the data set's split for identification",
        )
    rows = _rows(table)
    files = audio_files(folder)
    found: dict[str, list[str]] = defaultdict(list)
    for path in files.paths:
        if match := re.search(rf"(?:^|/)({_CLIP})\.\w+$", path):
            found[match.group(1)].append(path)
    # no folder is preferred: those of the verification splits would be taken for the identification's
    gathered = gather(rows, found, dict.fromkeys(_SPLIT.values(), ()))
    if gathered is None:
        raise none_found(folder, len(rows), table.name, files, _EXPECTED)
    notes = files.notes() + gathered.notes
    if len(gathered.classes) != SPEAKERS:
        notes.append(f"{table.name}: {len(gathered.classes)} speakers; VoxCeleb1 has {SPEAKERS:,}")
    if unused := len(files.paths) - sum(len(found[clip.id]) for clip in gathered.clips):
        notes.append(f"{unused} audio files that {table.name} does not name were left out")
    meta = locate(folder, _META)
    return gathered.listing("voxceleb1", folder, [path for path in (table, meta) if path is not None], notes)


def _rows(table: Path) -> list[Named]:
    rows: list[Named] = []
    faults: list[str] = []
    for line, text in enumerate(read_lines(table), 1):
        if not text.strip():
            continue
        match = re.fullmatch(rf"([123])\s+({_CLIP})\.wav", text.strip())
        if match is None:
            faults.append(f"line {line}: expected `1 id10001/VIDEO/00001.wav` with 1, 2 or 3, not {text[:60]!r}")
        else:
            name = match.group(2)
            rows.append(Named(name, name.split("/", 1)[0], _SPLIT[match.group(1)], f"line {line}"))
    if not rows and not faults:
        faults.append("there are no lines")
    cure = "mend the lines, or fetch the list again (that of the first release has names instead of ids)"
    refuse(faults + repeats(rows), table, cure)
    return rows
