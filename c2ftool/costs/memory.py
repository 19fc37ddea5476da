"""Memory that training holds at the end of a forward pass, counted on the meta device before anything is allocated.

Exact for what it counts: weights, gradients, optimiser states, and the activations that autograd keeps for the backward
pass. Not counted, so that a device needs more: temporaries of the kernels, cuDNN and cuBLAS workspaces, the allocator's
rounding and fragments, the CUDA context, copies of a compiled or distributed model. Counted in the precision that the
module itself computes in; autocast's narrower copies are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by purpose."""

    weights: int  # parameters and buffers
    gradients: int  # of the parameters that train
    optimizer: int
    activations: int  # kept for the backward pass, inputs among them

    @property
    def total(self) -> int:
        """The sum of the parts: a floor under what a device must have."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(
    build: Callable[[], nn.Module], step: Callable[[nn.Module], Tensor], *, optimizer_states: int = 2
) -> TrainingMemory:
    """The bytes that training the module holds, for the clips that `step` makes.

    build, step: as for `costs.flops.clip_flops`. optimizer_states: values kept per trained parameter (AdamW 2, SGD with
    momentum 1). Activations grow in proportion to the clips; count two sizes of batch and extrapolate where the step
    has parts that do not.
    """
    with torch.device("meta"), torch.enable_grad():
        module = build().train()
        activations = saved_bytes(module, lambda: step(module))
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    return TrainingMemory(
        weights=sum(t.nbytes for t in (*module.parameters(), *module.buffers())),
        gradients=trained,
        optimizer=optimizer_states * trained,
        activations=activations,
    )


def saved_bytes(module: nn.Module, run: Callable[[], object]) -> int:
    """The bytes of the storages that autograd keeps while the call runs, each once, without the module's own tensors.

    On any device. On meta, attention counts as the fused kernel that it is elsewhere: no matrix of scores is kept.
    """
    own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages themselves, so that no address is used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with _FusedAttentionOnMeta(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


class _FusedAttentionOnMeta(TorchFunctionMode):
    """Attention of meta tensors keeps what fused attention keeps: queries, keys, values, the result, a sum per row."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention and args and args[0].device.type == "meta":
            return _fused(*args, **kwargs)
        return func(*args, **kwargs)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # kept as a seed, not as a mask, by the kernels that have it
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(repeats, dim=-3) for t in (key, value))
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    learned = attn_mask is not None and attn_mask.requires_grad
    mask = attn_mask.detach() if attn_mask is not None and learned else attn_mask
    out: Tensor = fused(query, key, value, 0.0, is_causal, attn_mask=mask, scale=scale)[0]
    # this kernel knows no gradient of the mask: what made the mask is kept besides
    return out + 0 * attn_mask.sum() if attn_mask is not None and learned else out
