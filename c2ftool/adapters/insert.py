"""Putting a spec's adapters into a body's blocks.

A block offers two places, `beside_attention` and `beside_mlp`, which are None until something stands there, and linear
layers under `attn` and `mlp`. Tensors of adapters are named by place and item, with an @ before the item, so
that no name can be that of something else: `blocks.0.beside_attention.@a0.down`, `blocks.0.attn.qkv.lora.@a0.up`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from c2ftool.adapters.beside import Beside, BesideBranch, Lay
from c2ftool.adapters.lora import LowRanks, add_low_rank
from c2ftool.spec.adapters import LookAside, Lora, Parallel, Target

Adapter = Parallel | LookAside | Lora

_PLACES = {
    "attention": ["beside_attention"],
    "feed_forward": ["beside_mlp"],
    "both": ["beside_attention", "beside_mlp"],
}
_NAMED = re.compile(r"\.@([^.]+)\.")


def insert(blocks: Sequence[nn.Module], lays: Sequence[Lay], items: Iterable[Adapter]) -> None:
    """Put the items, with their ranks and names, into the blocks. Values are unset until `initialise` or loading."""
    for item in items:
        if item.name is None:
            raise ValueError("an adapter needs its name")
        for place, (block, lay) in enumerate(zip(blocks, lays, strict=True)):
            if item.blocks != "all" and place not in item.blocks:
                continue
            if isinstance(item, Lora):
                for target in item.targets:
                    for layer in layers_of(block, target):
                        add_low_rank(layer, key_of(item.name), item)
                continue
            for slot in _PLACES[item.at]:
                if getattr(block, slot) is None:
                    setattr(block, slot, Beside())
                getattr(block, slot)[key_of(item.name)] = BesideBranch(_width(block), item, lay)


def lay_out(blocks: Iterable[nn.Module], lays: Iterable[Lay]) -> None:
    """Tell the blocks' adapters how tokens lie now."""
    for block, lay in zip(blocks, lays, strict=True):
        for slot in _PLACES["both"]:
            beside = getattr(block, slot, None)
            if beside is not None:
                beside.set_lay(lay)


@contextmanager
def without_adapters(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """The body as it is without them, for the time being."""
    held: list[tuple[nn.Module, str, nn.Module]] = []
    for block in blocks:
        for part in block.modules():
            for slot in (*_PLACES["both"], "lora"):
                standing = getattr(part, slot, None)
                if isinstance(standing, Beside | LowRanks):
                    held.append((part, slot, standing))
    try:
        for part, slot, _ in held:
            setattr(part, slot, None)
        yield
    finally:
        for part, slot, standing in held:
            setattr(part, slot, standing)


def layers_of(block: nn.Module, target: Target) -> list[nn.Linear]:
    """The block's linear layers that a target names: of BEATs, queries, keys and values are three."""
    part = block.attn if target in ("qkv", "proj") else block.mlp
    names = ("q", "k", "v") if target == "qkv" and not hasattr(part, "qkv") else (target,)
    found = [getattr(part, name) for name in names]
    assert all(isinstance(layer, nn.Linear) for layer in found)
    return found


def key_of(item: str) -> str:
    """An item's part of tensors' names."""
    return f"@{item}"


def item_of(name: str) -> str | None:
    """The item that a tensor belongs to, by its name in a body or a student; None for what is no adapter's."""
    found = _NAMED.search(name)
    return found[1] if found else None


def _width(block: nn.Module) -> int:
    scale: Tensor = block.norm1.weight  # type: ignore[assignment, union-attr]
    return len(scale)
