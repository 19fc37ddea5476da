"""What each backbone is, read off the network itself: parameters, FLOPs of 10 s, output. For `c2f specs ls`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from c2ftool.costs.flops import count
from c2ftool.models.build import family
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.spec.backbones import BACKBONES, Backbone
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend

PRETRAINED = ("eat", "ssast")  # families that an objective pre-trains


@dataclass(frozen=True)
class Entry:
    """One size. flops: of a forward pass of its full input, about 10 s. rate: of the sequence, per second."""

    size: Backbone
    parameters: int
    flops: int
    rate: float
    width: int  # of a token
    weights: tuple[str, ...]  # what published weights of this size were trained on

    @property
    def uses(self) -> list[str]:
        """The tasks that can train it."""
        return [*(["pretrain"] if self.size.family in PRETRAINED else []), "finetune"]


def catalogue() -> list[Entry]:
    """An entry for every size, in the order of the registry."""
    return [_entry(size) for size in BACKBONES.values()]


def _entry(size: Backbone) -> Entry:
    front, tokens = compressed(
        full_frontend(Frontend(), size, 0.0, 1.0), NoCompression(method="none"), size, size.patch
    )
    with torch.device("meta"), torch.no_grad():
        backbone = family(size.family)(size, tokens).eval()
        flops = count(lambda: backbone(torch.empty(1, tokens.frames, tokens.mels)))
    seconds = front.frames * front.hop / front.sample_rate
    tasks = dict.fromkeys(record.task for record in PUBLIC_WEIGHTS.values() if record.backbone == size.name)
    return Entry(
        size=size,
        parameters=sum(p.numel() for p in backbone.parameters()),
        flops=flops,
        rate=backbone.grid(tokens.frames)[0] / seconds,
        width=backbone.width,
        weights=tuple(tasks),
    )
