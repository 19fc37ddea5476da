"""Detection and distillation: one spec, one result. Resumed to the bit, alike for any micro-batch, number of loader
threads and number of processes, with weakly labelled clips, every mixing, partners of the set and stored logits."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c2ftool.engine.cost import PhaseCost, phase_costs
from c2ftool.engine.loop import Loop
from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.signals import PREEMPTED, StopFlag
from c2ftool.engine.train import Options, train
from c2ftool.errors import Preempted
from c2ftool.spec.load import load_file
from c2ftool.spec.resolved import Resolved

ROOT = Path(__file__).parents[2]
TOLERANCE = 2e-4  # sums in another order: float32 rounding, amplified by the steps of training
SPEC = """
c2f: 1
name: golden
task: finetune
seed: 4
data:
  dataset: scenes
  train: [scenes_train]
  weak: [train]
  valid: [scenes_test]
  labels: frame
  sampler: {kind: active_time}
  crop: CROP
  long: slices
frontend: {frames: FRAMES}
model: {backbone: atst_micro, head: {kind: frame, weak: attention, recurrent: {layers: 1, width: 16}}}
objective: {kind: detect, weak_weight: 0.5}
augment:
  waveform_mixup: {alpha: 2, probability: 0.5, dominant: true, partner: set}
  time_roll: {std: 0.125}
  spectrogram_mixup: {alpha: 0.2, probability: 0.7}
  mix_style: {alpha: 0.4, probability: 0.7}
  time_mask: {ratio: 0.2}
  filter_augment: {probability: 0.8}
  frequency_warp: {probability: 0.5}
train: {batch: 16, optimizer: {kind: adam, lr: 2e-3}, schedule: {kind: constant}, precision: fp32}
phases:
  - {name: coarse, length: 3 steps, compression: {method: fshift, factor: 2}}
  - {name: fine, length: 4 steps}
evaluate: {every: 3 steps, metrics: [psds1, segment_f1], postprocess: {median: 0.2 s}}
tracking: {kind: none, every: 1}
"""
TEACHER = 'teachers=[{kind: ensemble, members: ["run:teacher-*"], weight: 0.7}]'
# random crops and slices of clips longer than the input; and logits of whole clips
SPECS = {
    "detect": (SPEC.replace("CROP", "random").replace("FRAMES", "201"), []),
    "distill": (SPEC.replace("CROP", "start").replace("FRAMES", "301"), ["task=distill", TEACHER]),
}
TEACHERS = ["phases=[{name: fine, length: 2 steps}]", "data.weak=[]", "data.valid=[]"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Without pictures, and what a run costs counted once: both take longer than the training."""
    counted: dict[Any, list[PhaseCost]] = {}

    def costs(resolved: Resolved) -> list[PhaseCost]:
        key = (len(resolved.phases), resolved.phases[-1].label_frames)
        if key not in counted:
            counted[key] = phase_costs(resolved)
        return counted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("c2ftool.engine.train.phase_costs", costs)
        patch.setattr("c2ftool.engine.train.report", lambda *_, **__: [])
        yield


