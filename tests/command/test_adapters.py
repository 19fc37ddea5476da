"""Adapters at the shell: a body, adapters on it, their files, and what is said where they do not fit."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "tests/specs/finetune.yaml"
LOAA = "adapters=[{kind: loaa, at: attention, axis: time, rank: 8}, {name: f, kind: parallel, at: both, rank: 4}]"
LORA = "adapters=[{kind: lora, rank: 4, targets: [qkv, fc2]}]"
SHORT = (
    "phases=[{name: coarse, length: 4 steps, compression: {method: fshift, factor: 2}}, {name: fine, length: 4 steps}]"
)
COMMON = (SHORT, "model.weights=run:body", "train.optimizer.lr=0.01")


@pytest.fixture(scope="module")
def place(c2f, data_root, tmp_path_factory):
    """The runs `body` (trained whole), `loaa` and `lora` on it."""
    runs = tmp_path_factory.mktemp("adapters")
    env = {"C2F_DATA": str(data_root), "C2F_RUNS": str(runs)}
    lines = {"body": (SHORT,), "loaa": (LOAA, *COMMON), "lora": (LORA, *COMMON)}
    said = {}
    for run, arguments in lines.items():
        done = c2f("finetune", SPEC, *arguments, "--run", run, env=env)
        assert done.returncode == 0, done.stderr
        said[run] = done
    return env, runs, said


def tensors(path):
    """(name -> shape, record) of a weights file."""
    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
        return shapes, json.loads(file.metadata()["c2f"])


def test_only_what_was_trained_is_saved_with_the_parents_hash(place):
    _, runs, _ = place
    whole, body = tensors(runs / "body/checkpoints/weights-best.safetensors")
    for path in sorted((runs / "loaa/checkpoints").rglob("weights*.safetensors")):
        ours, record = tensors(path)
        assert set(ours) - set(whole) and all(".beside_" in name for name in set(ours) - set(whole))
        assert set(ours) & set(whole) == {
            "backbone.patch_embed.proj.weight",
            *(n for n in whole if n.startswith("head.")),
        }
        assert record["on"] == record["parents"][0] and record["on"]["weights"] == "run:body"
        assert [item["kind"] for item in record["adapters"]] == ["loaa", "parallel"]
    assert body.get("on") is None


def test_a_plan_prints_parameters_memory_and_cost(c2f, place):
    env, _, _ = place
    done = c2f("finetune", SPEC, LOAA, *COMMON, "--run", "planned", "--dry-run", env=env)
    assert "adapter a0: loaa over time, kernel 1x3, rank 8, beside attention" in done.stdout
    assert "adapter f: parallel, rank 4, beside attention and MLP" in done.stdout
    assert "of the network without adapters" in done.stdout and "of the FLOPs" in done.stdout
    data = json.loads(c2f("finetune", SPEC, LOAA, *COMMON, "--run", "p", "--dry-run", "--json", env=env).stdout)
    counted, against = data["parameters"], data["against_training_all"]
    beside = 4 * (2 * 96 * 8 * 3 + 2 * 2 * 96 * 4)
    assert counted["total"] - counted["plain"] == beside
    assert counted["trained"] == beside + 2 * 96 + 3 * 97
    assert 0 < against["flops"] < 0.8 and 0 < against["memory"] < 1


def test_the_report_shows_attention_and_parameters(place):
    _, runs, _ = place
    page = (runs / "loaa/report/index.html").read_text()
    assert "trained parameters" in page and "loaa over time" in page and "that trains the whole network" in page
    assert sorted(p.name for p in (runs / "loaa/report").glob("attention-*.png")) == [
        f"attention-{n}.png" for n in (1, 2, 3)
    ]
    assert not list((runs / "body/report").glob("attention-*.png"))


def test_it_is_scored_again_as_it_was(c2f, place):
    env, runs, _ = place
    done = c2f("evaluate", "loaa", "lora", "--json", env=env)
    assert done.returncode == 0, done.stderr
    for run in json.loads(done.stdout):
        stored = json.loads((runs / run["name"] / "run.json").read_text())["outcome"]["scores"]
        assert run["scores"] == stored


def test_a_parent_that_is_gone_or_another_is_named(c2f, place, tmp_path):
    env, runs, _ = place
    moved = {**env, "C2F_RUNS": str(tmp_path / "runs")}
    shutil.copytree(runs / "loaa", tmp_path / "runs" / "loaa")
    gone = c2f("evaluate", "loaa", env=moved)
    assert gone.returncode == 3 and "on run:body, which is not there" in gone.stderr and "file:PATH" in gone.stderr
    body = runs / "body/checkpoints/weights-best.safetensors"
    assert c2f("evaluate", "loaa", f"model.weights=file:{body}", env=moved).returncode == 0
    other = c2f("evaluate", "loaa", f"model.weights=file:{runs}/body/checkpoints/weights-coarse.safetensors", env=moved)
    assert other.returncode == 3 and "trained on other weights" in other.stderr and other.stderr.count("\n") == 2


def test_exported_adapters_start_another_run(c2f, place, tmp_path):
    env, runs, _ = place
    done = c2f("export", "loaa", "--layout", "peft", "--to", tmp_path / "out", env=env)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a0", "f"]
    first = json.loads((tmp_path / "out/a0/adapter_config.json").read_text())
    assert first["peft_type"] == "LOOK_ASIDE" and first["base_model_name_or_path"] == "run:body"
    item = f"{{kind: loaa, at: attention, axis: time, rank: 8, weights: 'file:{tmp_path}/out/a0'}}"
    other = "{name: f, kind: parallel, at: both, rank: 4, weights: 'run:loaa'}"
    arguments = [f"adapters=[{item}, {other}]", "model.weights=run:body", "phases=[{name: p, length: 1 steps}]"]
    again = c2f("finetune", SPEC, *arguments, "train.optimizer.lr=1e-9", "--run", "again", env=env)
    assert again.returncode == 0, again.stderr
    assert (
        "adapter a0 of file:" in again.stderr and "its head" in again.stderr and "adapter f of run:loaa" in again.stderr
    )
    scores = [json.loads((runs / run / "run.json").read_text())["outcome"]["scores"] for run in ("again", "loaa")]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize(
    "item, more, message",
    [
        ("{kind: parallel, name: f, at: both, rank: 5, weights: 'run:loaa'}", (), "rank 4 there, 5 in the spec"),
        (
            "{kind: loaa, name: a0, at: attention, axis: frequency, rank: 8, weights: 'run:loaa'}",
            (),
            "axis 'time' there",
        ),
        (
            "{kind: parallel, name: f, at: both, rank: 4, weights: 'run:loaa'}",
            ("model.weights=run:body@coarse",),
            "was trained on run:body",
        ),
        (
            "{kind: lora, rank: 4, targets: [qkv, fc2], weights: 'run:lora'}",
            ("model.backbone=ast_micro", "model.weights=null"),
            "an adapter of eat_tiny cannot stand on ast_micro",
        ),
        (
            "{kind: parallel, name: f, at: both, rank: 4, blocks: [0], weights: 'run:loaa'}",
            (),
            "blocks [0, 1, 2, 3] there, [0] in the spec",
        ),
        (
            "{kind: loaa, name: a0, at: attention, axis: time, rank: 8, scale: 2}",
            ("model.weights=run:loaa",),
            "scale 1.0 there, 2.0 in the spec",
        ),
        ("{kind: lora, name: x, weights: 'run:loaa'}", (), "no adapter 'x'; its adapters: a0, f"),
        ("{kind: lora, weights: 'file:nowhere'}", (), "no adapter: there is no adapter_config.json"),
    ],
)
def test_what_does_not_fit_ends_in_one_message(c2f, place, item, more, message):
    env, runs, _ = place
    done = c2f("finetune", SPEC, f"adapters=[{item}]", *COMMON, *more, "--run", "refused", env=env)
    assert done.returncode == 3 and message in done.stderr and "Traceback" not in done.stderr
    assert not (runs / "refused").exists()


def test_low_rank_updates_are_merged_and_others_are_not(c2f, place, tmp_path):
    env, runs, _ = place
    merged = c2f("export", "lora", "--to", tmp_path / "merged.pt", env=env)
    assert merged.returncode == 0 and "a0 merged" in merged.stdout
    start = ["phases=[{name: p, length: 1 steps}]", "train.optimizer.lr=1e-9", "model.head.pool=cls"]
    for run, weights in (("from-file", f"file:{tmp_path}/merged.pt"), ("from-run", "run:lora")):
        done = c2f("finetune", SPEC, *start, f"model.weights={weights}", "--run", run, env=env)
        assert done.returncode == 0, done.stderr
    assert "the updates a0 of" in done.stderr
    scores = [
        json.loads((runs / run / "run.json").read_text())["outcome"]["scores"]
        for run in ("from-file", "from-run", "lora")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3) and scores[1] == pytest.approx(scores[2], abs=1e-3)
    stuck = c2f("export", "loaa", "--to", tmp_path / "x.pt", env=env)
    assert stuck.returncode == 2 and "cannot be merged" in stuck.stderr and not (tmp_path / "x.pt").exists()
    begun = c2f("finetune", SPEC, *start, "model.weights=run:loaa", "--run", "refused", env=env)
    assert begun.returncode == 3 and "adapters that this spec has not: a0, f, which cannot be merged" in begun.stderr
    assert not (runs / "refused").exists()


def test_a_run_on_an_adapted_one_is_read_again_as_it_was(c2f, place):
    """A probe on merged updates, and adapters that go on: what is loaded again is what was trained."""
    env, runs, _ = place
    short = ["phases=[{name: p, length: 3 steps}]", "train.optimizer.lr=0.01"]
    for run, arguments in {
        "on-lora": ["model.weights=run:lora", "model.freeze=body"],
        "further": ["model.weights=run:loaa", LOAA],
        "third": ["model.weights=run:on-lora", "adapters=[{kind: lora, name: other}]"],
    }.items():
        done = c2f("finetune", SPEC, *short, *arguments, "--run", run, env=env)
        assert done.returncode == 0, done.stderr
    assert "the updates a0 of run:lora are merged" not in done.stderr
    scored = json.loads(c2f("evaluate", "on-lora", "further", "third", "--json", env=env).stdout)
    for run in scored:
        assert run["scores"] == json.loads((runs / run["name"] / "run.json").read_text())["outcome"]["scores"]
    ours, _ = tensors(runs / "on-lora/checkpoints/weights-best.safetensors")
    assert "backbone.blocks.0.attn.qkv.weight" in ours and "backbone.blocks.0.attn.proj.weight" not in ours


def test_adapters_of_a_body_that_learned_are_not_passed_on_alone(c2f, place, tmp_path):
    env, _, _ = place
    done = c2f("finetune", SPEC, LORA, *COMMON, "model.unfreeze={norms: true}", "--run", "norms", env=env)
    assert done.returncode == 0, done.stderr
    refused = c2f("export", "norms", "--layout", "peft", "--to", tmp_path / "out", env=env)
    assert refused.returncode == 2 and "trained its body besides" in refused.stderr and not (tmp_path / "out").exists()
    item = "adapters=[{kind: lora, rank: 4, targets: [fc2, qkv], weights: 'run:norms'}]"
    loaded = c2f("finetune", SPEC, item, *COMMON, "--run", "refused", env=env)
    assert loaded.returncode == 3 and "trained its body besides" in loaded.stderr
    planned = c2f(
        "finetune", SPEC, item.replace("run:norms", "run:nowhere"), *COMMON, "--run", "x", "--dry-run", env=env
    )
    assert planned.returncode == 3 and "no such run" in planned.stderr


def test_what_others_keep_is_not_overwritten(c2f, place, tmp_path):
    env, _, _ = place
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("kept", "file"):
        done = c2f("export", "lora", "--layout", "peft", "--to", tmp_path / name, "--force", env=env)
        assert done.returncode == 2 and "Give another path" in done.stderr
    assert c2f("export", "loaa", "--layout", "peft", "--to", tmp_path / "out", env=env).returncode == 0
    assert c2f("export", "lora", "--layout", "peft", "--to", tmp_path / "out", env=env).returncode == 2
    assert c2f("export", "lora", "--layout", "peft", "--to", tmp_path / "out", "--force", env=env).returncode == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["adapter_config.json", "adapter_model.safetensors", "c2f.json"]
    )
    whole = c2f("evaluate", "body", f"model.weights=file:{tmp_path}/out/x", env=env)
    assert whole.returncode == 2 and "the weights of run body are whole" in whole.stderr


def test_an_adapted_run_teaches(c2f, place):
    """Distillation into adapters, of a teacher that is itself a run of adapters."""
    env, runs, _ = place
    teach = 'teachers=[{kind: ensemble, members: ["run:loaa", "run:lora"], weight: 0.5}]'
    arguments = [LOAA, *COMMON, "task=distill", teach, "objective.reduction=clips", "augment={}"]
    done = c2f("distill", SPEC, *arguments, "--run", "student", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads((runs / "student/run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["adapters=[{kind: loaa, at: attention, axis: time, rank: 0}]"], "adapters[0].rank"),
        (["adapters=[{kind: loaa, at: attention, axis: time, kernel: 4, rank: 2}]"], "4 is even"),
        (["adapters=[{kind: loaa, at: attention, axis: time}]"], "`rank` or its `parameters`"),
        (["adapters=[{kind: parallel, at: both, parameters: 10}]"], "less than a rank of 1 has"),
        (["adapters=[{kind: parallel, at: both, rank: 2, input: residual}]"], "there is no other input"),
        (["adapters=[{kind: lora, blocks: [9]}]"], "has blocks 0 to 3, not 9"),
        (
            ["adapters=[{kind: lora, name: x}, {kind: parallel, at: both, rank: 1, name: x}]"],
            '2 adapters are called "x"',
        ),
        (["model.unfreeze={last: 1}"], "nothing is frozen"),
        ([LORA, "phases.fine.enter={positions: none}"], "would stay random in a frozen body"),
        (
            ["adapters=[{kind: loaa, at: both, axis: frequency, rank: 2}]", "frontend.mels=16"],
            "one token over frequency here",
        ),
        ([LORA, "model.backbone=cnn14_micro", "frontend={sample_rate: 16000}"], "no blocks for adapters"),
        (
            [
                "adapters=[{kind: loaa, at: both, axis: frequency, rank: 2}]",
                "model.backbone=atst_micro",
                "frontend=null",
            ],
            "one token over frequency",
        ),
    ],
)
def test_a_spec_that_cannot_work_is_refused(c2f, place, arguments, message):
    env, _, _ = place
    done = c2f("finetune", SPEC, *arguments, "--dry-run", env=env)
    assert done.returncode == 2 and message in done.stderr, done.stderr
