"""Optimisers with the parameter groups of the papers: which tensors decay, which blocks learn slower."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from c2ftool.models.layout import Change
from c2ftool.spec.train import Adam, AdamW, Optimizer, Sgd

# what the optimisers keep of each tensor -> which moment of the gradient it is
_ORDERS: dict[str, Literal["first", "second"]] = {
    "exp_avg": "first",
    "exp_avg_sq": "second",
    "momentum_buffer": "first",
}

Moments = dict[str, dict[str, Tensor]]
LayerOf = Callable[[str], int | None]


def parameter_groups(
    parameters: Iterable[tuple[str, Parameter]], optimizer: Optimizer, depth: int, layer_of: LayerOf = lambda name: None
) -> list[dict[str, Any]]:
    """Groups of equal weight decay and equal rate: {"params", "names", "weight_decay", "scale"}.

    Biases and 1-D tensors do not decay, but with Adam and SGD, whose decay is part of the gradient, everything does.
    With layer decay d, what learns as block i of n (`layer_of`) has d^(n - i) of the rate; the rest has the full rate.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim <= 1 or name.endswith(".bias")
        decay = 0.0 if plain and isinstance(optimizer, AdamW) else optimizer.weight_decay
        block = layer_of(name)
        scale = 1.0 if optimizer.layer_decay is None or block is None else optimizer.layer_decay ** (depth - block)
        group = groups.setdefault((scale, decay), {"params": [], "names": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(
    parameters: Iterable[tuple[str, Parameter]], optimizer: Optimizer, depth: int, layer_of: LayerOf = lambda name: None
) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD over the groups, by the fused kernel: one pass over weights, gradients and moments."""
    groups = parameter_groups(parameters, optimizer, depth, layer_of)
    if isinstance(optimizer, Sgd):
        return torch.optim.SGD(groups, lr=optimizer.lr, momentum=optimizer.momentum, fused=True)
    settings = {"lr": optimizer.lr, "betas": tuple(optimizer.betas), "eps": optimizer.eps}
    kind = torch.optim.Adam if isinstance(optimizer, Adam) else torch.optim.AdamW
    return kind(groups, **settings, fused=True)  # type: ignore[arg-type]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its rate: the step's rate times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: torch.optim.Optimizer) -> Moments:
    """The optimiser's state by parameter name: step, exp_avg, exp_avg_sq; of SGD momentum_buffer."""
    return {
        name: dict(optimizer.state[p])
        for group in optimizer.param_groups
        for name, p in zip(group["names"], group["params"], strict=True)
        if p in optimizer.state
    }


def moved(before: Moments, changes: Iterable[Change]) -> tuple[Moments, list[str]]:
    """(moments fitted to resized tensors by the law of gradients, names of tensors whose moments start afresh)."""
    out, fresh = dict(before), []
    for change in changes:
        if change.name not in before or change.kind == "recomputed":
            continue
        if change.kind == "created":
            del out[change.name]
            fresh.append(change.name)
            continue
        held = dict(before[change.name])
        for key, order in _ORDERS.items():
            if isinstance(held.get(key), Tensor):
                held[key] = change.moved(held[key], order)
        out[change.name] = held
    return out, fresh


def set_moments(optimizer: torch.optim.Optimizer, carried: Moments) -> None:
    """Give the optimiser the moments of a phase before, by name."""
    for group in optimizer.param_groups:
        for name, p in zip(group["names"], group["params"], strict=True):
            if name in carried:
                optimizer.state[p] = dict(carried[name])
