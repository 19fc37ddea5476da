"""First weights: a function of the seed and of each tensor's own name, so adding a part leaves the others as they were.

A backbone's are by its family's rule (`first_value`), adapters' by their own. EAT's decoder keeps torch's default,
uniform with bound 1 / sqrt(fan in). Heads: linear layers truncated normal 0.02 with zero bias, recurrent ones uniform
with bound 1 / sqrt(hidden units) as torch has them, biases too.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from c2ftool.adapters.beside import BesideBranch
from c2ftool.adapters.lora import LowRank
from c2ftool.draws import counted_key
from c2ftool.models.backbone import Backbone
from c2ftool.models.decoder import ConvDecoder


@torch.no_grad()
def initialise(module: nn.Module, seed: int, only: Collection[str] | None = None) -> None:
    """Fill all parameters of the module anew, or `only` those of these names."""
    parts = {f"{name}." if name else "": part for name, part in module.named_modules() if _rules(part)}
    for owner_name, owner in module.named_modules():
        for short, parameter in owner.named_parameters(recurse=False):
            name = f"{owner_name}.{short}" if owner_name else short
            if only is not None and name not in only:
                continue
            # with one seed an encoder starts alike by itself, in a classifier and in a pre-training student
            key = name.removeprefix("backbone.")
            generator = torch.Generator().manual_seed(counted_key(seed, "initialise", key) >> 1)
            value = torch.empty(parameter.shape)
            prefix = next((prefix for prefix in parts if name.startswith(prefix)), None)
            part = None if prefix is None else parts[prefix]
            if isinstance(owner, BesideBranch | LowRank):
                owner.first_value(short, value, generator)
            elif isinstance(part, Backbone):
                part.first_value(owner, short, name.removeprefix(prefix or ""), value, generator)
            elif isinstance(part, ConvDecoder) and not isinstance(owner, nn.LayerNorm):
                bound = 1 / math.sqrt(owner.weight[0].numel())
                value.uniform_(-bound, bound, generator=generator)
            else:
                _first(owner, short, value, generator)
            parameter.copy_(value)


def _rules(module: nn.Module) -> bool:
    """Whether a module has rules of its own for what is in it."""
    return isinstance(module, Backbone | ConvDecoder)


def _first(owner: nn.Module, short: str, value: Tensor, generator: torch.Generator) -> None:
    """Of heads and of what stands beside a backbone."""
    if isinstance(owner, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d):
        value.fill_(1.0 if short == "weight" else 0.0)
    elif isinstance(owner, nn.RNNBase):
        bound = 1 / math.sqrt(owner.hidden_size)
        value.uniform_(-bound, bound, generator=generator)
    elif short == "bias":
        value.zero_()
    else:
        nn.init.trunc_normal_(value, std=0.02, generator=generator)
