"""A student's step with stored logits of teachers, against the same step without: loading, blending, training.

AudioSet Strong's sizes (447 classes, 250 frames, 10-s clips) and the smallest backbone, where the logits weigh most.
Both kinds of step are taken in turn in one run. Prints one JSON line.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from c2ftool.data.logits import LogitsFile
from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.data.record import write_record
from c2ftool.data.shard import ShardTask, write_made
from c2ftool.data.sources.listing import ClipRef, Event, Listing
from c2ftool.data.taught import Taught
from c2ftool.data.write import shard_name
from c2ftool.engine.device import open_device
from c2ftool.engine.measure import PhaseSteps
from c2ftool.engine.plan import Plan
from c2ftool.engine.selection import facts, select
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import resolve

CLIPS, CLASSES, FRAMES, SECONDS, RATE, STEPS = 64, 447, 250, 10, 16_000, 15
SPEC = """
c2f: 1
name: bench
task: distill
data: {dataset: noise, train: [train], labels: frame}
model: {backbone: atst_micro, head: {kind: frame}}
objective: {kind: detect}
teachers: [{kind: ensemble, logits: LOGITS, weight: 0.9}]
augment: {waveform_mixup: {alpha: 2, probability: 0.5, dominant: true}, spectrogram_mixup: {}}
train: {batch: 16, compile: off, precision: fp32}
phases: [{name: fine, length: 1 epochs}]
"""


def make_set(folder: Path) -> None:
    """Noise with random events."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    classes = [f"class {number}" for number in range(CLASSES)]
    made = []
    for number in range(CLIPS):
        onsets = rng.uniform(0, SECONDS - 1, 9).round(3)
        labels = rng.choice(CLASSES, 9, replace=False)
        events = tuple(Event(float(o), float(o) + 0.9, int(c)) for o, c in zip(onsets, labels, strict=True))
        clip = ClipRef(f"clip-{number}", "", "train", labels=tuple(sorted(map(int, labels))), events=events)
        made.append((clip, rng.integers(-9000, 9000, SECONDS * RATE).astype(np.int16)))
    task = ShardTask(0, folder, folder / shard_name(0, 1), (), ("train",), RATE, "wav")
    report = write_made(task, iter(made))
    listing = Listing("noise", Path("made"), [clip for clip, _ in made], classes, ("train",))
    write_record(folder, "noise", listing, RATE, "wav", [report])


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_set(root / "noise")
        (root / "spec.yaml").write_text(SPEC.replace("LOGITS", str(root / "logits.hdf5")))
        spec = load_file(root / "spec.yaml", []).spec
        selection = select(spec.data, root)
        resolved = resolve(spec, facts(selection, spec.data))
        ids = [selection.source.ids[row] for row in selection.train]
        writer = LogitsWriter(root / "logits.hdf5", ids, selection.names, FRAMES, {})
        logits = np.random.default_rng(1).normal(-4, 2, (CLIPS, CLASSES, FRAMES)).astype(np.float16)
        writer.write(np.arange(CLIPS), logits)
        writer.finish()
        writer.close()
        file = LogitsFile.open(root / "logits.hdf5")
        columns, has = file.align(selection.names)
        taught = Taught(file, file.find(selection.source.ids), columns, has)
        plan = Plan(resolved, selection, [], 0)
        device = open_device("cpu", "fp32", "off")
        with PhaseSteps(plan, 0, device, 0, taught) as with_them, PhaseSteps(plan, 0, device, 0) as without:
            times: dict[str, list[float]] = {"with": [], "without": []}
            for step in range(STEPS + 3):
                for kind, steps in (("with", with_them), ("without", without)):
                    started = time.perf_counter()
                    steps.step()
                    if step >= 3:
                        times[kind].append(time.perf_counter() - started)
        ratio = median(a / b for a, b in zip(times["with"], times["without"], strict=True))
        print(
            json.dumps(
                {
                    "benchmark": "student step with stored logits, against one without (447 classes x 250 frames)",
                    "backbone": "atst_micro",
                    "clips": 16,
                    "ratio": round(ratio, 3),
                    "wanted": "at most 1.1",
                    "seconds_without": round(median(times["without"]), 4),
                    "torch_threads": torch.get_num_threads(),
                }
            )
        )


if __name__ == "__main__":
    main()
