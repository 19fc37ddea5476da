"""What the files of Schmid et al. (ICASSP 2025; checkpoints of fschmid56/PretrainedSED) have in common.

A file is a flat dictionary: the encoder behind a prefix that begins with `model.`, then strong_head and weak_head, the
linear layers over frames and over their mean. A teacher's file has a recurrent network between, seq_model.rnn.

Our names: head {strong, weak, rnn.*}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from c2ftool.models.public.account import (
    BLOCK,
    LAYER,
    Adapted,
    Pair,
    Report,
    Sorting,
    State,
    depth,
    known_size,
    renamed_layer,
    tensors_of,
)

_HEADS = {"strong_head": "strong", "weak_head": "weak"}
_SEQUENCE = "seq_model."
_RNN = re.compile(r"rnn\.(?:weight|bias)_(?:ih|hh)_l(\d)(?:_reverse)?")


@dataclass(frozen=True)
class Encoder:
    """How the files of a family name its encoder.

    label: of the layout. prefixes: behind which it stands; the first that fits a name is taken off. layers, single:
    published name -> ours, of layers (weight and bias) and of other tensors; blocks have the same names everywhere.
    ignored: what is behind such a prefix and not needed -> why. passed: prefixes of what is not needed -> why.
    """

    family: str
    label: str
    prefixes: tuple[str, ...]
    layers: Mapping[str, str]
    single: Mapping[str, str]
    ignored: Mapping[str, str]
    passed: Mapping[str, str]

    def short(self, name: str) -> str | None:
        """The name without its prefix; None if it has none of them."""
        return next((name[len(prefix) :] for prefix in self.prefixes if name.startswith(prefix)), None)

    def own(self, short: str) -> str | None:
        """Our name of a tensor of the encoder; None if it is none of them."""
        if short in self.single:
            return self.single[short]
        match = LAYER.fullmatch(short)
        if match is None:
            return None
        return f"{self.layers[match[1]]}.{match[2]}" if match[1] in self.layers else short if _block(match[1]) else None

    def tensors(self, blocks: Iterable[str]) -> set[str]:
        """The names of ours that an encoder of these layers of blocks must have."""
        return {*self.single.values()} | tensors_of([*self.layers.values(), *blocks])


def _block(layer: str) -> bool:
    return BLOCK.fullmatch(layer) is not None


def sort(
    tensors: Mapping[str, Tensor], encoder: Encoder, convert: Callable[[str, Tensor], Tensor] | None = None
) -> Sorting:
    """Every tensor of a file in its place. convert: makes one of ours of a published one, given our name."""
    sorting = Sorting()
    for name, tensor in tensors.items():
        reason = next((why for prefix, why in encoder.passed.items() if name.startswith(prefix)), None)
        short = encoder.short(name)
        if (head := head_name(name)) is not None:
            sorting.place(name, "head", head, tensor)
        elif reason is not None:
            sorting.ignored[name] = reason
        elif short is not None and short in encoder.ignored:
            sorting.ignored[name] = encoder.ignored[short]
        else:
            ours = None if short is None else encoder.own(short)
            sorting.place(name, "backbone", ours, convert(ours, tensor) if convert and ours else tensor)
    return sorting


def adapted(
    sorting: Sorting, encoder: Encoder, expected: set[str], grid: Pair | None, patch: Pair | None, *notes: str
) -> Adapted:
    """What was sorted, with its account. expected: the names of the encoder's tensors."""
    backbone, head = sorting.parts["backbone"], sorting.parts["head"]
    report = Report(
        layout=encoder.label if head else f"{encoder.label} without a head",
        backbone=known_size(encoder.family, width(backbone), depth(backbone)),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({"backbone": expected, "head": head_tensors(head)}),
        notes=tuple(note for note in notes if note),
    )
    return Adapted(backbone, head, {}, {}, report, grid, patch)


def head_name(name: str) -> str | None:
    """Our name of a tensor of the heads or of the network before them; None if it is none of them."""
    if name.startswith(_SEQUENCE) and _RNN.fullmatch(short := name.removeprefix(_SEQUENCE)):
        return short
    match = LAYER.fullmatch(name)
    return f"{_HEADS[match[1]]}.{match[2]}" if match and match[1] in _HEADS else None


def head_tensors(head: Mapping[str, Tensor]) -> set[str]:
    """The names that heads must have: none of them, or both layers; a recurrent network's layers are whole."""
    if not head:
        return set()
    return tensors_of(_HEADS.values()) | {name for layer in range(_layers(head)) for name in _recurrent(layer)}


def public_head(head: Mapping[str, Tensor]) -> State:
    """The heads, and the network before them, under their published names; none for none.

    Raises KeyError where a tensor is missing.
    """
    public = {f"{_SEQUENCE}{name}": head[name] for layer in range(_layers(head)) for name in _recurrent(layer)}
    for published, ours in _HEADS.items() if head else ():
        public |= renamed_layer(published, head, ours)
    return public


def _layers(head: Mapping[str, Tensor]) -> int:
    """The layers of the recurrent network that the names tell of."""
    return 1 + max((int(match[1]) for name in head if (match := _RNN.fullmatch(name))), default=-1)


def _recurrent(layer: int) -> list[str]:
    """The tensors of one layer of a bidirectional network, in torch's order."""
    kinds = [f"{kind}_{gates}" for kind in ("weight", "bias") for gates in ("ih", "hh")]
    return [f"rnn.{kind}_l{layer}{way}" for way in ("", "_reverse") for kind in kinds]


def width(backbone: Mapping[str, Tensor]) -> int:
    """The width of the last norm; 0 where there is none."""
    norm = backbone.get("norm.weight")
    return norm.shape[0] if norm is not None and norm.dim() == 1 else 0


def rows(backbone: Mapping[str, Tensor], table: str, prefix: int) -> int:
    """The rows of a table (1, prefix + rows, D) of positions; 0 where there is no such table."""
    positions = backbone.get(table)
    return max(0, positions.shape[1] - prefix) if positions is not None and positions.dim() == 3 else 0


def grid_of(count: int, patch: Pair | None, mels: int) -> tuple[Pair | None, str]:
    """((time, frequency) of so many positions of patches without overlap, a sentence where it is not known)."""
    if not count or patch is None or not 0 < patch[1] <= mels:
        return None, "its grid of tokens is not known: there is no table of positions or no patch kernel"
    frequency = mels // patch[1]
    if count % frequency:
        return None, f"its grid of tokens is not known: {count} positions are not {frequency} of each time step"
    return (count // frequency, frequency), ""
