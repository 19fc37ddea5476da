"""Coarse to fine by the real command: borders are accounted for, rules that fire are named, any factor is scored."""

import json
from pathlib import Path

import pytest

from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.rescore import rescore_all
from c2ftool.errors import SpecError, UsageError
from c2ftool.files import sha256
from c2ftool.models.weights import read_weights

ROOT = Path(__file__).parents[2]
C2F, PRETRAIN = ROOT / "tests/specs/c2f.yaml", ROOT / "tests/specs/pretrain.yaml"
# a rule that fires at its second evaluation whatever is learnt
PLATEAU = "phases.fine.stop={kind: plateau, patience: 1, min_delta: 1}"
KERNEL, POSITIONS = "patch_embed.proj.weight", "pos_embed"


@pytest.fixture(scope="module")
def env(data_root, tmp_path_factory):
    return {"C2F_DATA": str(data_root), "C2F_RUNS": str(tmp_path_factory.mktemp("runs"))}


@pytest.fixture(scope="module")
def trained(c2f, env):
    """(the finished command of run `c2f`, its folder): patch 4, patch 2, none."""
    done = c2f("finetune", C2F, PLATEAU, "--run", "c2f", env=env)
    assert done.returncode == 0, done.stderr
    return done, Path(env["C2F_RUNS"]) / "c2f"


