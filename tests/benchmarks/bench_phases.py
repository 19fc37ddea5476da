"""Does wall-clock follow FLOPs? Steps of coarse phases against full resolution, data loading included.

For each compression method a run of three phases (factors 4, 2, 1) is set up on 10-second clips; their steps are taken
in turn, so that a busy machine slows all alike. Prints one JSON line: for each phase the FLOPs and the time of a step
relative to factor 1, and `follows`, the speed-up reached as a share of the one that the FLOPs promise. AST-base on a
GPU, AST-small on a CPU.

    python tests/benchmarks/bench_phases.py [--rounds 7] [--backbone ast_small] [--batch 12] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch

METHODS = {
    "fshift": "{{method: fshift, factor: {c}}}",
    "avg_pool": "{{method: pool, reduce: avg, factor: {c}}}",
    "max_pool": "{{method: pool, reduce: max, factor: {c}}}",
    "patch_pi": "{{method: patch, factor: {c}}}",
}
SPEC = """
c2f: 1
name: bench
task: finetune
data: {{dataset: clips, train: [train]}}
model: {{backbone: {backbone}, head: {{kind: clip}}}}
objective: {{kind: classify, loss: bce}}
augment: {{spec_augment: {{frequency: 0.375, time: 0.1875, fill: log_mel}}}}
train: {{batch: {batch}, optimizer: {{kind: adam, lr: 1e-5}}, schedule: {{kind: constant}}}}
phases:
  - {{name: c4, length: 1000 steps, compression: {c4}}}
  - {{name: c2, length: 1000 steps, compression: {c2}}}
  - {{name: c1, length: 1000 steps}}
tracking: {{kind: none}}
"""


def prepare_clips(folder: Path, count: int) -> None:
    """A prepared set of 10-second clips of noise, two classes."""
    from c2ftool.cli.main import app

    rng = np.random.default_rng(1)
    for number in range(count):
        place = folder / "audio" / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{number}.wav", 0.1 * rng.standard_normal(160_000), 16_000, subtype="PCM_16")
    os.environ["C2F_DATA"] = str(folder / "data")
    app(["prepare", "folder", "--from", str(folder / "audio"), "--name", "clips"], standalone_mode=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backbone", default="ast_base" if on_gpu else "ast_small")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    options = parser.parse_args()

    from c2ftool.engine.device import open_device
    from c2ftool.engine.measure import PhaseSteps
    from c2ftool.engine.plan import plan
    from c2ftool.engine.train import Options, loader_threads
    from c2ftool.spec.load import load_file

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_clips(folder, 4 * options.batch)
        device = open_device(options.device, "auto", "auto")
        result: dict[str, object] = {"benchmark": "phases", "backbone": options.backbone, "batch": options.batch}
        result |= {"device": device.name(), "precision": device.precision}
        worst = 9.0
        for method, form in METHODS.items():
            path = folder / f"{method}.yaml"
            c4, c2 = form.format(c=4), form.format(c=2)
            path.write_text(SPEC.format(backbone=options.backbone, batch=options.batch, c4=c4, c2=c2))
            planned = plan(load_file(path, []), Options(data_root=folder / "data", runs_root=folder / "runs"))
            threads = loader_threads(planned.resolved, device)
            with ExitStack() as stack:
                phases = [stack.enter_context(PhaseSteps(planned, index, device, threads)) for index in range(3)]
                for phase in phases * 2:
                    phase.step()
                times = [[phase.step()[0] for phase in phases] for _ in range(options.rounds)]
            seconds = [median(column) for column in zip(*times, strict=True)]
            flops = [cost.clip.training for cost in planned.costs]
            lines = {}
            for place, factor in enumerate((4, 2)):
                share, taken = flops[place] / flops[2], seconds[place] / seconds[2]
                lines[f"c{factor}"] = {
                    "flops": round(share, 4),
                    "time": round(taken, 4),
                    "follows": round(share / taken, 3),
                    "step_s": round(seconds[place], 4),
                }
                worst = min(worst, share / taken)
            result[method] = lines | {"c1_step_s": round(seconds[2], 4)}
        print(json.dumps(result | {"ratio": round(worst, 3), "wanted": 0.95}))


if __name__ == "__main__":
    main()
