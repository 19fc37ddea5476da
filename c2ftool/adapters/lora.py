"""Low-rank updates of linear layers (Hu et al., ICLR 2022): y = W x + b + s B A x, s = alpha / rank.

A layer keeps its class and the names of its tensors; the update is a part of it (`lora`), added by a forward hook.
Axes: r rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.spec.adapters import Lora


class LowRank(nn.Module):
    """One update of a layer. down: A (r, inputs); up: B (outputs, r)."""

    def __init__(self, inputs: int, outputs: int, item: Lora) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(item.rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, item.rank))
        self.scale = scale_of(item)

    def forward(self, x: Tensor) -> Tensor:
        """(.., inputs) -> (.., outputs)."""
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def first_value(self, short: str, value: Tensor, generator: torch.Generator) -> None:
        """A Kaiming uniform as peft has it (bound 1 / sqrt(inputs)), B zero."""
        if short == "down":
            bound = 1 / math.sqrt(value.shape[1])
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.zero_()


class LowRanks(nn.ModuleDict):
    """All updates of one layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(.., inputs) -> (.., outputs): their sum."""
        outs = [update(x) for update in self.values()]
        total: Tensor = sum(outs[1:], start=outs[0])
        return total


def add_low_rank(layer: nn.Linear, key: str, item: Lora) -> None:
    """Give the layer an update under this key."""
    updates = getattr(layer, "lora", None)
    if not isinstance(updates, LowRanks):
        updates = LowRanks()
        layer.add_module("lora", updates)
        layer.register_forward_hook(_updated)
    updates[key] = LowRank(layer.in_features, layer.out_features, item)


def _updated(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    lora: Any = getattr(layer, "lora", None)  # None once merged
    return out if lora is None else out + lora(given[0])


_UPDATE = re.compile(r"(.+)\.lora\.@([^.]+)\.(down|up)")


def scales(items: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The scale of every update, by name, of items on record."""
    found = [(str(item["name"]), Lora.model_validate(item)) for item in items if item["kind"] == "lora"]
    return {name: scale_of(item) for name, item in found}


def scale_of(item: Lora) -> float:
    """What an update is multiplied by."""
    return item.alpha / (math.sqrt(item.rank) if item.rslora else item.rank)


def merged_state(state: Mapping[str, Tensor], by: Mapping[str, float], items: Collection[str]) -> dict[str, Tensor]:
    """The tensors with these items' updates added to the layers' weights. by: the scale of each update.

    Raises ValueError naming an item that is no low-rank update: what has a non-linearity inside cannot be merged.
    """
    if stuck := sorted(set(items) - by.keys()):
        raise ValueError(f"{', '.join(stuck)}, which cannot be merged (a non-linearity stands between down and up)")
    updates: dict[str, dict[str, dict[str, Tensor]]] = {}
    rest = {}
    for name, value in state.items():
        found = _UPDATE.fullmatch(name)
        if found and found[2] in items:
            updates.setdefault(found[1], {}).setdefault(found[2], {})[found[3]] = value
        else:
            rest[name] = value
    for layer, parts in updates.items():
        pairs = [(by[item], pair["down"], pair["up"]) for item, pair in parts.items()]
        rest[f"{layer}.weight"] = _merged(rest[f"{layer}.weight"], pairs)
    return rest


def _merged(weight: Tensor, pairs: Iterable[tuple[float, Tensor, Tensor]]) -> Tensor:
    """Summed in float64 and rounded once."""
    total = weight.double()
    for scale, down, up in pairs:
        total = total + scale * (up.double() @ down.double())
    return total.to(weight.dtype)


@torch.no_grad()
def merge_low_ranks(module: nn.Module) -> list[str]:
    """Add every update to its layer's weights and take it out; the layers' names. Outputs agree to rounding."""
    merged = []
    for name, layer in module.named_modules():
        updates: Any = getattr(layer, "lora", None)
        if isinstance(layer, nn.Linear) and isinstance(updates, LowRanks):
            pairs = [(update.scale, update.down, update.up) for update in updates.values()]
            layer.weight.copy_(_merged(layer.weight, pairs))  # type: ignore[arg-type]
            layer.lora = None  # type: ignore[assignment]
            merged.append(name)
    return merged
