"""Loading int16 batches: the loader's threads against a torch DataLoader over the same memory map. Prints JSON.

Both give (batch, samples) int16 tensors and lengths in the same order; the DataLoader collates with the same padding.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from c2ftool.data.demo import build_demo
from c2ftool.data.loader import TrainLoader
from c2ftool.data.order import Order, Stream
from c2ftool.data.store import PreparedSet
from c2ftool.spec.data import Uniform

BATCH, SAMPLES, WORKERS, REPEATS, STEPS = 48, 160_000, 2, 5, 40


class Clips(Dataset):
    """Clips by place in the same order as the loader's."""

    def __init__(self, source: PreparedSet, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        waveform = self.source.waveform(int(self.rows[place]))[:SAMPLES]
        out = torch.zeros(SAMPLES, dtype=torch.int16)
        out[: len(waveform)] = torch.from_numpy(waveform.copy())
        return out, len(waveform)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = PreparedSet.open(build_demo(Path(folder)))
        train = source.rows(["train"])
        order = Order(train, 0, 0, Uniform(kind="uniform"))
        classes = np.arange(len(source.info.classes))
        loader = TrainLoader(source, Stream(order), BATCH, np.arange(BATCH), SAMPLES, False, classes, WORKERS, False)
        stream = np.concatenate([order.batch(step, BATCH) for step in range(STEPS)])
        ratios, mine = [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            ours = sum(int(batch.lengths.sum()) for batch in loader.steps(0, STEPS))
            middle = time.perf_counter()
            other = DataLoader(Clips(source, stream), BATCH, num_workers=WORKERS)
            theirs = sum(int(lengths.sum()) for _, lengths in other)
            assert ours == theirs
            mine.append(middle - start)
            ratios.append((time.perf_counter() - middle) / (middle - start))
    report = {
        "benchmark": f"loading int16 batches, times a DataLoader with {WORKERS} workers",
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "target": 1.5,
        "clips_per_second": round(BATCH * STEPS / statistics.median(mine)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
