"""Bad input ends with one clear message, the stated exit code, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRETRAIN, FINETUNE = ROOT / "tests/specs/pretrain.yaml", ROOT / "tests/specs/finetune.yaml"


@pytest.fixture
def env(data_root, tmp_path):
    return {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path / "runs")}


def refused(done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_an_unknown_key_names_place_and_nearest_word(c2f, env, tmp_path):
    text = PRETRAIN.read_text().replace("compression:", "compresion:", 1)
    (tmp_path / "spec.yaml").write_text(text)
    done = c2f("pretrain", tmp_path / "spec.yaml", "train.optimizer.lr=fast", env=env)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "compresion" in row)
    refused(
        done,
        2,
        f"spec.yaml:{line}:",
        'unknown key "compresion" in phase "coarse"',
        'did you mean "compression"?',
        "^^^^",
    )
    assert "argument 1: train.optimizer.lr=fast" in done.stderr and "2 faults found" in done.stderr
    assert not Path(env["C2F_RUNS"]).exists()


def test_a_wrong_unit_shows_the_right_ones(c2f, env):
    refused(c2f("pretrain", PRETRAIN, "phases.fine.length=5", env=env), 2, "not an amount with a unit", "`5 epochs`")
    refused(c2f("pretrain", PRETRAIN, "phases.fine.length=10 ms", env=env), 2, "not an amount with a unit")


def test_a_missing_set_names_the_command_and_the_sets_there(c2f, env):
    refused(
        c2f("pretrain", PRETRAIN, "data.dataset=nothing", env=env),
        3,
        "no prepared set nothing",
        "c2f prepare",
        "sounds",
    )
    refused(
        c2f("finetune", FINETUNE, "data.test=[evaluation]", env=env), 3, "no split 'evaluation'", "train, valid, test"
    )


def test_the_wrong_command_prints_the_right_one(c2f, env):
    refused(c2f("finetune", PRETRAIN, "seed=5", env=env), 2, f"Run: c2f pretrain {PRETRAIN} seed=5")


def test_a_missing_spec_names_the_nearest(c2f, env):
    refused(c2f("pretrain", "papers/eat_as2m_pretran", env=env), 3, "papers/eat_as2m_pretrain", "c2f specs ls")


def test_a_checkpoint_of_another_shape_is_refused(c2f, env):
    assert c2f("pretrain", PRETRAIN, "phases=[{name: p, length: 1 steps}]", "--run", "micro", env=env).returncode == 0
    done = c2f("finetune", FINETUNE, "model.weights=run:micro", "model.backbone=eat_mini", "--run", "x", env=env)
    refused(done, 3, "the weights do not fit the model", "[96]", "[192]", "model.backbone")
    done = c2f("finetune", FINETUNE, "model.weights=run:micro@best", "--run", "y", env=env)
    refused(done, 3, "no weights 'best'", "It has: ")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"PK\x03\x04 cut", os.urandom(500)])
def test_a_damaged_weights_file_is_refused(content, c2f, env, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    done = c2f("finetune", FINETUNE, f"model.weights=file:{tmp_path / 'weights.pt'}", env=env)
    refused(done, 3, "weights.pt")


def test_an_output_folder_that_cannot_be_written(c2f, env, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = c2f("pretrain", PRETRAIN, env=env | {"C2F_RUNS": str(tmp_path / "file")})
    refused(done, 1, "cannot be written")


def test_a_run_that_is_there_names_both_ways_on(c2f, env):
    run = Path(env["C2F_RUNS"]) / "tiny-pretrain"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    refused(c2f("pretrain", PRETRAIN, env=env), 2, "not empty", "--resume", "--run NAME")
    assert (run / "notes.txt").read_text() == "mine"


def test_resuming_with_another_spec_names_what_differs(c2f, env):
    short = "phases=[{name: p, length: 1 steps}]"
    assert c2f("pretrain", PRETRAIN, short, env=env).returncode == 0
    done = c2f("pretrain", PRETRAIN, short, "seed=9", "train.optimizer.lr=1e-3", "--resume", env=env)
    refused(done, 2, "made from another spec", "seed: 3 there, 9 now", "phases.0.optimizer.lr: 0.0005 there, 0.001 now")


def test_a_second_process_on_the_same_run_is_kept_out(c2f, env):
    run = Path(env["C2F_RUNS"]) / "tiny-pretrain"
    arguments = ["pretrain", str(PRETRAIN), "phases.fine.length=4000 steps"]
    environment = {**os.environ, **env, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-m", "c2ftool", *arguments], env=environment, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.05)
        refused(c2f(*arguments, "--resume", env=env), 2, str(first.pid))
    finally:
        first.kill()
        first.communicate()


def test_a_collapse_stops_the_run_with_its_own_code(c2f, env):
    done = c2f("pretrain", PRETRAIN, "objective.collapse={after: 3 steps, target: 5.0}", env=env)
    refused(done, 76, "the targets have collapsed", "below 5")
    record = json.loads((Path(env["C2F_RUNS"]) / "tiny-pretrain" / "run.json").read_text())
    assert record["state"] == "failed"


def test_losses_that_are_not_finite_are_skipped_and_then_stop_the_run(c2f, env):
    done = c2f("pretrain", PRETRAIN, "frontend.normalize={mean: 0.0, std: 1e-38}", "train.non_finite=2", env=env)
    refused(done, 76, "the step is skipped", "3 steps in a row were not finite", "train.optimizer.lr")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a small disk")
def test_a_full_disk_says_so_and_leaves_nothing_half_written(c2f, env, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        done = c2f("pretrain", PRETRAIN, env=env | {"C2F_RUNS": str(disk / "runs")})
        refused(done, 1, "disk full")
        assert not [p for p in disk.rglob("*") if "partial" in p.name]
    finally:
        subprocess.run(["umount", disk], check=False)
