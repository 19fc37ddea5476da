"""Parity cases that are tables of numbers, without a model to fill. RUN_TABLES maps a kind to its lines.

Such a case has no `model` field: it is recognised by the list it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from c2ftool.compression.grid import token_grid
from c2ftool.costs.flops import clip_flops
from c2ftool.models.build import build_classifier
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens

Case = dict[str, Any]

LISTS = {"cases": "forward_macs", "rows": "coarse_to_fine_savings"}  # the list that a table holds -> its kind


@dataclass(frozen=True)
class Line:
    """One output of a case: its error, relative unless its kind says otherwise, and what is allowed.

    skipped: why nothing was computed; such a line is neither good nor wrong.
    """

    output: str
    error: float
    allowed: float
    skipped: str | None = None

    @property
    def good(self) -> bool:
        return self.skipped is None and self.error <= self.allowed

    @property
    def wrong(self) -> bool:
        return self.skipped is None and not self.good


def kind_of(case: Case) -> str:
    """A case's kind: its `model` field, or of a table what it lists. Raises KeyError where it has neither."""
    listed = [kind for field, kind in LISTS.items() if isinstance(case.get(field), list)]
    return listed[0] if "model" not in case and listed else case["model"]


def forward_macs(case: Case) -> list[Line]:
    """Multiply-accumulates of one clip, counted as c2ftool counts FLOPs; they must be equal."""
    lines = []
    for row in case["cases"]:
        sizes = [f"{name} {row[name]}" for name in ("frames", "image_size", "stride") if name in row]
        about = " ".join([row["model"], *sizes])
        recorded = [name for name in ("forward_macs", "forward_backward_macs") if name in row]
        if (backbone := _backbone(row)) is None:
            lines += [Line(f"{about} {name}", 0.0, 0.0, "no such backbone yet") for name in recorded]
            continue
        counted = _macs(backbone, row)
        lines += [Line(f"{about} {name}", abs(counted[name] / row[name] - 1), 0.0) for name in recorded]
    return lines


def _backbone(row: Case) -> str | None:
    """The name of ours that has the family and the size."""
    size = (row["model"], row["embed_dim"], row.get("depth"), row["heads"])
    return next((b.name for b in BACKBONES.values() if (b.family, b.width, b.depth, b.heads) == size), None)


def _macs(backbone: str, row: Case) -> dict[str, int]:
    # pairs are (mel, time) in the case and (time, mel) here
    patch, stride = (row["patch"][1], row["patch"][0]), (row["stride"][1], row["stride"][0])
    time, frequency = token_grid(row["frames"], row["mel_bins"], patch, stride)
    tokens = Tokens(
        frames=row["frames"], mels=row["mel_bins"], patch=[*patch], stride=[*stride], time=time, frequency=frequency
    )
    model = Model(backbone=backbone, head=ClipHead(kind="clip", pool="cls"))

    def step(classifier: nn.Module) -> torch.Tensor:
        return classifier(torch.empty(1, row["frames"], row["mel_bins"]))

    flops = clip_flops(lambda: build_classifier(model, tokens, row["classes"]), step)
    return {"forward_macs": flops.forward // 2, "forward_backward_macs": flops.training // 2}


RUN_TABLES: dict[str, Callable[[Case], list[Line]]] = {"forward_macs": forward_macs}
