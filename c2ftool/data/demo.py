"""The built-in demo set: 3-s scenes of made sounds with exact strong labels, after Scaper and DESED.

Background noise lies 6 to 20 dB below the events. `train`, `valid`, `test`: each clip has 1 to 4 events of one class.
`scenes_train`, `scenes_test`: 2 to 4 events of as many classes, which may overlap. Classes come in pairs that differ in
time alone (rising and falling, slow and fast, a bell and a bell backwards) with pitch and speed drawn at random, so
that mean spectra do not tell them: a logistic regression on mean log-mel spectra is right for 0.47 of `test`.

The set is a function of its version: made in float64 from counted random words and rounded to 16 bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from c2ftool.data.coding import Int16
from c2ftool.data.prepare import publish
from c2ftool.data.record import SetInfo, read_info, write_record
from c2ftool.data.shard import ShardTask, write_made
from c2ftool.data.sounds import EVENTS, RATE, Dice, background, event
from c2ftool.data.sources.listing import ClipRef, Event, Listing
from c2ftool.data.write import RECORD, shard_name
from c2ftool.errors import C2FError, DataError
from c2ftool.files import lock, translate_failure

NAME = "demo"
DEMO_VERSION = 1
SECONDS = 3.0
CLASSES = list(EVENTS)
SPLITS = {"train": 600, "valid": 100, "test": 200, "scenes_train": 200, "scenes_test": 100}
MEASURED = ("train", "scenes_train")
_SHARD = 200
_SHORTEST, _LONGEST = 0.5, 1.2


def build_demo(root: Path, anew: bool = False) -> Path:
    """The folder of the demo set under `root`, made if it is not there, is of another version, or `anew` is asked.

    Several processes may ask at once: one makes it, the others wait. Raises RunError where it cannot be written.
    """
    target = root / NAME
    if _is_current(target) and not anew:
        return target
    with translate_failure(target):
        root.mkdir(parents=True, exist_ok=True)
        with lock(root / f".{NAME}.lock", wait=True):
            if not _is_current(target) or anew:
                partial = root / f"{NAME}.partial"
                if partial.exists():
                    shutil.rmtree(partial)
                partial.mkdir()
                make_demo(partial)
                publish(partial, target)
    return target


def make_demo(folder: Path, splits: dict[str, int] | None = None) -> SetInfo:
    """Writes the demo set into an empty folder and returns its record; splits: other numbers of clips."""
    names = [(split, index) for split, count in (splits or SPLITS).items() for index in range(count)]
    shards = -(-len(names) // _SHARD)
    made: list[ClipRef] = []

    def clips(part: list[tuple[str, int]]) -> Iterator[tuple[ClipRef, Int16]]:
        for split, index in part:
            clip, samples = make_clip(split, index)
            made.append(clip)
            yield clip, samples

    reports = [
        write_made(
            ShardTask(index, folder, folder / shard_name(index, shards), (), MEASURED, RATE, "wav"),
            clips(names[index * _SHARD : (index + 1) * _SHARD]),
        )
        for index in range(shards)
    ]
    listing = Listing(NAME, Path("built-in"), made, CLASSES, MEASURED)
    return write_record(folder, NAME, listing, RATE, "wav", reports, {"demo_version": DEMO_VERSION})


def make_clip(split: str, index: int) -> tuple[ClipRef, Int16]:
    """The clip of that number in a split, and its samples: (48000,) int16."""
    dice = Dice("c2f demo", DEMO_VERSION, split, index)
    samples = round(SECONDS * RATE)
    events = _scene(dice) if split.startswith("scenes") else _single(dice, index)
    sound = background(dice, samples)
    for item in events:
        start, stop = round(item.onset * RATE), round(item.offset * RATE)
        sound[start:stop] += 10 ** (dice.between(6.0, 20.0) / 20) * event(CLASSES[item.label], dice, stop - start)
    sound *= min(10 ** (dice.between(-40.0, -26.0) / 20), 0.98 / float(np.abs(sound).max()))
    name = f"{split}-{index:04d}"
    labels = tuple(sorted({item.label for item in events}))
    clip = ClipRef(name, f"{name}.wav", split, labels=labels, events=tuple(events))
    return clip, np.rint(sound * 32767).astype(np.int16)


def _single(dice: Dice, index: int) -> list[Event]:
    """1 to 4 events of one class, one after the other; classes take turns, so that each has as many clips."""
    count = 1 + dice.below(4)
    lengths = [dice.between(_SHORTEST, min(_LONGEST, 0.9 * SECONDS / count)) for _ in range(count)]
    gaps = np.sort(dice.uniforms(count)) * (SECONDS - sum(lengths))
    return [
        _event(float(gap) + sum(lengths[:place]), lengths[place], index % len(CLASSES))
        for place, gap in enumerate(gaps)
    ]


def _scene(dice: Dice) -> list[Event]:
    """2 to 4 events of as many classes at random onsets."""
    events = []
    for label in dice.permutation(len(CLASSES))[: 2 + dice.below(3)]:
        length = dice.between(_SHORTEST, _LONGEST)
        events.append(_event(dice.between(0.0, SECONDS - length), length, label))
    return sorted(events, key=lambda item: (item.onset, item.label))


def _event(onset: float, length: float, label: int) -> Event:
    """An event at whole milliseconds: its times are exact in samples and in the table."""
    return Event(round(onset, 3), round(onset + length, 3), label)


def _is_current(target: Path) -> bool:
    """Whether the demo of this version is there; DataError where another set has its name."""
    if not (target / RECORD).is_file():
        return False
    try:
        info = read_info(target)
    except C2FError:
        return False
    if info.layout != NAME:
        raise DataError(
            f"a set of the layout {info.layout} has the name of the built-in demo",
            place=str(target),
            cure="rename its folder",
        )
    return bool(info.sources.get("demo_version") == DEMO_VERSION)
