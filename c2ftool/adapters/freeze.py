"""What of a student learns: all of it, or its head, its adapters and what is unfrozen beside them."""

from __future__ import annotations

import re

from torch import nn

from c2ftool.adapters.insert import item_of
from c2ftool.spec.model import Model

_BLOCK = re.compile(r"blocks\.(\d+)\.")


def freeze(backbone: nn.Module, model: Model) -> None:
    """Take the gradient from what the section says is frozen; adapters learn always."""
    if model.freeze != "body":
        return
    wanted = model.unfreeze
    norms = {name for name, part in backbone.named_modules() if isinstance(part, nn.LayerNorm)}
    depth = len(backbone.blocks) if hasattr(backbone, "blocks") else 0  # type: ignore[arg-type]
    for name, parameter in backbone.named_parameters():
        owner, _, short = name.rpartition(".")
        block = _BLOCK.match(name)
        late = (
            wanted is not None
            and wanted.last > 0
            and (owner == "norm" or (block and int(block[1]) >= depth - wanted.last))
        )
        parameter.requires_grad_(
            item_of(name) is not None
            or bool(late)
            or (wanted is not None and wanted.norms and owner in norms)
            or (wanted is not None and wanted.biases and short == "bias")
        )


def keep_frozen(backbone: nn.Module) -> None:
    """Leave in evaluation what does not learn: the whole body, or its batch norms, whose statistics would move.

    A batch norm of which only the offset learns stays so, too. Told by its statistics, not by its class: several
    devices have one of their own.
    """
    if not any(p.requires_grad for p in backbone.parameters()):
        backbone.eval()
        return
    for part in backbone.modules():
        scale = getattr(part, "weight", None)
        if hasattr(part, "running_mean") and isinstance(scale, nn.Parameter) and not scale.requires_grad:
            part.eval()
