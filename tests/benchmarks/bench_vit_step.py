"""Training step of our ViT-shaped backbones against plain timm blocks of equal shape; one JSON line.

A step is forward and backward; `ratio` is timm's time over ours: above 1, ours is quicker. Each backbone is 384 wide
with 12 blocks of 6 heads unless told otherwise, and has the tokens of its own front end and patch. The plain model is a
convolution for the patches (fPaSST: its published stem), learned positions, the tokens in front, timm's blocks in the
order of ours, and a norm. The two run in turn, and the ratio is the median over pairs: a busy machine slows both.

    python tests/benchmarks/bench_vit_step.py [--pairs 8] [--clips 1] [--width 384] [--depth 12] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from c2ftool.models.asit import Asit
from c2ftool.models.ast import Ast
from c2ftool.models.atst import Atst
from c2ftool.models.backbone import PatchBackbone
from c2ftool.models.eat import Eat
from c2ftool.models.fpasst import Fpasst
from c2ftool.models.m2d import M2d
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.resolved import Tokens

BUILT: dict[str, type[PatchBackbone]] = {
    "eat_base": Eat, "ast_base": Ast, "ssast_patch_base": Ast, "ssast_frame_base": Ast, "atst_base": Atst,
    "fpasst_base": Fpasst, "m2d_base": M2d, "asit_base": Asit,
}  # fmt: skip
HEAD_WIDTH = 64


class PostNormBlock(Block):
    """timm's own parts of a block in EAT's order: norm(x + attn(x)), then norm(x + mlp(x))."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class Frames(nn.Module):
    """fPaSST's stem and patches as published: convolutions over images, the first token dropped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = ((1, 16, 2), (16, 32, 1), (32, 64, 2))
        layers = [(nn.Conv2d(old, new, 3, stride, padding=1), nn.GELU()) for old, new, stride in sizes]
        self.stem = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.proj = nn.Conv2d(16, width, (128, 2), padding=(0, 1))

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.proj(stem.reshape(len(stem), 16, 128, -1))[..., 1:]


class Plain(nn.Module):
    """A plain Vision Transformer: (B, 1, mels, frames) to (B, P + N, D)."""

    def __init__(self, ours: PatchBackbone) -> None:
        super().__init__()
        size, tokens, width = ours.size, ours.tokens, ours.width
        sides = tokens.patch[1], tokens.patch[0]
        self.embed = Frames(width) if ours.size.grid == "stem" else nn.Conv2d(1, width, sides, stride=sides)
        self.front = nn.Parameter(torch.zeros(1, size.prefix, width))
        self.positions = nn.Parameter(torch.zeros(1, size.prefix + tokens.count, width))
        block = PostNormBlock if ours.norm_order == "post" else Block
        self.blocks = nn.Sequential(
            *(block(width, size.heads, size.mlp_ratio, qkv_bias=ours.qkv_bias) for _ in range(size.depth))
        )
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        return self.norm(self.blocks(x))


def seconds(model: nn.Module, x: Tensor) -> float:
    """Wall-clock time of one forward and backward pass."""
    wait: Callable[[], object] = torch.cuda.synchronize if x.is_cuda else lambda: None
    model.zero_grad(set_to_none=True)
    wait()
    started = time.perf_counter()
    with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda):
        out = model(x)
    out.float().square().mean().backward()
    wait()
    return time.perf_counter() - started


def compare(ours: PatchBackbone, x: Tensor, pairs: int) -> dict[str, object]:
    """Ratio and medians of (B, frames, mels) features through ours and the plain model; which goes first alternates."""
    theirs = Plain(ours).to(x.device).train()
    images = x.transpose(1, 2)[:, None].contiguous()
    with torch.no_grad():
        shapes = tuple(ours(x).shape), tuple(theirs(images).shape)
    if shapes[0] != shapes[1]:
        raise AssertionError(f"ours makes {shapes[0]}, the plain model {shapes[1]}")
    for _ in range(2):
        seconds(ours, x), seconds(theirs, images)
    mine, other = [], []
    for pair in range(pairs):
        if pair % 2:
            other.append(seconds(theirs, images))
        mine.append(seconds(ours, x))
        if not pair % 2:
            other.append(seconds(theirs, images))
    ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
    medians = {"ours_s": round(statistics.median(mine), 4), "timm_s": round(statistics.median(other), 4)}
    return {"ratio": round(ratio, 3), "tokens": shapes[0][1], **medians}


def tokens_for(name: str) -> Tokens:
    """What a backbone makes of its own front end's input."""
    size = BACKBONES[name]
    return tokens_of(size.frontend.frames, size.frontend.mels, size.patch, size.patch, size.grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--only", nargs="*", choices=BUILT, default=[*BUILT])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    result: dict[str, object] = {"benchmark": "vit_step", "device": options.device, "threads": torch.get_num_threads()}
    ratios: list[float] = []
    for name in options.only:
        shape = {"width": options.width, "depth": options.depth, "heads": options.width // HEAD_WIDTH}
        tokens = tokens_for(name)
        ours = BUILT[name](replace(BACKBONES[name], **shape), tokens).to(options.device).train()
        for parameter in ours.parameters():
            nn.init.normal_(parameter, std=0.02)
        x = torch.randn(options.clips, tokens.frames, tokens.mels, device=options.device)
        figures = compare(ours, x, options.pairs)
        result[name] = figures
        ratios.append(float(str(figures["ratio"])))
    print(json.dumps(result | {"ratio": min(ratios), "wanted": 0.95}))


if __name__ == "__main__":
    main()
