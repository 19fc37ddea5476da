"""Training and evaluating by the real command: what is printed, what is written, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c2ftool.engine.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
PRETRAIN, FINETUNE = ROOT / "tests/specs/pretrain.yaml", ROOT / "tests/specs/finetune.yaml"


@pytest.fixture(scope="module")
def env(data_root, tmp_path_factory):
    return {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path_factory.mktemp("runs"))}


@pytest.fixture(scope="module")
def trained(c2f, env):
    """Runs `pre` and `fine`, the second from the first, with tracking; the outcome of the second."""
    tracking = "tracking.kind=mlflow"
    done = c2f("pretrain", PRETRAIN, "--run", "pre", "--json", tracking, env=env)
    assert done.returncode == 0, done.stderr
    done = c2f("finetune", FINETUNE, "model.weights=run:pre", "--run", "fine", "--json", tracking, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_outcome_names_scores_flops_and_time(trained):
    assert set(trained["scores"]) == {"accuracy", "map"}
    assert 0 <= trained["scores"]["accuracy"] <= 1
    assert trained["flops"] > 0 and trained["seconds"] > 0
    assert [p["name"] for p in trained["phases"]] == ["coarse", "fine"]
    # half the frames, less than half the FLOPs of a clip
    coarse, fine = (p["flops"] / p["clips"] for p in trained["phases"])
    assert coarse < 0.5 * fine


def test_the_run_folder_is_whole(trained, env):
    run = Path(env["C2F_RUNS"]) / "fine"
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "finished" and record["sessions"][0]["device"].startswith("CPU")
    for name in ("spec.yaml", "resolved.yaml", "metrics.jsonl", "log.txt", "report/index.html", "report/confusion.png"):
        assert (run / name).stat().st_size > 0
    kinds = {e["kind"] for e in read_metrics(run / "metrics.jsonl")}
    assert kinds == {"train", "evaluate", "cost", "border", "phase", "test"}
    assert not list(run.rglob("*.partial"))


def test_weights_carry_their_record_and_parent(trained, env):
    from c2ftool.files import sha256
    from c2ftool.models.weights import read_weights

    runs = Path(env["C2F_RUNS"])
    _, record = read_weights(runs / "fine" / "checkpoints" / "weights-last.safetensors")
    assert record["backbone"] == "eat_tiny" and record["classes"] == ["falling", "noise", "rising"]
    assert record["frontend"]["hop"] == 160 and record["phase"] == "fine"
    parent = sha256(runs / "pre" / "checkpoints" / "weights-last.safetensors")
    assert record["parents"] == [{"weights": "run:pre", "sha256": parent}]


def test_mlflow_holds_parent_children_curves_and_artifacts(trained, env):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{env['C2F_RUNS']}/mlflow.db")
    experiment = client.get_experiment_by_name("c2ftool")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(r for r in runs if r.info.run_name == "fine" and "mlflow.parentRunId" not in r.data.tags)
    assert parent.info.status == "FINISHED"
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.info.run_name for r in children) == ["coarse", "fine"]
    assert all(r.data.metrics["training_flops"] > 0 for r in children)
    log = read_metrics(Path(env["C2F_RUNS"]) / "fine" / "metrics.jsonl")
    losses = [(e["step"], e["values"]["loss"]) for e in log if e["kind"] == "train"]
    history = client.get_metric_history(parent.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == losses
    assert "test/accuracy" in parent.data.metrics
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert {"resolved.yaml", "confusion.png", "index.html"} <= artifacts


def test_evaluate_takes_the_newest_run_and_gives_its_score_again(trained, c2f, env):
    done = c2f("evaluate", "--metric", "accuracy", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert "the newest finished run" in done.stderr
    (scored,) = json.loads(done.stdout)
    assert scored["name"] == "fine" and scored["scores"]["accuracy"] == trained["scores"]["accuracy"]


def test_expectations_decide_the_exit_code(trained, c2f, env):
    assert c2f("evaluate", "fine", "--expect", "accuracy>=0", env=env).returncode == 0
    done = c2f("evaluate", "fine", "--expect", "accuracy>1", env=env)
    assert done.returncode == 1 and "expectation not met" in done.stderr
    assert c2f("evaluate", "fine", "--expect", "accuracy~1", env=env).returncode == 2


def test_several_runs_make_one_table(trained, c2f, env):
    done = c2f("evaluate", "pre", "fine", env=env)
    assert done.returncode == 0, done.stderr
    assert "->" in done.stdout and "test accuracy" in done.stdout and "training FLOPs" in done.stdout


def test_other_clips_can_be_scored(trained, c2f, env):
    done = c2f("evaluate", "fine", "data.test=[valid]", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["clips"] == 12
    assert c2f("evaluate", "fine", "model.backbone=eat_mini", env=env).returncode == 2


def test_a_study_over_seeds_reports_mean_and_spread(c2f, env):
    done = c2f(
        "finetune",
        FINETUNE,
        "seeds=[1, 2]",
        "phases=[{name: only, length: 3 steps}]",
        "--run",
        "study",
        "--json",
        env=env,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    scores = [child["scores"]["accuracy"] for child in outcome["children"]]
    assert outcome["scores"]["accuracy"] == pytest.approx(sum(scores) / 2)
    done = c2f("evaluate", "--metric", "accuracy", env=env)
    assert done.returncode == 0, done.stderr
    assert "study" in done.stderr and "±" in done.stdout and "(n = 2)" in done.stdout


def test_a_linear_probe_leaves_the_body_as_it_was(trained, c2f, env):
    import torch

    from c2ftool.models.weights import read_weights

    arguments = ["model.weights=run:pre", "model.freeze=body", "--run", "probe", "phases=[{name: p, length: 4 steps}]"]
    done = c2f("finetune", FINETUNE, *arguments, "model.drop_path=0", env=env)
    assert done.returncode == 0, done.stderr
    runs = Path(env["C2F_RUNS"])
    before, _ = read_weights(runs / "pre" / "checkpoints" / "weights-last.safetensors")
    after, _ = read_weights(runs / "probe" / "checkpoints" / "weights-last.safetensors")
    body = [name for name in after if name.startswith("backbone.")]
    assert body and all(torch.equal(before[name], after[name]) for name in body)


def test_export_gives_a_published_layout_that_loads_again(trained, c2f, env, tmp_path):
    from c2ftool.models.weights import starting_weights

    for run, parts in (("pre", ("decoder", "teacher")), ("fine", ("head",))):
        done = c2f("export", run, "--to", tmp_path / f"{run}.pt", env=env)
        assert done.returncode == 0, done.stderr
        start = starting_weights(tmp_path / f"{run}.pt")
        assert all(getattr(start, part) for part in parts)
    arguments = [f"model.weights=file:{tmp_path / 'pre.pt'}", "--run", "again", "phases=[{name: p, length: 1 steps}]"]
    assert c2f("finetune", FINETUNE, *arguments, env=env).returncode == 0


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [(signal.SIGTERM, 75, "by a signal"), (signal.SIGUSR1, 75, "by a signal"), (signal.SIGINT, 130, "by hand")],
)
def test_signals_save_and_end_with_their_code(number, code, why, env, c2f):
    run = Path(env["C2F_RUNS"]) / f"stopped-{number.name}"
    arguments = [
        "pretrain",
        str(PRETRAIN),
        "--run",
        run.name,
        "checkpoints.every=null",
        "phases.fine.length=4000 steps",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "c2ftool", *arguments],
        env={**os.environ, **env, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run / "metrics.jsonl")) < 9:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "state is saved" in stderr and "--resume" in stderr and "Traceback" not in stderr
    marker = json.loads((run / "interrupted.json").read_text())
    assert marker["why"] == why and marker["exit_code"] == code
    saved = max(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*"))
    assert saved == marker["step"]
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