def outcome(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["outcome"]


# --- training ---------------------------------------------------------------------------------------------------------


def test_borders_are_accounted_for_on_the_screen_and_in_the_log(trained):
    done, run = trained
    account = [
        "from phase coarse to middle:",
        "  carried over: weights, moments",
        f"  resized: backbone.{POSITIONS}: positions 8 x 2 -> 8 x 4 (bilinear); "
        f"backbone.{KERNEL}: patch kernel 16 x 64 -> 16 x 32 (pi)",
        "  starting afresh: learning-rate schedule; dropped: nothing",
        "from phase middle to fine:",
        "  carried over: weights",
        f"  resized: backbone.{POSITIONS}: positions 8 x 4 -> 8 x 8 (bilinear); "
        f"backbone.{KERNEL}: patch kernel 16 x 32 -> 16 x 16 (pi)",
        "  starting afresh: learning-rate schedule, optimiser moments; dropped: nothing",
    ]
    logged = (run / "log.txt").read_text()
    for line in account:
        assert f"{line}\n" in done.stderr and f" {line}\n" in logged
    borders = [e for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "border"]
    assert [(e["step"], e["phase"]) for e in borders] == [(6, "middle"), (12, "fine")]
    assert all(e["values"] == {"resized": 2, "created": 0, "recomputed": 0} for e in borders)


def test_each_phase_says_its_tokens_and_its_compression(trained):
    done, _ = trained
    for line in (
        "phase coarse (1 of 3): 6 steps of 8 clips, 8 x 2 tokens, patch 4 (pi), ",
        "phase middle (2 of 3): 6 steps of 8 clips, 8 x 4 tokens, patch 2 (pi), ",
        "phase fine (3 of 3): 20 steps of 8 clips, 8 x 8 tokens, ",
    ):
        assert line in done.stderr
    flops = [p["flops"] / p["clips"] for p in outcome(trained[1])["phases"]]
    assert flops[0] < 0.6 * flops[1] and flops[1] < 0.6 * flops[2]


def test_a_phase_that_ends_early_says_which_rule_fired(trained):
    done, run = trained
    why = outcome(run)["phases"][-1]["ended"]
    assert why.startswith("plateau of accuracy at 0.")
    assert (
        f"phase fine ends after 4 of 20 steps: {why}\n" in done.stderr
        and f"ends after 4 of 20 steps: {why}\n" in (run / "log.txt").read_text()
    )
    phases = outcome(run)["phases"]
    assert [p["ended"] for p in phases[:2]] == ["length", "length"]
    assert [(p["first_step"], p["last_step"]) for p in phases] == [(1, 6), (7, 12), (13, 16)]
    early = [e["values"]["stopped_early"] for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "phase"]
    assert early == [0, 0, 1]


def test_the_mean_of_the_last_phase_is_kept_and_scored(trained):
    done, run = trained
    assert outcome(run)["weights"] == "average" and "average weights" in done.stdout
    mean, record = read_weights(run / "checkpoints" / "weights-average.safetensors")
    assert (record["averaged"], record["phase"], record["step"]) == (2, "fine", 16)  # after steps 2 and 4 of the phase
    last, _ = read_weights(run / "checkpoints" / "weights-last.safetensors")
    assert mean.keys() == last.keys() and any(not mean[n].equal(last[n]) for n in mean)


def test_weights_of_each_phase_are_on_record_with_their_tokens(trained):
    for phase, grid, patch in (("coarse", [2, 8], [64, 16]), ("middle", [4, 8], [32, 16]), ("fine", [8, 8], [16, 16])):
        state, record = read_weights(trained[1] / "checkpoints" / f"weights-{phase}.safetensors")
        assert (record["tokens"]["grid"], record["tokens"]["patch"]) == (grid, patch)
        assert state[f"backbone.{POSITIONS}"].shape[1] == 2 + grid[0] * grid[1]
        assert list(state[f"backbone.{KERNEL}"].shape[2:]) == patch[::-1]


def test_eat_carries_its_teacher_and_ends_by_a_budget(c2f, env):
    budget = "phases.fine.stop={kind: budget, time: 1 ms}"
    done = c2f("pretrain", PRETRAIN, budget, "--run", "eat", env=env)
    assert done.returncode == 0, done.stderr
    assert "  carried over: weights, EMA teacher\n" in done.stderr
    assert "  recomputed: positions 8 x 3 -> 8 x 6 (sine-cosine)\n" in done.stderr
    assert (
        "  starting afresh: learning-rate schedule, optimiser moments, decay of the EMA teacher; dropped: nothing\n"
        in done.stderr
    )
    assert "phase fine ends after 1 of 8 steps: budget of 0.001 s\n" in done.stderr
    phases = outcome(Path(env["C2F_RUNS"]) / "eat")["phases"]
    assert [p["ended"] for p in phases] == ["length", "budget of 0.001 s"] and phases[1]["clips"] == 6


def test_the_restart_control_crosses_borders_that_resize_nothing(c2f, env):
    short = [f"phases.{phase}.length=1 steps" for phase in ("coarse", "middle", "fine")]
    done = c2f("finetune", C2F, "control=restart", *short, "--run", "restart", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("8 x 8 tokens") == 3 and "patch 4" not in done.stderr
    assert done.stderr.count("  resized: nothing, no tensor has the shape of the grid or the patch\n") == 2
    flops = {p["flops"] for p in outcome(Path(env["C2F_RUNS"]) / "restart")["phases"]}
    assert len(flops) == 1


def test_a_run_can_start_from_the_weights_of_a_coarse_phase(trained, c2f, env):
    arguments = ["model.weights=run:c2f@coarse", "phases=[{name: only, length: 1 steps}]", "--run", "from-coarse"]
    done = c2f("finetune", C2F, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    assert "weights: backbone of run:c2f@coarse, its head" in done.stderr
    assert f"  {POSITIONS}: positions 8 x 2 -> 8 x 8 (bilinear)\n" in done.stderr
    assert f"  {KERNEL}: patch kernel 16 x 64 -> 16 x 16 (pi)\n" in done.stderr


# --- scoring at another compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compression={method: pool, factor: 2}"], [f"c2f: {POSITIONS}: positions 8 x 8 -> 8 x 4 (bilinear)"]),
        (
            ["compression.method=fshift", "compression.factor=4"],
            [f"c2f: {POSITIONS}: positions 8 x 8 -> 8 x 2 (bilinear)"],
        ),
        (
            ["compression={method: patch, factor: 2, mel_factor: 2, resize: bilinear}"],
            [
                f"c2f: {POSITIONS}: positions 8 x 8 -> 4 x 4 (bilinear)",
                f"c2f: {KERNEL}: patch kernel 16 x 16 -> 32 x 32 (bilinear)",
            ],
        ),
        (
            ["--weights", "coarse", "compression={method: pool, factor: 4, reduce: max, at: log_mel}"],
            [f"c2f: {KERNEL}: patch kernel 16 x 64 -> 16 x 16 (pi)"],  # the grid is the same
        ),
    ],
)
def test_a_checkpoint_is_scored_at_any_compression(arguments, said, trained, c2f, env):
    report = trained[1] / "report" / "index.html"
    before = sha256(report)
    done = c2f("evaluate", "c2f", *arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    (scored,) = json.loads(done.stdout)
    assert scored["clips"] == 12 and 0 <= scored["scores"]["accuracy"] <= 1
    assert done.stderr.splitlines() == said
    assert sha256(report) == before  # the run's own report is of its own compression


def test_without_compression_the_score_is_the_runs(trained, c2f, env):
    for arguments in (["compression.method=none"], ["compression={method: pool, factor: 1}"]):
        done = c2f("evaluate", "c2f", *arguments, "--json", env=env)
        assert done.returncode == 0 and done.stderr == ""
        assert json.loads(done.stdout)[0]["scores"] == outcome(trained[1])["scores"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("compression={method: pool, factor: 16}", "8 frames x 128 mel bands leave no 16 x 16 patch"),
        ("compression={method: fshift, factor: 3}", "compression.factor: Input should be 1, 2, 4, 8 or 16"),
    ],
)
def test_a_compression_that_cannot_be_scored_ends_with_2(argument, message, trained, c2f, env):
    before = sorted(path.name for path in trained[1].iterdir())
    done = c2f("evaluate", "c2f", argument, env=env)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    assert 'For example: compression="{method: fshift, factor: 2}", or compression.method=none' in done.stderr
    assert sorted(path.name for path in trained[1].iterdir()) == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("compression.factor=2", "compression.factor: Input should be 1"),  # the run's last phase has none
        ("compression.method=fshift", "compression.factor: Field required"),
        ("compression={method: pool, factor: 2, window: kept}", "compression.window: Extra inputs are not permitted"),
        ("compression=4", "compression: Input should be an object"),
        ("compression.method=squeeze", "compression: Input tag 'squeeze'"),
        ("compression={method: pool", "argument 1: compression={method: pool"),
        ("train.batch=4", "compression can differ when a run is scored"),
    ],
)
def test_what_is_wrong_with_a_compression_is_said(argument, message, trained, env):
    roots = {"runs_root": Path(env["C2F_RUNS"]), "data_root": Path(env["C2F_DATA"])}
    with pytest.raises((UsageError, SpecError)) as caught:
        rescore_all(
            ["c2f"], **roots, metrics=None, weights=None, overrides=[argument], device="cpu", say=lambda text: None
        )
    assert message in str(caught.value)


def test_the_best_weights_are_those_of_the_last_phase(c2f, env):
    """Though later phases unlearn everything here: who asks for full resolution is not given coarse weights."""
    ruin = [f"phases.{phase}.optimizer.lr=1" for phase in ("middle", "fine")]
    done = c2f("finetune", C2F, "train.average=null", *ruin, PLATEAU, "--run", "best", env=env)
    assert done.returncode == 0, done.stderr
    run = Path(env["C2F_RUNS"]) / "best"
    _, record = read_weights(run / "checkpoints" / "weights-best.safetensors")
    result = outcome(run)
    assert (result["weights"], record["phase"], record["best"]["phase"]) == ("best", "fine", "fine")
    again = c2f("evaluate", "best", "--json", env=env)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[0]["scores"] == result["scores"]
    coarse = c2f("evaluate", "best", "--weights", "coarse", "--json", env=env)
    assert coarse.returncode == 0, coarse.stderr
    told = json.loads(coarse.stdout)[0]
    assert told["weights"] == "coarse" and (run / "report-weights-coarse" / "index.html").exists()
