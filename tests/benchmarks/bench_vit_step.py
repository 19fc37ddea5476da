"""Training step of our ViT body against timm's of equal shape: forward and backward, one JSON line.

`ratio` is timm's time over ours: above 1, ours is quicker. The body is eat_small's (384 wide, 12 blocks, 6 heads) on
512 patch tokens and CLS. timm's blocks are given the order of ours (post-norm) and, beside it, their own (pre-norm).
The two run in turn, and the ratio is the median over pairs, so that a busy machine slows both.

    python tests/benchmarks/bench_vit_step.py [--pairs 8] [--clips 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from c2ftool.models.eat import Eat
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of

FRAMES, MELS = 1024, 128


class PostNormBlock(Block):
    """timm's own parts of a block in EAT's order: norm(x + attn(x)), then norm(x + mlp(x))."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


def timm_model(block: type[nn.Module]) -> nn.Module:
    """A plain timm model of eat_small's shape."""
    size = BACKBONES["eat_small"]
    return VisionTransformer(
        img_size=(FRAMES, MELS), patch_size=size.patch[0], in_chans=1, num_classes=0, global_pool="", block_fn=block,
        embed_dim=size.width, depth=size.depth, num_heads=size.heads, mlp_ratio=size.mlp_ratio, embed_layer=PatchEmbed,
    )  # fmt: skip


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


def compare(ours: nn.Module, theirs: nn.Module, x: Tensor, pairs: int) -> tuple[float, float, float]:
    """(median of theirs / ours, median seconds of ours, of theirs); which goes first alternates."""
    images = x[:, None]
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
    return ratio, statistics.median(mine), statistics.median(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(options.clips, FRAMES, MELS, device=options.device)
    ours = Eat(BACKBONES["eat_small"], tokens_of(FRAMES, MELS, (16, 16))).to(options.device).train()
    result: dict[str, object] = {"benchmark": "vit_step", "device": options.device, "threads": torch.get_num_threads()}
    ratios: list[float] = []
    for name, block in (("post_norm", PostNormBlock), ("pre_norm", Block)):
        theirs = timm_model(block).to(options.device).train()
        ratio, mine, other = compare(ours, theirs, x, options.pairs)
        result[name] = {"ratio": round(ratio, 3), "ours_s": round(mine, 4), "timm_s": round(other, 4)}
        ratios.append(ratio)
    print(json.dumps(result | {"ratio": round(min(ratios), 3), "wanted": 0.95}))


if __name__ == "__main__":
    main()