@pytest.fixture(scope="module")
def place(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` of its own, into which logits are stored, and `runs`, in which two teachers are."""
    place = tmp_path_factory.mktemp("detect")
    shutil.copytree(data_root / "scenes", place / "data" / "scenes")
    for seed in (1, 2):
        trained(place, "distill", f"teacher-{seed}", "task=finetune", "teachers=[]", f"seed={seed}", *TEACHERS)
    return place


def trained(place: Path, kind: str, run: str, *arguments: str, resume: bool = False) -> Path:
    """The folder of a finished run, in this process."""
    text, own = SPECS[kind]
    spec = place / f"{kind}.yaml"
    spec.write_text(text)
    loaded = load_file(spec, [*(own if "task=finetune" not in arguments else []), *arguments])
    train(loaded, Options(place / "data", place / "runs", run=run, resume=resume, device="cpu", quiet=True))
    return place / "runs" / run


@pytest.fixture(scope="module")
def unbroken(place: Path) -> dict[str, Path]:
    return {kind: trained(place, kind, kind) for kind in SPECS}


def measured(run: Path) -> list[Any]:
    """Everything measured, without the time of day and of computing."""
    return [
        (e["step"], e["phase"], e["kind"], {k: v for k, v in e["values"].items() if "seconds" not in k})
        for e in read_metrics(run / "metrics.jsonl")
    ]


def figures(run: Path, kind: str) -> list[dict[str, float]]:
    return [e["values"] for e in read_metrics(run / "metrics.jsonl") if e["kind"] == kind]


def digest(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / "weights-last.safetensors").read_bytes()).hexdigest()


def near(run: Path, other: Path) -> None:
    """The losses, and the scores within what a few changed ranks of frames make."""
    ours, theirs = figures(run, "train"), figures(other, "train")
    assert len(ours) == len(theirs) == 7
    for mine, reference in zip(ours, theirs, strict=True):
        assert {"loss", "loss/strong", "loss/weak"} <= mine.keys()
        for name in ("loss", "loss/strong", "loss/weak"):
            assert math.isclose(mine[name], reference[name], rel_tol=TOLERANCE)
    for mine, reference in zip(figures(run, "evaluate"), figures(other, "evaluate"), strict=True):
        assert mine == pytest.approx(reference, abs=0.02)


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Runs are stopped after so many steps, as a signal would."""
    heed = Loop._heed

    def stop(after: int | None) -> None:
        def heeding(loop: Loop, flag: StopFlag) -> None:
            if loop.clock.total == after:
                flag.asked = PREEMPTED
            heed(loop, flag)

        monkeypatch.setattr(Loop, "_heed", heeding)

    return stop


@pytest.mark.parametrize("kind", SPECS)
def test_a_resumed_run_of_detection_repeats_the_unbroken_one(
    kind: str, unbroken: dict[str, Path], place: Path, stopping: Callable[[int | None], None]
) -> None:
    stopping(4 if kind == "detect" else 2)  # inside of the second phase, and of the first
    with pytest.raises(Preempted):
        trained(place, kind, f"{kind}-broken")
    stopping(None)
    run = trained(place, kind, f"{kind}-broken", resume=True)
    assert measured(run) == measured(unbroken[kind])
    assert digest(run) == digest(unbroken[kind])


@pytest.mark.parametrize("kind", SPECS)
def test_threads_change_no_bit_and_micro_batches_little(kind: str, unbroken: dict[str, Path], place: Path) -> None:
    assert digest(trained(place, kind, f"{kind}-threads", "train.workers=0")) == digest(unbroken[kind])
    near(trained(place, kind, f"{kind}-micro", "train.micro_batch=3"), unbroken[kind])


def test_what_is_tested_is_used(unbroken: dict[str, Path], place: Path) -> None:
    """Teachers, weak clips and partners of the set each change the losses."""
    short = ("phases.coarse.length=1 steps", "phases.fine.length=1 steps", "data.valid=[]")
    for number, other in enumerate(("teachers.0.weight=0.1", "augment.waveform_mixup.partner=batch")):
        run = trained(place, "distill", f"other-{number}", other, *short)
        assert figures(run, "train")[0]["loss"] != figures(unbroken["distill"], "train")[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_two_processes_detect_as_one(kind: str, unbroken: dict[str, Path], place: Path) -> None:
    """In the step, in the evaluation, and in the storing of logits: done again here, in a data folder of its own."""
    data = place / "data-two"
    if not data.exists():
        shutil.copytree(place / "data" / "scenes", data / "scenes")
    env = {**os.environ, "C2F_DATA": str(data), "C2F_RUNS": str(place / "runs"), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    command = "distill" if kind == "distill" else "finetune"
    line = [*torchrun, "c2ftool", command, str(place / f"{kind}.yaml"), *SPECS[kind][1]]
    line += ["--run", f"{kind}-two", "--device", "cpu"]
    done = subprocess.run(line, env={**env, "PYTHONPATH": str(ROOT)}, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    near(place / "runs" / f"{kind}-two", unbroken[kind])
    if kind == "distill":
        (ours,), (theirs,) = ([*(root / "logits").glob("*.hdf5")] for root in (data, place / "data"))
        assert ours.name == theirs.name
        import h5py

        with h5py.File(ours) as mine, h5py.File(theirs) as reference:
            assert mine["strong_logits"].shape == (24, 10, 75)
            assert np.allclose(mine["strong_logits"][:], reference["strong_logits"][:], atol=2e-3)
