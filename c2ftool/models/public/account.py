"""What becomes of a published file's tensors: the account that every reader of a layout keeps.

The blocks of all published transformers here are timm's, so their names are told here as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from c2ftool.spec.backbones import BACKBONES

State = dict[str, Tensor]
Pair = tuple[int, int]

LAYER = re.compile(r"(.+)\.(weight|bias)")
BLOCK = re.compile(r"blocks\.\d{1,3}\.(?:norm1|attn\.qkv|attn\.proj|norm2|mlp\.fc1|mlp\.fc2)")
_BLOCK_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Report:
    """What became of every tensor of a file. Names are the file's, but for `missing`, which are ours.

    backbone: the name of the size that the tensors have; None if it is not a known one. notes: what else a reader of
    the file must know, a sentence each.
    """

    layout: str
    backbone: str | None
    loaded: list[str]
    ignored: dict[str, str]  # name -> why
    unexpected: list[str]
    missing: list[str]
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is missing and nothing was left over."""
        return not (self.unexpected or self.missing)

    def __str__(self) -> str:
        parts = [f"{self.layout}: {len(self.loaded)} tensors loaded"]
        if self.ignored:
            parts.append(f"{len(self.ignored)} ignored ({'; '.join(sorted(set(self.ignored.values())))})")
        for word, names in (("unexpected", self.unexpected), ("missing", self.missing)):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:4])}{more})")
        return "; ".join([", ".join(parts), *self.notes])


@dataclass(frozen=True)
class Adapted:
    """Published weights under our names, float32. Parts that the file does not have are empty.

    grid: (time, frequency) that the file's table of positions is made for; patch: (time, mel) of its kernel. None where
    there is no such table or kernel, or the file does not tell.
    """

    backbone: State
    head: State
    decoder: State
    teacher: State  # of the backbone
    report: Report
    grid: Pair | None = None
    patch: Pair | None = None


@dataclass
class Sorting:
    """The account while a file is read."""

    parts: dict[str, State] = field(default_factory=lambda: {p: {} for p in ("backbone", "head", "decoder", "teacher")})
    loaded: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    def place(self, name: str, part: str, ours: str | None, tensor: Tensor) -> None:
        """Put a tensor where it belongs; without a name of ours, or where its place is taken, it is unexpected."""
        if ours is None or ours in self.parts[part]:
            self.unexpected.append(name)
        else:
            self.parts[part][ours] = tensor.float() if tensor.is_floating_point() else tensor
            self.loaded.append(name)

    def missing(self, expected: Mapping[str, set[str]]) -> list[str]:
        """What the parts should have and do not, as part.name."""
        return [
            f"{part}.{name}" for part, names in expected.items() for name in sorted(names - self.parts[part].keys())
        ]


def known_size(family: str, width: int, depth: int) -> str | None:
    """The backbone of the family that has this width and depth; None if it is not a known one."""
    return next((b.name for b in BACKBONES.values() if (b.family, b.width, b.depth) == (family, width, depth)), None)


def cls_width(backbone: Mapping[str, Tensor]) -> int:
    """The width of the CLS token; 0 where there is none of the usual shape."""
    cls = backbone.get("cls_token")
    return cls.shape[2] if cls is not None and tuple(cls.shape[:2]) == (1, 1) and cls.dim() == 3 else 0


def patch_of(backbone: Mapping[str, Tensor], *, mel_first: bool) -> Pair | None:
    """(time, mel) of the patch kernel, stored (D, 1, mel, time) if mel_first, else (D, 1, time, mel).

    None where there is no kernel of four axes.
    """
    kernel = backbone.get("patch_embed.proj.weight")
    if kernel is None or kernel.dim() != 4:
        return None
    first, second = kernel.shape[2:]
    return (second, first) if mel_first else (first, second)


def depth(state: Mapping[str, Tensor]) -> int:
    """The number of blocks that the names tell of."""
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)


def block_layers(backbone: Mapping[str, Tensor]) -> list[str]:
    """The layers of the blocks in the published order."""
    return [f"blocks.{n}.{layer}" for n in range(depth(backbone)) for layer in _BLOCK_LAYERS]


def tensors_of(layers: Iterable[str]) -> set[str]:
    """Weight and bias of each layer."""
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def renamed_layer(published: str, state: Mapping[str, Tensor], ours: str) -> State:
    """Weight and bias of a layer of ours under the published name. Raises KeyError if one is missing."""
    return {f"{published}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
