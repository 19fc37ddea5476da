"""LibriSpeech (Panayotov et al., ICASSP 2015): `SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac`, read speech.

The folders of the splits (train-clean-100, dev-other, ..) lie in the folder or in its `LibriSpeech/`, as unpacked; each
split has its folder's name. There are no classes: the set is for pre-training. Transcripts are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from c2ftool.data.sources.listing import ClipRef, Listing, audio_files, found_in, refuse, repeated, require_folder
from c2ftool.errors import MissingError

CLIPS = {
    "train-clean-100": 28_539,
    "train-clean-360": 104_014,
    "train-other-500": 148_688,
    "dev-clean": 2_703,
    "dev-other": 2_864,
    "test-clean": 2_620,
    "test-other": 2_939,
}
_EXPECTED = "folders of splits (train-clean-100, dev-clean, ..) with SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac in them"
_PATH = re.compile(r"(?:LibriSpeech/)?(?P<split>[a-z]+-[a-z0-9-]+)/(\d+)/(\d+)/(?P<id>\2-\3-\d+)\.\w+")


def find(folder: Path) -> Listing:
    """The clips by split, training first, in each split by path; no classes."""
    require_folder(folder, _EXPECTED)
    files = audio_files(folder)
    found = [match for path in files.paths if (match := _PATH.fullmatch(path)) and match["split"] in CLIPS]
    if not found:
        raise MissingError(
            f"not in the layout of LibriSpeech: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure="give --from the folder that holds the splits, or the one above it, LibriSpeech's own name kept",
        )
    clips = [
        ClipRef(id=match["id"], path=match.string, split=split)
        for split in CLIPS
        for match in found
        if match["split"] == split
    ]
    again = repeated(clip.id for clip in clips)
    refuse([f"clip {name} is there more than once" for name in again], folder, "keep one of them")
    here = Counter(clip.split for clip in clips)
    trained = tuple(split for split in here if split.startswith("train-"))
    notes = files.notes()
    notes += [
        f"{split}: {count} clips; LibriSpeech has {CLIPS[split]:,}"
        for split, count in here.items()
        if count != CLIPS[split]
    ]
    if absent := [split for split in CLIPS if split not in here]:
        notes.append(f"splits that are not there: {', '.join(absent)}")
    if not trained:
        notes.append(f"there is no split for training: the statistics are measured on {next(iter(here))}")
    if loose := len(files.paths) - len(clips):
        notes.append(f"{loose} audio files that are no clip of a split were left out")
    return Listing(
        layout="librispeech",
        folder=folder,
        clips=clips,
        classes=[],
        train_splits=trained or (next(iter(here)),),
        notes=notes,
    )
