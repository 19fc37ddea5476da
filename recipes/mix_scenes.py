"""Scenes with strong labels, mixed from isolated recordings in the layout of ESC-50, as Scaper and DESED do it.

Each scene is coloured background noise and 1 to 5 events, 6 to 20 dB(A) above it. An event is a stretch of sound in
one recording, or up to 4 s out of a longer one. Events of different classes may overlap; events of one class keep a
distance. Train, valid and test draw from recordings of different folds.

    python recipes/mix_scenes.py --from ESC-50 --to scenes --clips 600 100 200
    c2f prepare events --from scenes

Needs `audio/` and `meta/esc50.csv`. Writes SPLIT.tsv (filename, onset, offset, event_label), audio/SPLIT/ and
origin/: which recording each event is from (events.csv), their authors and licences, which bind the scenes as derived
works (attribution.csv), and the settings (scenes.json). The same recordings and settings give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from c2ftool.data.decode import Unusable, decode
from c2ftool.data.sounds import RATE, Dice, background
from c2ftool.data.sources.listing import locate, read_table, require_folder
from c2ftool.errors import C2FError, DataError, MissingError, UsageError
from c2ftool.files import publish_folder, temporary_name, translate_failure

VERSION = 1
SPLITS = ("train", "valid", "test")
MOST_EVENTS = 5
SHORTEST, LONGEST = 250, 4_000  # ms of an event
QUIETER = 20.0  # dB below the recording's loud level at which its sound ends
BRIDGE = 300  # ms of quiet within one event; also the least distance of two events of one class
FADE = 10  # ms at either end
SNR = (6.0, 20.0)  # dB of an event's sounding part over the background, both A-weighted
LEVEL = (-40.0, -26.0)  # dBFS of the background
_MS = RATE // 1000
_WINDOW = (4, 6)  # ms before and after, over which the level is taken
_ORIGIN = "origin"
_RECORD = Path(_ORIGIN) / "scenes.json"
_CREDITS = ("title", "author", "url", "licence")


@dataclass(frozen=True)
class Recording:
    filename: str
    fold: int
    category: str
    source: str  # its number on freesound.org; recordings of one source have one fold


@dataclass(frozen=True)
class Sound:
    """A recording: samples (S,) and the same A-weighted; sounding (ms,) bool; stretches of sound, in ms."""

    samples: npt.NDArray[np.float64]
    heard: npt.NDArray[np.float64]
    sounding: npt.NDArray[np.bool_]
    stretches: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Placed:
    """An event of a scene, in ms: where it is there, and where its sound begins in the recording."""

    onset: int
    offset: int
    label: str
    recording: str
    start: int
    snr: float


class Library:
    """The recordings of a folder in the layout of ESC-50. Raises MissingError or DataError where they are not there."""

    def __init__(self, folder: Path) -> None:
        require_folder(folder, "audio/ and meta/esc50.csv")
        table = locate(folder, "esc50.csv")
        if table is None:
            raise MissingError(
                "no meta/esc50.csv", place=str(folder), cure="give --from a folder in the layout of ESC-50"
            )
        self.folder = folder
        self.recordings = [_recording(table, *row) for row in read_table(table, ["filename", "fold", "category"])]
        self.recordings.sort(key=lambda item: item.filename)
        folds: dict[str, int] = {}
        for item in self.recordings:  # or train and test would share sounds
            if item.source and folds.setdefault(item.source, item.fold) != item.fold:
                raise DataError(
                    f"source {item.source} is in folds {folds[item.source]} and {item.fold}", place=str(table)
                )
        self.silent: set[str] = set()
        self.sound = cache(self._sound)

    def of_folds(self, folds: Iterable[int]) -> dict[str, list[Recording]]:
        """The recordings of some folds by class; those without a stretch that is long enough are left out."""
        wanted = set(folds)
        if unknown := wanted - {item.fold for item in self.recordings}:
            raise UsageError(f"no recording is of fold {min(unknown)}", place=str(self.folder))
        classes: dict[str, list[Recording]] = defaultdict(list)
        for item in self.recordings:
            if item.fold not in wanted:
                continue
            if self.sound(item.filename).stretches:
                classes[item.category].append(item)
            else:
                self.silent.add(item.filename)
        lacking = {item.category for item in self.recordings} - set(classes)
        if lacking:
            raise DataError(
                f"{', '.join(sorted(lacking))}: no usable recording in folds {sorted(wanted)}",
                place=str(self.folder),
                cure="give the split more folds",
            )
        return dict(sorted(classes.items()))

    def credits(self) -> dict[str, dict[str, str]]:
        """Title, author, address and licence by file name, as far as meta/attribution.csv tells."""
        table = locate(self.folder, "attribution.csv")
        told = {row["filename"]: row for _, row in read_table(table, ["filename"])} if table else {}
        return {
            item.filename: {name: told.get(item.filename, {}).get(name, "") for name in _CREDITS}
            | ({} if item.filename in told else {"url": f"https://freesound.org/s/{item.source}/"})
            for item in self.recordings
        }

    def _sound(self, filename: str) -> Sound:
        path = self.folder / "audio" / filename
        if not path.is_file():
            raise MissingError("named in esc50.csv and not there", place=str(path), cure="fetch the recordings again")
        try:
            samples = decode(path, RATE).samples / 32768
        except Unusable as fault:
            raise DataError(str(fault), place=str(path), cure="fetch the recording again") from fault
        heard = a_weighted(samples)
        sounding = sounding_parts(heard)
        return Sound(samples, heard, sounding, tuple(long_stretches(sounding)))


def _recording(table: Path, line: int, row: dict[str, str]) -> Recording:
    if not row["fold"].isdigit() or not row["filename"] or not row["category"]:
        raise DataError(
            f"filename, fold and category {row['filename']!r}, {row['fold']!r}, {row['category']!r}",
            place=f"{table}:{line}",
            cure="a recording needs all three, and its fold is a number",
        )
    return Recording(row["filename"], int(row["fold"]), row["category"], row.get("src_file", ""))


def a_weighted(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S,) the samples as loud as they are heard (IEC 61672-1, curve A): rumble does not count as sound."""
    squared = np.fft.rfftfreq(len(samples), 1 / RATE) ** 2
    low, high = 20.598997**2, 12194.217**2
    gains = high * squared**2 / ((squared + low) * (squared + high))
    gains /= np.sqrt((squared + 107.65265**2) * (squared + 737.86223**2))
    return np.fft.irfft(np.fft.rfft(samples) * gains * 10**0.1, len(samples))


