"""Optimisers with the parameter groups of the papers: which tensors decay, which blocks learn slower."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter

from c2ftool.models.vit import layer_of
from c2ftool.spec.train import Optimizer


def parameter_groups(
    parameters: Iterable[tuple[str, Parameter]], optimizer: Optimizer, depth: int
) -> list[dict[str, Any]]:
    """Groups of equal weight decay and equal rate: {"params", "names", "weight_decay", "scale"}.

    Biases and 1-D tensors do not decay. With layer decay d, block i of n learns at d^(n - i) of the rate; what is in no
    block (patch embedding, CLS, first LayerNorm, head) at the full rate, as the public EAT code does.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else optimizer.weight_decay
        block = layer_of(name)
        scale = 1.0 if optimizer.layer_decay is None or block is None else optimizer.layer_decay ** (depth - block)
        group = groups.setdefault((scale, decay), {"params": [], "names": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(
    parameters: Iterable[tuple[str, Parameter]], optimizer: Optimizer, depth: int, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over the groups; the fused kernel on CUDA."""
    groups = parameter_groups(parameters, optimizer, depth)
    settings = {"lr": optimizer.lr, "betas": tuple(optimizer.betas), "eps": optimizer.eps}
    fused = {"fused": True} if device.type == "cuda" else {"foreach": True}
    return torch.optim.AdamW(groups, **settings, **fused)  # type: ignore[arg-type]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its rate: the step's rate times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
