"""What logging every step costs a training loop: steps that log and are tracked, against steps that do not log.

One JSON line. `share` is the median over pairs of blocks of (tracked - plain) / plain. The blocks run in turn, which of
them goes first alternates, and a block starts when MLflow has everything, so that none pays for another.
`share_cpu` is the same for the processor time of the training thread, which a busy machine disturbs less, and
`share_writing` the part that the loop itself spends on writing the line. The step is a small transformer's, of about
20 ms on one core.

    python tests/benchmarks/bench_tracking.py [--pairs 8] [--steps 200]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from c2ftool.engine.metrics_log import MetricsLog
from c2ftool.engine.tracking import Tracker
from c2ftool.spec.running import Tracking


class Training:
    """A small model and its steps."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(96, 4, 192, dropout=0.0, batch_first=True)
        self.model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.x = torch.randn(6, 64, 96)

    def step(self) -> float:
        """One step; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(self.x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Tracked:
    """A run folder with a tracker that has started up."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "run"
        self.folder.mkdir()
        self.log = MetricsLog(self.folder / "metrics.jsonl")
        self.step = 0
        self.writing = 0.0
        self.tracker = Tracker(
            settings=Tracking(uri=f"sqlite:///{root}/mlflow.db"), folder=self.folder, runs_root=root, name="run",
            params={}, tags={}, warn=print,
        ).start()  # fmt: skip
        self.write(0.0)
        self.wait()

    def write(self, loss: float) -> None:
        """Log a step as the engine does."""
        started = time.perf_counter()
        values = {"loss": loss, "loss/clip": loss, "loss/frame": loss, "lr": 5e-4, "gradient_norm": loss}
        self.log.write("train", self.step, "bench", values)
        self.step += 1
        self.writing += time.perf_counter() - started

    def wait(self) -> None:
        """Wait until MLflow has everything."""
        cursor = self.folder / "tracking.json"
        while not cursor.exists() or json.loads(cursor.read_text())["sent"].get("train") != self.step - 1:
            time.sleep(0.1)


def seconds(training: Training, steps: int, tracked: Tracked | None) -> tuple[float, float]:
    """(wall-clock, processor) time of a block of steps."""
    started, processor = time.perf_counter(), time.thread_time()
    for _ in range(steps):
        loss = training.step()
        if tracked is not None:
            tracked.write(loss)
    return time.perf_counter() - started, time.thread_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training = Training()
    with tempfile.TemporaryDirectory() as root:
        tracked = Tracked(Path(root))
        seconds(training, 50, None)
        tracked.writing = 0.0
        plain: list[tuple[float, float]] = []
        with_tracking: list[tuple[float, float]] = []
        for pair in range(options.pairs):
            for on in (pair % 2 == 0, pair % 2 == 1):
                took = seconds(training, options.steps, tracked if on else None)
                (with_tracking if on else plain).append(took)
                tracked.wait()
        tracked.tracker.finish("FINISHED")
        tracked.log.close()
    pairs = list(zip(with_tracking, plain, strict=True))
    share, share_cpu = (statistics.median(a[i] / b[i] - 1 for a, b in pairs) for i in (0, 1))
    result = {
        "benchmark": "tracking",
        "share": round(share, 4),
        "share_cpu": round(share_cpu, 4),
        "share_writing": round(tracked.writing / sum(wall for wall, _ in with_tracking), 5),
        "step_ms": round(1000 * statistics.median(wall for wall, _ in plain) / options.steps, 2),
        "values_per_step": 5,
        "wanted": 0.01,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
