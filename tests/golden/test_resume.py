"""A run that is killed and resumed repeats the unbroken run to the last bit."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from c2ftool.engine.metrics_log import read_metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPECS = ROOT / "tests" / "specs"
TASKS = {
    "pretrain": ("pretrain", SPECS / "pretrain.yaml"),
    "finetune": ("finetune", SPECS / "finetune.yaml"),
    "coarse-to-fine": ("finetune", SPECS / "c2f.yaml"),
}


def figures(run: Path) -> list:
    """Everything measured, without the time of day and of computing."""
    return [
        (e["step"], e["phase"], e["kind"], {k: v for k, v in e["values"].items() if "seconds" not in k})
        for e in read_metrics(run / "metrics.jsonl")
    ]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / "weights-last.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def unbroken(c2f, data_root, tmp_path_factory):
    """The runs folder with one unbroken run of each task."""
    runs = tmp_path_factory.mktemp("unbroken")
    for task, (command, spec) in TASKS.items():
        done = c2f(command, spec, "--run", task, env={"C2F_DATA": str(data_root), "C2F_RUNS": str(runs)})
        assert done.returncode == 0, done.stderr
    return runs


def killed(runs: Path, data_root: Path, mode: list[str], task: str, run: str) -> int:
    env = {**os.environ, "C2F_DATA": str(data_root), "C2F_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    env |= {"C2F_WATCH": str(runs / run / "metrics.jsonl"), "PYTHONPATH": str(ROOT)}
    arguments = [TASKS[task][0], str(TASKS[task][1]), "--run", run, "--resume"]
    command = [sys.executable, str(HERE / "kill.py"), *mode, "--", *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.rsplit("kills: ", 1)[1])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_random_kills_change_nothing(task, unbroken, data_root, tmp_path):
    kills = 0
    for attempt in range(10):  # a run may end before it has been killed often enough: then another is started
        run = f"{task}-{attempt}"
        kills += killed(tmp_path, data_root, ["random", str(10 - kills), str(attempt)], task, run)
        assert figures(tmp_path / run) == figures(unbroken / task)
        assert weights(tmp_path / run) == weights(unbroken / task)
        if kills >= 10:
            return
    pytest.fail(f"only {kills} kills in 10 runs: the runs are too short for this machine")


@pytest.mark.parametrize("task", TASKS)
def test_kills_at_first_last_and_border_steps_change_nothing(task, unbroken, data_root, tmp_path):
    steps = sum(e["kind"] == "train" for e in read_metrics(unbroken / task / "metrics.jsonl"))
    entries = [e for e in read_metrics(unbroken / task / "metrics.jsonl") if e["kind"] == "train"]
    borders = [e["step"] for e, after in pairwise(entries) if e["phase"] != after["phase"]]
    moments = sorted({1, steps, *(b + near for b in borders for near in (-1, 0, 1))})
    killed(tmp_path, data_root, ["at", ",".join(map(str, moments))], task, "run")
    assert figures(tmp_path / "run") == figures(unbroken / task)
    assert weights(tmp_path / "run") == weights(unbroken / task)


def test_a_damaged_newest_checkpoint_is_passed_over(unbroken, c2f, data_root, tmp_path):
    env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path)}
    assert c2f("pretrain", TASKS["pretrain"][1], "--run", "run", env=env).returncode == 0
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1] / "weights.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1  # one bit, which neither torch nor safetensors notices
    newest.write_bytes(content)
    done = c2f("pretrain", TASKS["pretrain"][1], "--run", "run", "--resume", env=env)
    assert done.returncode == 0, done.stderr
    assert "is damaged" in done.stderr and "trying the one before" in done.stderr
    assert figures(tmp_path / "run") == figures(unbroken / "pretrain")
