"""EPIC-SOUNDS (Huh et al., ICASSP 2023): segments of long kitchen videos, each with one of 44 classes.

Tables (in the folder, or in `annotations/`, `meta/`, `metadata/`, `csv/`, `data/` or `epic-sounds-annotations/`; each
also as `.gz`): `EPIC_Sounds_train.csv` and `EPIC_Sounds_validation.csv`, of which one will do. A clip is a segment,
under its `annotation_id`. Classes stand in the order of their `class_id`, whether or not their clips are there. The
segments for testing (`EPIC_Sounds_recognition_test_timestamps.csv`) have no labels: they are counted and left out.

Audio: `EPIC_audio.hdf5` (in the folder, `audio/` or `data/`), a data set of floats at 24 kHz for each video; or, where
there is none, a file VIDEO_ID.wav (or flac, ogg, mp3) for each video, at any depth. Segments are cut at `start_sample`
and `stop_sample`, which count at 24 kHz; in a file of another rate they are multiplied by rate / 24000 and rounded.
Segments of videos that are gone are counted. What begins or ends after its video's end, and segments of no length, are
seen when they are decoded (see `decode`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from c2ftool.data.sources.listing import (
    AudioFiles,
    Inside,
    Listing,
    audio_files,
    found_in,
    locate,
    read_table,
    refuse,
    require_folder,
    stem,
)
from c2ftool.data.sources.named import Named, gather, none_found, repeats
from c2ftool.errors import DataError, MissingError

CLASSES = 44
RATE = 24_000
_TABLES = {"train": "EPIC_Sounds_train.csv", "valid": "EPIC_Sounds_validation.csv"}
_TEST = "EPIC_Sounds_recognition_test_timestamps.csv"
_CLONE = "epic-sounds-annotations"
_AUDIO = "EPIC_audio.hdf5"
_AUDIO_PLACES = ("", "audio", "data")
_SHOWN = 5
_EXPECTED = f"{' and '.join(_TABLES.values())}, and {_AUDIO} or an audio file VIDEO_ID.wav for each video"


@dataclass(frozen=True)
class _Segment:
    """A row of a table: the clip it names, its class_id and video, and its first sample and the one after its last."""

    clip: Named
    number: int
    video: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Audio:
    """Where the videos' sounds are: files by video id; hdf5: they are data sets of the one file that all name."""

    found: dict[str, list[str]]
    files: AudioFiles
    hdf5: str | None = None


def find(folder: Path) -> Listing:
    """The segments by split (train, valid), in the order of the tables; classes in the order of their class_id."""
    require_folder(folder, _EXPECTED)
    tables = {split: path for split, name in _TABLES.items() if (path := _locate(folder, name))}
    if not tables:
        raise MissingError(
            f"not in the layout of EPIC-SOUNDS: expected {_EXPECTED}; {found_in(folder)}",
            place=str(folder),
            cure=f"missing: {' and '.join(_TABLES.values())} (the .csv files of {_CLONE}, not the .pkl files)",
        )
    names = " and ".join(table.name for table in tables.values())
    faults: list[str] = []
    segments = [segment for split, table in tables.items() for segment in _segments(table, split, faults)]
    if not segments and not faults:
        faults.append(f"{names}: there are no rows under the header")
    clips = [segment.clip for segment in segments]
    faults += _inconsistent(segments) + repeats(clips)
    refuse(faults, folder, "mend the rows, or take all tables from one release: class_id differs between them")

    videos = list(dict.fromkeys(segment.video for segment in segments))
    audio = _audio(folder, videos)
    classes = [name for _, name in sorted({(segment.number, segment.clip.label) for segment in segments})]
    found = {segment.clip.id: audio.found.get(segment.video, []) for segment in segments}
    gathered = gather(clips, found, dict.fromkeys(_TABLES, ()), classes)
    if gathered is None:
        if audio.hdf5 is None:
            raise none_found(folder, len(clips), names, audio.files, _EXPECTED)
        raise MissingError(
            f"none of the {len(videos)} videos of {names} (the first is {videos[0]}) is in {audio.hdf5}",
            place=str(folder),
            cure="its data sets must be named by their videos; without that file, files VIDEO_ID.wav are read",
        )
    notes = [f"{name} is not there" for split, name in _TABLES.items() if split not in tables]
    notes += _about(folder, segments, videos, audio)
    if len(classes) != CLASSES:
        notes.append(f"{names}: {len(classes)} classes, numbered in the order of class_id; EPIC-SOUNDS has {CLASSES}")
    segment_of = {segment.clip.id: segment for segment in segments}
    inside = {video: Inside(video, RATE) for video in videos} if audio.hdf5 is not None else {}
    cut = [
        replace(clip, start=segment.start / RATE, stop=segment.stop / RATE, inside=inside.get(segment.video))
        for clip in gathered.clips
        for segment in (segment_of[clip.id],)
    ]
    notes += audio.files.notes() + gathered.notes
    return replace(gathered, clips=cut).listing("epic_sounds", folder, tables.values(), notes)


