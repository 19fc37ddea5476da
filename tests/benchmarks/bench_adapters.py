"""A training step with adapters on a frozen body against one that trains the whole body; JSON lines.

A step is forward, backward and the optimiser's (AdamW), of AST-base on EPIC-SOUNDS' input (400 frames, 8 x 25 tokens,
44 classes). Both run in turn, and the ratio is the median over pairs. Memory: what the process's peak rises by from
before the model is built, each in a process of its own. What the steps leave behind is looked at, too: gradients and
optimiser state of frozen tensors.

    python tests/benchmarks/bench_adapters.py [--pairs 4] [--clips 4]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from c2ftool.adapters.insert import item_of
from c2ftool.engine.optimizer import build_optimizer
from c2ftool.models.build import build_classifier
from c2ftool.models.initialise import initialise
from c2ftool.spec.adapters import LookAside, Lora, Parallel, decided
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens
from c2ftool.spec.train import AdamW

CLASSES = 44
TOKENS = Tokens(frames=400, mels=128, patch=[16, 16], stride=[16, 16], time=25, frequency=8)
WAYS = {
    "full fine-tuning": None,
    "look-aside, attention (T), rank 36": [LookAside(kind="loaa", at="attention", axis="time", rank=36)],
    "look-aside, attention (T) + MLP (F), rank 36": [
        LookAside(kind="loaa", at="attention", axis="time", rank=36),
        LookAside(kind="loaa", at="feed_forward", axis="frequency", rank=36),
    ],
    "parallel, both, rank 108": [Parallel(kind="parallel", at="both", rank=108)],
    "low rank 8 of qkv": [Lora(kind="lora")],
}


def stepper(way: str, clips: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], float]]:
    """(model, optimiser, takes a step and gives its seconds)."""
    items = WAYS[way]
    spec = Model(
        backbone="ast_base",
        freeze="none" if items is None else "body",
        head=ClipHead(kind="clip", pool="cls", norm=True),
    )
    model = build_classifier(spec, TOKENS, CLASSES, decided(list(items or []), [768] * 12)).train()
    initialise(model, 0)
    learning = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    optimizer = build_optimizer(learning, AdamW(kind="adamw", lr=1e-4), 12)
    x, y = torch.randn(clips, TOKENS.frames, TOKENS.mels), torch.arange(clips) % CLASSES

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - started

    return model, optimizer, step


def peak(way: str, clips: int) -> float:
    """Bytes by which the peak rises, in this process."""
    before = _high()
    model, _, step = stepper(way, clips)
    for _ in range(2):
        step()
    assert model is not None
    return _high() - before


def _high() -> float:
    """The most bytes that the process has held. That of `resource` would be the parent's, where that is more."""
    return 1024.0 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(peak(given.peak, given.clips))
        return

    def held(way: str) -> float:
        line = [sys.executable, __file__, "--clips", str(given.clips), "--peak", way]
        return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    full_memory = held("full fine-tuning")
    _, _, full = stepper("full fine-tuning", given.clips)
    full()
    for way in list(WAYS)[1:]:
        model, optimizer, step = stepper(way, given.clips)
        step()
        ratios, times = [], []
        for _ in range(given.pairs):
            a, b = full(), step()
            ratios.append(a / b)
            times.append(b)
        frozen = [p for p in model.parameters() if not p.requires_grad]
        memory = held(way)
        line = {
            "benchmark": "a step that trains the whole body, against one with adapters: AST-base, 400 frames",
            "adapters": way,
            "clips": given.clips,
            "ratio": round(statistics.median(ratios), 3),
            "wanted": "at least 1.3",
            "memory_share": round(memory / full_memory, 3),
            "memory_gb": round(memory / 1e9, 2),
            "full_memory_gb": round(full_memory / 1e9, 2),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "adapters_parameters": sum(p.numel() for n, p in model.named_parameters() if item_of(n)),
            "gradients_of_frozen": sum(p.grad is not None for p in frozen),
            "optimizer_state_of_frozen": sum(p in optimizer.state for p in frozen),
            "seconds": round(statistics.median(times), 3),
            "torch_threads": torch.get_num_threads(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
