"""First weights: a function of the seed and of each tensor's own name, so adding a part leaves the others as they were.

EAT's rules (public code: data2vec 2.0, init_bert_params): linear layers normal(0, 0.02) with zero bias; the patch
convolution Xavier uniform over its flattened kernel; CLS normal(0, 1); LayerNorm one and zero. The decoder's linear
and convolutions keep torch's default, uniform with bound 1 / sqrt(fan in). Heads truncated normal 0.02.
AST's (timm's DeiT): linear layers, learned positions, class and distillation token truncated normal 0.02; the patch
convolution as EAT's.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from c2ftool.draws import counted_key
from c2ftool.models.ast import Ast
from c2ftool.models.decoder import ConvDecoder


@torch.no_grad()
def initialise(module: nn.Module, seed: int, only: Collection[str] | None = None) -> None:
    """Fill all parameters of the module anew, or `only` those of these names."""
    decoders = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, ConvDecoder))
    asts = tuple(f"{name}." if name else "" for name, part in module.named_modules() if isinstance(part, Ast))
    for owner_name, owner in module.named_modules():
        for short, parameter in owner.named_parameters(recurse=False):
            name = f"{owner_name}.{short}" if owner_name else short
            if only is not None and name not in only:
                continue
            # with one seed an encoder starts alike by itself, in a classifier and in a pre-training student
            key = name.removeprefix("backbone.")
            generator = torch.Generator().manual_seed(counted_key(seed, "initialise", key) >> 1)
            ours = any(name.startswith(prefix) for prefix in asts)
            parameter.copy_(_first(owner, short, name, parameter, generator, name.startswith(decoders), ours))


def _first(
    owner: nn.Module,
    short: str,
    name: str,
    parameter: Tensor,
    generator: torch.Generator,
    decoder: bool,
    ast: bool,
) -> Tensor:
    value = torch.empty(parameter.shape)
    if isinstance(owner, nn.LayerNorm):
        return value.fill_(1.0 if short == "weight" else 0.0)
    if decoder:
        weight = owner.weight
        bound = 1 / math.sqrt(weight[0].numel())  # type: ignore[index]
        return value.uniform_(-bound, bound, generator=generator)
    if ast and not isinstance(owner, nn.Conv2d) and short != "bias":
        return nn.init.trunc_normal_(value, std=0.02, generator=generator)
    if short == "cls_token":
        return value.normal_(generator=generator)
    if short == "bias":
        return value.zero_()
    if isinstance(owner, nn.Conv2d):
        fan_out, fan_in = value.flatten(1).shape
        bound = math.sqrt(6 / (fan_in + fan_out))
        return value.uniform_(-bound, bound, generator=generator)
    if name.startswith("head."):
        return nn.init.trunc_normal_(value, std=0.02, generator=generator)
    return value.normal_(0, 0.02, generator=generator)
