"""What is published of the data sets that layouts know, so that a cost can be planned where a set is not prepared."""

from __future__ import annotations

from dataclasses import dataclass, field

from c2ftool.data.sources import librispeech
from c2ftool.spec.data import Data, Uniform


@dataclass(frozen=True)
class KnownSet:
    """Published counts of clips. folds: equal parts of the one split, where there are folds."""

    classes: int
    splits: dict[str, int] = field(default_factory=dict)
    folds: int = 0
    multi_label: bool = False


# Counts of the lists; every copy that can be had today is smaller.
KNOWN: dict[str, KnownSet] = {
    "audioset": KnownSet(527, {"balanced": 22_160, "unbalanced": 2_041_789, "eval": 20_371}, multi_label=True),
    "vggsound": KnownSet(309, {"train": 183_730, "test": 15_446}),
    "voxceleb1": KnownSet(1251, {"train": 138_361, "valid": 6_904, "test": 8_251}),
    # the 31 classes of AdaMML; other lists have 32 to 34, and the coarse-to-fine paper about 20,000 and 2,700 clips
    "kinetics_sounds": KnownSet(31, {"train": 22_521, "valid": 1_532, "test": 1_532}),
    "esc50": KnownSet(50, {"train": 2_000}, folds=5),
    "librispeech": KnownSet(0, librispeech.CLIPS),
    # the 447 classes of the training table
    "audioset_strong": KnownSet(447, {"train": 103_463, "eval": 16_996}, multi_label=True),
    "desed": KnownSet(
        10,
        {"synthetic": 10_000, "weak": 1_578, "real": 3_470, "validation": 1_168, "public": 692},
        multi_label=True,
    ),
    "maestro": KnownSet(88, {"train": 185}, folds=5, multi_label=True),
    "speech_commands": KnownSet(35, {"train": 84_843, "valid": 9_981, "test": 11_005}),
}


@dataclass(frozen=True)
class KnownClips:
    """The clips that a `data` section would select of a published set."""

    classes: int
    train: int  # in an epoch
    valid: int
    test: int
    multi_label: bool


def known_clips(data: Data) -> KnownClips | None:
    """What the section would find; None where the set, or one of the splits, is not a published one."""
    known = KNOWN.get(data.dataset)
    named = {*data.train, *data.weak, *data.valid, *data.test}
    if known is None or isinstance(data.classes, list) or not named <= known.splits.keys():
        return None
    train, valid, test = (sum(known.splits[s] for s in splits) for splits in (data.train, data.valid, data.test))
    if data.fold is not None:
        if not known.folds:
            return None
        held_out = train // known.folds
        train, valid, test = train - held_out, held_out, held_out
        if data.valid_fold == "next":
            train -= held_out
    classes = known.classes
    for other in data.also:  # joined sets have no labels
        further = KNOWN.get(other.dataset)
        if further is None or not set(other.train) <= further.splits.keys():
            return None
        train, classes = train + sum(further.splits[s] for s in other.train), 0
    if isinstance(data.sampler, Uniform):
        train *= data.sampler.repeat
    elif data.sampler.clips is not None:
        train = data.sampler.clips
    if data.weak:
        train = round(train / (1 - data.weak_share))
    return KnownClips(classes, train, valid, test, known.multi_label)
