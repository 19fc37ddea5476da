"""How many clips of a batch have to stay together because an augmentation mixes them with one another."""

from __future__ import annotations

from dataclasses import dataclass

from c2ftool.spec.augment import Augment


@dataclass(frozen=True)
class Mixing:
    """unit: clips that are mixed within themselves: 1 (none), 2 (each with its mirror) or 4 (so that several kinds of
    mixing take several partners). key: of the augmentation that asks for it. from_set: whether each clip needs a
    further one, drawn from the set."""

    unit: int
    key: str
    from_set: bool


def mixing(augment: Augment) -> Mixing:
    """What an `augment` section asks of a batch."""
    waveform = augment.waveform_mixup
    from_set = waveform is not None and waveform.partner == "set"
    for key in ("spectrogram_mixup", "mix_style"):
        if getattr(augment, key) is not None:
            return Mixing(4, key, from_set)
    if augment.mixup is not None:
        return Mixing(2, "mixup", from_set)
    return Mixing(1 if waveform is None or from_set else 2, "waveform_mixup", from_set)
