"""Batch norm over the whole batch where it lies on several ranks, also where torch's own exchange cannot (gloo)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; every rank's loss depends on it, so its gradient is the sum over ranks too."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        out = gradients[0].contiguous()
        dist.all_reduce(out)
        return out


def _summed(x: Tensor) -> Tensor:
    out: Tensor = _SumOverRanks.apply(x)
    return out


class GatheredBatchNorm(nn.Module):
    """A batch norm whose statistics in training are of all ranks' clips; parameters and buffers are the norm's."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) normalised over all axes but C, in its own type; statistics are float32."""
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        with torch.autocast(x.device.type, enabled=False):
            return self._over_ranks(x.float()).to(x.dtype)

    def _over_ranks(self, x: Tensor) -> Tensor:
        assert self.momentum is not None
        shape = (1, -1, *[1] * (x.dim() - 2))
        axes = [0, *range(2, x.dim())]
        count = x.new_tensor(float(x.numel() // x.shape[1]))
        # the mean first and deviations from it after: squares of a level 60 dB off zero would lose the digits
        gathered = _summed(torch.cat([x.sum(axes), count[None]]))
        whole = gathered[-1].detach()
        mean = gathered[:-1] / whole
        centred = x - mean.view(shape)
        variance = _summed(centred.square().sum(axes)) / whole
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * whole / (whole - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale.view(shape) + self.bias.view(shape)


def gather_batch_norms(module: nn.Module) -> None:
    """Let the statistics of every batch norm in the module be those of all ranks, in place."""
    if dist.get_backend() == "nccl":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, GatheredBatchNorm(child))
        else:
            gather_batch_norms(child)
