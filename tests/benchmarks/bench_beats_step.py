"""Training step of BEATs' blocks against the same blocks without relative bias and gate: one JSON line.

`ratio` is the time without over the time with: at 1 the bias would cost nothing. Forward and backward of the blocks on
496 tokens (10 s), 768 wide with 12 heads and 384 wide with 6. Without: queries, keys and values go to torch's own fused
attention. Beside it, timm's blocks of the same shape (`timm`). Steps are taken in turn, and a ratio is the median over
pairs, so that a busy machine slows both; on CUDA in bfloat16. Threads that wait do so without spinning: where other
programs run, a step takes several times as long otherwise, and the ratio is that of how often threads wait. `cpu` is
the same ratio of processor time, which other programs disturb less; it is no substitute for `ratio`.

    python tests/benchmarks/bench_beats_step.py [--pairs 8] [--clips 2] [--depth 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from c2ftool.models.beats import DeepNormBlock
from c2ftool.models.relative import GatedAttention, RelativeBias
from c2ftool.spec.backbones import BACKBONES, Backbone, Relative

TOKENS = 496
WANTED = 0.8


class PlainAttention(GatedAttention):
    """The same layers with torch's own attention: no bias, no gate."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PlainBlock(DeepNormBlock):
    def __init__(self, size: Backbone) -> None:
        super().__init__(size)
        self.attn = PlainAttention(size.width, size.heads, 1.0)


class Encoder(nn.Module):
    """The blocks with what they share."""

    def __init__(self, size: Backbone, block: type[DeepNormBlock]) -> None:
        super().__init__()
        assert isinstance(size.shape, Relative)
        self.relative = RelativeBias(size.shape, size.heads)
        self.blocks = nn.ModuleList(block(size) for _ in range(size.depth))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.relative(x.shape[1])
        for block in self.blocks:
            x = block(x, bias)
        return x


class PostNormBlock(Block):
    """timm's own parts of a block, post-norm."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


def timm_blocks(size: Backbone) -> nn.Module:
    """timm's blocks of the same shape."""
    blocks = (PostNormBlock(size.width, size.heads, size.mlp_ratio, qkv_bias=True) for _ in range(size.depth))
    return nn.Sequential(*blocks)


def seconds(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """(wall-clock time, processor time) of one forward and backward pass."""
    wait: Callable[[], object] = torch.cuda.synchronize if x.is_cuda else lambda: None
    model.zero_grad(set_to_none=True)
    wait()
    started, worked = time.perf_counter(), time.process_time()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        out = model(x)
    out.float().square().mean().backward()
    wait()
    return time.perf_counter() - started, time.process_time() - worked


def compare(size: Backbone, clips: int, pairs: int, device: str) -> dict[str, float]:
    """Ratios and median milliseconds of one size."""
    x = torch.randn(clips, TOKENS, size.width, device=device)
    models = {"gated": Encoder(size, DeepNormBlock), "plain": Encoder(size, PlainBlock), "timm": timm_blocks(size)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for model in models.values():
        model.to(device).train()
        seconds(model, x), seconds(model, x)
    for pair in range(pairs):
        for name in list(models)[:: -1 if pair % 2 else 1]:
            times[name].append(seconds(models[name], x))

    def ratio(name: str, of: int) -> float:
        return round(statistics.median(b[of] / a[of] for a, b in zip(times["gated"], times[name], strict=True)), 3)

    medians = {f"{name}_ms": round(1000 * statistics.median(t[0] for t in taken), 1) for name, taken in times.items()}
    return {"ratio": ratio("plain", 0), "cpu": ratio("plain", 1), "timm": ratio("timm", 0)} | medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    result: dict[str, object] = {"benchmark": "beats_step", "device": options.device}
    result["threads"] = torch.get_num_threads()
    ratios: list[float] = []
    for width, heads in ((768, 12), (384, 6)):
        size = replace(BACKBONES["beats_base"], width=width, heads=heads, depth=options.depth)
        result[f"width_{width}"] = measured = compare(size, options.clips, options.pairs, options.device)
        ratios.append(measured["ratio"])
    print(json.dumps(result | {"ratio": min(ratios), "wanted": WANTED}))


if __name__ == "__main__":
    main()
