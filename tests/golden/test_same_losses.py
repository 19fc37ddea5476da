"""One spec, one result: the same losses for any micro-batch, number of loader threads, and number of processes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from c2ftool.engine.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
SPECS = {task: str(ROOT / f"tests/specs/{task}.yaml") for task in ("pretrain", "finetune")}
ADAPTERS = "adapters=[{kind: loaa, at: both, axis: both, rank: 8}, {kind: lora, targets: [qkv, fc1]}]"
# name -> command line
TASKS = {
    "pretrain": ("pretrain", SPECS["pretrain"]),
    "finetune": ("finetune", SPECS["finetune"]),
    "adapters": ("finetune", SPECS["finetune"], ADAPTERS, "train.optimizer.lr=0.01"),
}
# Sums in another order: float32 rounding, amplified by some 15 steps of training.
TOLERANCE = 2e-4


def losses(run: Path) -> list[float]:
    return [e["values"]["loss"] for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "train"]


@pytest.fixture(scope="module")
def reference(c2f, data_root, tmp_path_factory):
    runs = tmp_path_factory.mktemp("reference")
    for task, line in TASKS.items():
        done = c2f(*line, "--run", task, env={"C2F_DATA": str(data_root), "C2F_RUNS": str(runs)})
        assert done.returncode == 0, done.stderr
    return {task: losses(runs / task) for task in TASKS}


@pytest.mark.parametrize("task", SPECS)
def test_loader_threads_change_no_bit(task, reference, c2f, data_root, tmp_path):
    env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path)}
    for workers in (0, 3):
        assert c2f(*TASKS[task], f"train.workers={workers}", "--run", f"w{workers}", env=env).returncode == 0
        assert losses(tmp_path / f"w{workers}") == reference[task]


@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_give_the_same_losses(task, reference, c2f, data_root, tmp_path):
    env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path)}
    done = c2f(*TASKS[task], "--micro-batch", "4", "--run", "micro", env=env)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(losses(tmp_path / "micro"), reference[task], strict=True):
        assert math.isclose(ours, theirs, rel_tol=TOLERANCE)


def two_processes(data_root: Path, runs: Path, command: str, *arguments: str) -> None:
    """The command by torchrun as run `two`, on two processes of this machine."""
    env = {**os.environ, "C2F_DATA": str(data_root), "C2F_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    # without `--` torchrun takes our --run for its own --run-path
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
        "c2ftool",
    ]
    line = [*torchrun, command, *arguments, "--run", "two", "--device", "cpu"]
    done = subprocess.run(line, env={**env, "PYTHONPATH": str(ROOT)}, cwd=runs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_give_the_losses_of_one(task, reference, data_root, tmp_path):
    two_processes(data_root, tmp_path, *TASKS[task])
    for ours, theirs in zip(losses(tmp_path / "two"), reference[task], strict=True):
        assert math.isclose(ours, theirs, rel_tol=TOLERANCE)


@pytest.mark.slow
def test_two_processes_cross_borders_as_one_does(c2f, data_root, tmp_path):
    """Patch widths 4, 2, 1: position table and kernel become other parameters, moments are carried over the first."""
    spec = str(ROOT / "tests/specs/c2f.yaml")
    arguments = ["phases.fine.length=6 steps", "phases.fine.stop=null", "augment.waveform_mixup={}"]
    env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path)}
    done = c2f("finetune", spec, *arguments, "--run", "one", "--device", "cpu", env=env)
    assert done.returncode == 0, done.stderr
    two_processes(data_root, tmp_path, "finetune", spec, *arguments)
    ours, theirs = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("two", "one"))
    assert [(e["kind"], e["step"], e["phase"]) for e in ours] == [(e["kind"], e["step"], e["phase"]) for e in theirs]
    assert [e["values"]["resized"] for e in ours if e["kind"] == "border"] == [2, 2]
    for mine, other in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert math.isclose(mine, other, rel_tol=TOLERANCE)


@pytest.mark.slow
def test_batch_norm_and_dropout_are_those_of_one_process(c2f, data_root, tmp_path):
    """Statistics are of the whole batch, wherever its clips lie."""
    spec = str(ROOT / "tests/specs/c2f.yaml")
    arguments = [
        "model=null", "model={backbone: cnn14_micro, head: {kind: clip}}", "frontend={frames: 65, sample_rate: 16000}",
        "train.average=null", "phases=null", "phases=[{name: fine, length: 5 steps}]",
    ]  # fmt: skip
    done = c2f(
        "finetune", spec, *arguments, "--run", "one", "--device", "cpu",
        env={"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two_processes(data_root, tmp_path, "finetune", spec, *arguments)
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert len(ours) == 5
    for mine, other in zip(ours, theirs, strict=True):
        assert math.isclose(mine, other, rel_tol=TOLERANCE)


def test_losses_fall(reference):
    for values in reference.values():
        assert sum(values[-4:]) < sum(values[:4])