def sounding_parts(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(ms,) whether the level lies less than 20 dB below the recording's loud level.

    The loud level is the 90 % quantile of what is within 40 dB of the loudest, so that a crackle does not set it.
    """
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    at = np.arange(len(samples) // _MS)
    first = np.maximum(at - _WINDOW[0], 0) * _MS
    last = np.minimum((at + _WINDOW[1]) * _MS, len(samples))
    power = np.maximum(energy[last] - energy[first], 0.0) / (last - first)
    if not len(power) or power.max() < 1e-9:  # -90 dBFS: nothing but rounding
        return np.zeros(len(power), bool)
    loud = np.quantile(power[power > power.max() * 1e-4], 0.9)
    return np.asarray(power > loud * 10 ** (-QUIETER / 10), bool)


def long_stretches(sounding: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) ms of the stretches of 250 ms and more, quiet of up to 300 ms within one bridged.

    Where none is that long, as with a clock's ticks, quiet of up to 600 ms is bridged, else of up to 1.2 s.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sounding.astype(np.int8), [0]])))
    first, last = edges[::2], edges[1::2]
    for bridge in (BRIDGE, 2 * BRIDGE, 4 * BRIDGE):
        apart = first[1:] - last[:-1] > bridge
        starts = first[np.concatenate([[True], apart])] if len(first) else first
        ends = last[np.concatenate([apart, [True]])] if len(last) else last
        found = [(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b - a >= SHORTEST]
        if found:
            return found
    return []


def pick_part(dice: Dice, sound: Sound, longest: int) -> tuple[int, int]:
    """(first, last) ms of one of the sound's stretches: whole, or a part of one that is longer than `longest`."""
    first, last = sound.stretches[dice.below(len(sound.stretches))]
    if last - first <= longest:
        return first, last
    for _ in range(20):
        length = round(dice.between(SHORTEST, longest))
        start = first + dice.below(last - first - length + 1)
        heard = start + np.flatnonzero(sound.sounding[start : start + length])
        if len(heard) and heard[-1] + 1 - heard[0] >= SHORTEST:
            return int(heard[0]), int(heard[-1]) + 1
    heard = first + np.flatnonzero(sound.sounding[first : first + longest])  # ticks that are far apart
    return first, max(int(heard[-1]) + 1, first + SHORTEST)


def faded_part(sound: Sound, first: int, last: int) -> tuple[npt.NDArray[np.float64], int]:
    """The part from `first` to `last` ms, at an A-weighted RMS of 1 where it sounds, and the ms put before it.

    Where the sound ends by itself, the quiet around it is faded over 10 ms; where it is cut, its own 10 ms are.
    """
    before = min(FADE, first) if first and not sound.sounding[first - 1] else 0
    after = min(FADE, len(sound.sounding) - last) if not sound.sounding[last : last + 1].any() else 0
    part = sound.samples[(first - before) * _MS : (last + after) * _MS].copy()
    ramp = np.sin(0.5 * np.pi * (np.arange(FADE * _MS) + 0.5) / (FADE * _MS)) ** 2
    part[: len(ramp)] *= ramp
    part[len(part) - len(ramp) :] *= ramp[::-1]
    heard = sound.heard[first * _MS : last * _MS][np.repeat(sound.sounding[first:last], _MS)]
    return part / np.sqrt(np.mean(heard**2)), before


def make_scene(
    dice: Dice, library: Library, classes: dict[str, list[Recording]], length: int
) -> tuple[npt.NDArray[np.int16], list[Placed]]:
    """A scene of so many ms, (samples,) int16, and its events by onset. Events that find no room are left out."""
    scene = background(dice, length * _MS)
    scene /= np.sqrt(np.mean(a_weighted(scene) ** 2))
    placed: list[Placed] = []
    names = list(classes)
    for _ in range(1 + dice.below(MOST_EVENTS)):
        label = names[dice.below(len(names))]
        recording = classes[label][dice.below(len(classes[label]))]
        sound = library.sound(recording.filename)
        first, last = pick_part(dice, sound, min(LONGEST, length // 2))
        snr = round(dice.between(*SNR), 2)
        onset = _free_onset(dice, last - first, length, [item for item in placed if item.label == label])
        if onset is None:
            continue
        part, before = faded_part(sound, first, last)
        start = (onset - before) * _MS
        scene[start : start + len(part)] += 10 ** (snr / 20) * part
        placed.append(Placed(onset, onset + last - first, label, recording.filename, first, snr))
    level = 10 ** (dice.between(*LEVEL) / 20)
    scene *= min(level, 0.98 / float(np.abs(scene).max()))
    return np.rint(scene * 32767).astype(np.int16), sorted(placed, key=lambda item: (item.onset, item.label))


def _free_onset(dice: Dice, lasts: int, length: int, others: Sequence[Placed]) -> int | None:
    """An onset in ms at which an event keeps its distance from the others; None if twenty draws find none."""
    for _ in range(20):
        onset = FADE + dice.below(length - lasts - 2 * FADE + 1)
        if all(onset - item.offset > BRIDGE or item.onset - onset - lasts > BRIDGE for item in others):
            return onset
    return None


def write_scenes(
    library: Library, folder: Path, folds: dict[str, list[int]], clips: dict[str, int], length: int, seed: int
) -> dict[str, list[list[Placed]]]:
    """The events of every scene by split, scenes and tables written into an empty folder."""
    made: dict[str, list[list[Placed]]] = {}
    rows: list[tuple[object, ...]] = []
    used: Counter[tuple[str, str]] = Counter()
    for split in SPLITS:
        classes = library.of_folds(folds[split])
        (folder / "audio" / split).mkdir(parents=True)
        made[split] = []
        for number in range(1, clips[split] + 1):
            name = f"{split}-{number:04d}.flac"  # names of clips differ over all splits
            samples, events = make_scene(Dice("c2f scenes", VERSION, seed, split, number), library, classes, length)
            soundfile.write(folder / "audio" / split / name, samples, RATE, subtype="PCM_16", format="FLAC")
            made[split].append(events)
            rows += [(split, name, *_times(e), e.label, e.recording, f"{e.start / 1000:.3f}", e.snr) for e in events]
            used.update({(split, e.recording) for e in events})
            if number % 100 == 0 or number == clips[split]:
                print(f"{split}: {number} of {clips[split]} scenes", file=sys.stderr)
        lines = [row[1:5] for row in rows if row[0] == split]
        _write_table(folder / f"{split}.tsv", ("filename", "onset", "offset", "event_label"), lines, "\t")
    origin = folder / _ORIGIN
    origin.mkdir()
    columns = ("split", "filename", "onset", "offset", "event_label", "recording", "recording_start", "snr_db")
    _write_table(origin / "events.csv", columns, rows)
    told = library.credits()
    _write_table(
        origin / "attribution.csv",
        ("recording", "split", "scenes", *_CREDITS, "changes"),
        [
            (name, split, count, *(told[name][credit] for credit in _CREDITS), "cut, faded, scaled, resampled, mixed")
            for (split, name), count in sorted(used.items())
        ],
    )
    if (licence := library.folder / "LICENSE").is_file():  # ESC-50 itself lists authors and licences there
        shutil.copyfile(licence, origin / "LICENSE-of-recordings")
    return made


def _times(event: Placed) -> tuple[str, str]:
    return f"{event.onset / 1000:.3f}", f"{event.offset / 1000:.3f}"


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])


def summary(split: str, scenes: Sequence[Sequence[Placed]]) -> str:
    """What a split holds, in a line or two."""
    events = [event for scene in scenes for event in scene]
    overlapping = sum(any(b.onset < a.offset for a, b in pairwise(scene)) for scene in scenes)
    counts = Counter(event.label for event in events)
    seconds = sum(event.offset - event.onset for event in events) / 1000
    return (
        f"{split}: {len(scenes)} scenes, {len(events)} events ({len(events) / len(scenes):.2f} a scene) of "
        f"{seconds / len(events):.2f} s on average; events overlap in {overlapping} scenes\n"
        f"  {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}"
    )


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder in the layout of ESC-50")
    parser.add_argument("--to", type=Path, required=True, help="folder that the scenes are written to")
    for split, folds in zip(SPLITS, ([1, 2, 3], [4], [5]), strict=True):
        parser.add_argument(f"--{split}-folds", type=int, nargs="+", default=folds, metavar="FOLD")
    parser.add_argument("--clips", type=int, nargs=3, default=[600, 100, 200], metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a scene")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that this program made earlier")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    folds = {split: sorted(getattr(options, f"{split}_folds")) for split in SPLITS}
    twice = [fold for fold, count in Counter(f for part in folds.values() for f in part).items() if count > 1]
    if twice:
        raise UsageError(f"fold {twice[0]} is given twice", cure="splits must not share recordings")
    if min(options.clips) < 1 or not 1 <= options.seconds <= 600:
        raise UsageError("each split needs a scene, and a scene lasts 1 to 600 s")
    target: Path = options.to
    standing = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if standing and not (options.overwrite and (target / _RECORD).is_file()):
        made_here = target.is_dir() and (target / _RECORD).is_file()
        raise UsageError(
            "holds scenes already" if made_here else "is there and holds something else",
            place=str(target),
            cure="Give --overwrite to replace them." if made_here else "Give --to another folder.",
        )
    library = Library(options.source)
    clips = dict(zip(SPLITS, options.clips, strict=True))
    with translate_failure(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, old = temporary_name(target), temporary_name(target)
        try:
            made = write_scenes(library, partial, folds, clips, round(options.seconds * 1000), options.seed)
            settings = {"version": VERSION, "folds": folds, "clips": clips, "seconds": options.seconds}
            record = {**settings, "seed": options.seed, "not_used": sorted(library.silent)}
            (partial / _RECORD).write_text(json.dumps(record, indent=1) + "\n")
            if standing:
                target.rename(old)
            publish_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not target.exists():
                old.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    print("\n".join(summary(split, scenes) for split, scenes in made.items()))
    if library.silent:
        print(f"not used, no sound of {SHORTEST} ms in them: {', '.join(sorted(library.silent))}")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(read_arguments(arguments))
    except C2FError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