def _locate(folder: Path, name: str) -> Path | None:
    return locate(folder, name) or locate(folder, f"{_CLONE}/{name}")


def _segments(table: Path, split: str, faults: list[str]) -> Iterator[_Segment]:
    """The segments of one table; what is wrong with other rows is added to the faults."""
    needed = ("annotation_id", "video_id", "start_sample", "stop_sample", "class", "class_id")
    for line, row in read_table(table, needed):
        place = f"{table.name}, line {line}"
        wrong = [f"no {key}" for key in ("annotation_id", "video_id", "class") if not row[key]]
        start, stop = (_whole(row[key], key, wrong) for key in ("start_sample", "stop_sample"))
        if start is not None and stop is not None and stop < start:
            wrong.append(f"stop_sample {stop} is before start_sample {start}")
        number = _whole(row["class_id"], "class_id", wrong)
        if number is not None and number >= CLASSES:
            wrong.append(f"class_id {number} is none of 0 .. {CLASSES - 1}")
        faults += [f"{place}: {fault}" for fault in wrong]
        if start is not None and stop is not None and number is not None and not wrong:
            clip = Named(row["annotation_id"], row["class"], split, place)
            yield _Segment(clip, number, row["video_id"], start, stop)


def _whole(text: str, key: str, faults: list[str]) -> int | None:
    """The whole number that a text gives, also as 4.0, which tables become by way of floats."""
    if re.fullmatch(r"[0-9]{1,12}(\.0*)?", text) is None:
        faults.append(f"{key} {text!r} is not a whole number from 0")
        return None
    return int(text.split(".", 1)[0])


def _inconsistent(segments: list[_Segment]) -> list[str]:
    """A fault for each class_id with another name than before, and each name with another class_id."""
    faults: list[str] = []
    numbers: dict[int, _Segment] = {}
    names: dict[str, _Segment] = {}
    pairs: set[tuple[int, str]] = set()
    for segment in segments:
        number, name, place = segment.number, segment.clip.label, segment.clip.place
        if (number, name) in pairs:
            continue
        pairs.add((number, name))
        same_number, same_name = numbers.setdefault(number, segment), names.setdefault(name, segment)
        if same_number is not segment:
            seen = same_number.clip
            faults.append(f"{place}: class_id {number} is {name!r} here and {seen.label!r} in {seen.place}")
        if same_name is not segment:
            seen = same_name.clip
            faults.append(f"{place}: {name!r} has class_id {number} here and {same_name.number} in {seen.place}")
    return faults


def _audio(folder: Path, videos: Collection[str]) -> _Audio:
    """The audio of the videos: of the HDF5 file where there is one, else of files named by the videos."""
    hdf5 = next((path for under in _AUDIO_PLACES if (path := folder / under / _AUDIO).is_file()), None)
    found: dict[str, list[str]] = defaultdict(list)
    if hdf5 is None:
        files = audio_files(folder)
        for name in files.paths:
            found[stem(name)].append(name)
        return _Audio(found, files)
    import h5py

    try:
        with h5py.File(hdf5, "r", locking=False) as file:  # network file systems refuse locks
            there = [video for video in videos if video in file]
    except OSError as error:
        raise DataError(
            f"not an HDF5 file that can be read ({error})", place=str(hdf5), cure="fetch or write the file again"
        ) from error
    name = hdf5.relative_to(folder).as_posix()
    return _Audio({video: [name] for video in there}, AudioFiles([], 0, {}), name)


def _about(folder: Path, segments: list[_Segment], videos: list[str], audio: _Audio) -> list[str]:
    """Sentences on the test segments, on where the audio is from, and on the videos."""
    notes = []
    if test := _locate(folder, _TEST):
        count = sum(1 for _ in read_table(test, ("annotation_id",)))
        notes.append(f"the {count} segments of {_TEST} were left out: they have no labels")
    if audio.hdf5 is not None:
        notes.append(f"the audio is that of {audio.hdf5}, taken to be at {RATE} Hz; other audio files are not read")
    if gone := [video for video in videos if not audio.found.get(video)]:
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        notes.append(f"{len(gone)} of the {len(videos)} videos are not there: {', '.join(gone[:_SHOWN])}{more}")
    splits = [{segment.video for segment in segments if segment.clip.split == split} for split in _TABLES]
    if both := set.intersection(*splits):
        notes.append(f"{len(both)} videos have segments in {' and in '.join(_TABLES)}, as the tables say")
    return notes
