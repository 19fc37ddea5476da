"""Costs and savings by the real command: counted before, reported after, refused where they would say nothing."""

import json

import pytest

from c2ftool.engine.metrics_log import read_metrics

BASE = """\
c2f: 1
name: base
task: finetune
seed: 2
data: {dataset: sounds, train: [train], valid: [valid], test: [test]}
frontend: {mels: 64, frames: 96}
model: {backbone: ast_micro, head: {kind: clip}}
objective: {kind: classify, loss: ce}
train: {batch: 12, optimizer: {kind: adamw, lr: 1e-3}, schedule: {kind: cosine}}
phases:
  - {name: fine, length: 4 epochs}
tracking: {kind: none, every: 1}
"""
COARSE = """\
c2f: 1
extends: base.yaml
name: coarse
phases:
  - {name: coarse, length: 2 epochs, compression: {method: fshift, factor: 2}}
  - {name: fine, length: 2 epochs}
savings: {baseline: base.yaml, at: end}
"""


@pytest.fixture
def command(c2f, data_root, tmp_path):
    """Runs c2f in a folder that holds base.yaml and coarse.yaml."""
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "coarse.yaml").write_text(COARSE)

    def run(*arguments, code=0):
        env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path / "runs")}
        done = c2f(*arguments, env=env, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_flops_are_counted_compared_and_drawn(command, tmp_path):
    counted = json.loads(command("flops", "coarse.yaml", "--json", "--plot", "pictures/cost.png").stdout)
    coarse, fine = counted["phases"]
    assert (coarse["tokens"], fine["tokens"]) == ({"time": 3, "frequency": 4}, {"time": 6, "frequency": 4})
    assert coarse["training_per_clip"] < 0.6 * fine["training_per_clip"]
    assert counted["training"] == coarse["training"] + fine["training"] == sum(
        p["clips"] * p["training_per_clip"] for p in counted["phases"]
    )  # fmt: skip
    assert counted["savings"]["baseline_training"] == 2 * fine["training"]
    assert counted["savings"]["end"] == pytest.approx(1 - counted["training"] / (2 * fine["training"]))
    assert (tmp_path / "pictures" / "cost.png").read_bytes().startswith(b"\x89PNG")
    spoken = command("flops", "coarse.yaml").stdout
    assert f"saved, whole runs: {counted['savings']['end']:.2%}" in spoken and "control=restart" in spoken


def test_real_steps_are_timed(command):
    timed = json.loads(command("flops", "coarse.yaml", "--measure", "--json").stdout)["measured"]
    assert [p["name"] for p in timed["phases"]] == ["coarse", "fine"]
    assert all(p["steps"] >= 5 and 0 < p["waited"] < p["seconds"] for p in timed["phases"])
    coarse, fine = (p["seconds"] for p in timed["phases"])
    assert timed["run_seconds"] == pytest.approx(6 * coarse + 6 * fine)
    assert timed["baseline_seconds"] == pytest.approx(12 * fine)


def test_a_baseline_with_other_data_is_refused(command):
    done = command(
        "flops", "base.yaml", "--baseline", "coarse.yaml", "data.train=[train, valid]", "data.valid=[]", code=2
    )
    assert "the baseline coarse.yaml has other data" in done.stderr
    assert "data.train: ['train'] there, ['train', 'valid'] here" in done.stderr
    done = command("finetune", "coarse.yaml", "data.test=[valid]", code=2)
    assert "has other data" in done.stderr and "data.test" in done.stderr
    done = command("flops", "base.yaml", "--baseline", "nothing", code=3)
    assert "there is no spec 'nothing'" in done.stderr


def test_savings_stand_beside_the_accuracy(command, tmp_path):
    first = command("finetune", "coarse.yaml")
    assert f"baseline: base has not been run: c2f finetune {tmp_path / 'base.yaml'}" in first.stdout
    command("finetune", "base.yaml")
    command("finetune", "coarse.yaml", "control=restart", "--run", "coarse-restart")
    scored = command("evaluate", "coarse")
    assert "coarse, baseline: base, best accuracy" in scored.stdout
    assert "coarse, saved, whole runs: " in scored.stdout and "first beat (the paper's rule)" in scored.stdout
    assert "coarse, control: coarse-restart, best accuracy" in scored.stdout
    assert "control, at this run's cost: best accuracy" in scored.stdout
    page = (tmp_path / "runs" / "coarse" / "report" / "index.html").read_text()
    assert "Savings" in page and "cost.png" in page and "coarse-restart" in page
    table = json.loads(command("evaluate", "coarse", "--json").stdout)[0]["saved"]
    entries = {
        run: [e["values"] for e in read_metrics(tmp_path / "runs" / run / "metrics.jsonl") if e["kind"] == "cost"]
        for run in ("base", "coarse", "coarse-restart")
    }
    share = 1 - entries["coarse"][-1]["flops"] / entries["base"][-1]["flops"]
    assert table["end"]["flops"] == pytest.approx(share) and 0.2 < share < 0.4
    assert entries["coarse-restart"][-1]["flops"] == entries["base"][-1]["flops"]
    assert entries["coarse-restart"][-1]["rates"] == pytest.approx(entries["coarse"][-1]["rates"])
    again = command("finetune", "coarse.yaml", "--run", "again")
    assert "saved, whole runs" in again.stdout
    kinds = [e["kind"] for e in read_metrics(tmp_path / "runs" / "again" / "metrics.jsonl")]
    assert kinds.count("savings") == 1


def test_surpassing_needs_a_baseline_that_has_run(command, tmp_path):
    stop = "phases.fine.stop={kind: surpasses, metric: accuracy}"
    done = command("finetune", "coarse.yaml", stop, code=3)
    assert "Train it first: c2f finetune base.yaml; or give phases.fine.stop.value" in done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    done = command(
        "finetune", "coarse.yaml", "phases.fine.stop={kind: surpasses, value: -1.0}", "evaluate.every=1 steps"
    )
    assert "phase fine ends after 1 of 6 steps: surpasses accuracy -1" in done.stderr
    record = json.loads((tmp_path / "runs" / "coarse" / "run.json").read_text())["outcome"]
    assert record["phases"][1]["ended"] == "surpasses accuracy -1" and record["phases"][1]["clips"] == 12


def test_the_published_counts_stand_in_for_a_set_that_is_not_prepared(command):
    done = command("flops", "papers/coarse_to_fine/vggsound", "phases.coarse.compression.factor=2", "--json")
    counted = json.loads(done.stdout)
    assert counted["published_counts"] and counted["phases"][0]["clips"] == pytest.approx(5 * 183_730, abs=12)
    assert 100 * counted["savings"]["first_beat"] == pytest.approx(46.16, abs=0.02)
    done = command("flops", "papers/coarse_to_fine/vggsound", "--measure", code=3)
    assert "steps are timed on the data" in done.stderr


def test_runs_of_one_name_are_scored_as_a_study(command, tmp_path):
    for seed in (1, 2):
        command("finetune", "base.yaml", f"seed={seed}", "phases.fine.length=1 steps", "--run", f"many/seed-{seed}")
    scored = json.loads(command("evaluate", "many", "--json").stdout)[0]
    assert [child["name"] for child in scored["children"]] == ["many/seed-1", "many/seed-2"]
    assert scored["spread"].keys() == {"accuracy"}
