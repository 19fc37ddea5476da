"""A resolved spec: lengths in steps, grids, defaults from the data; the figures of the published settings."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.engine.schedule import learning_rate
from c2ftool.errors import DataError, SpecError
from c2ftool.spec.amounts import Duration, Length, samples
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.find import named_specs
from c2ftool.spec.load import load_file, load_spec
from c2ftool.spec.resolve import DataFacts, children, read_resolved, resolve, resolved_hash, resolved_yaml
from c2ftool.spec.resolved import Resolved

ROOT = Path(__file__).parents[2]
PRETRAIN, FINETUNE = ROOT / "tests/specs/pretrain.yaml", ROOT / "tests/specs/finetune.yaml"


def facts(**given) -> DataFacts:
    usual = {"name": "sounds", "classes": ["a", "b", "c"], "sample_rate": 16_000, "multi_label": False, "mean": -5.0}
    counts = {"clips_train": 36, "clips_valid": 12, "clips_test": 12}
    return DataFacts(**{**usual, "std": 4.0, "fingerprint": "f" * 64, **counts, **given})


def tiny(path: Path = PRETRAIN, *overrides: str, **given) -> Resolved:
    return resolve(load_file(path, list(overrides)).spec, facts(**given))


def paper(name: str, **given) -> Resolved:
    spec = load_spec(f"papers/{name}").spec
    runs = children(spec)
    return resolve(load_spec(f"papers/{name}", runs[0][1]).spec if runs else spec, facts(**given))


# The published settings (Chen et al., IJCAI 2024, section 4 and Table 4; parameters of the public code)


def test_eat_pretraining_as_published():
    run = paper("eat_as2m_pretrain", clips_train=1_912_134, multi_label=True, clips_valid=0)
    phase = run.phases[0]
    assert (phase.steps, phase.batch, phase.tokens.grid, phase.visible) == (400_000, 48, (64, 8), 102)
    assert (phase.schedule.warmup, phase.schedule.min_lr, phase.clip) == (53_333, 1e-6, 4.0)
    assert (phase.teacher.decay, phase.teacher.final_decay) == (0.9998, 0.99999)
    assert phase.teacher.over == 100_000 == phase.steps * 25 // 100
    assert phase.teacher.layers == list(range(12))
    assert (phase.optimizer.lr, phase.optimizer.betas, phase.optimizer.weight_decay) == (5e-4, [0.9, 0.95], 0.05)
    front = phase.frontend
    assert (front.frame_length, front.hop, front.frames, front.mels, front.window) == (400, 160, 1024, 128, "hanning")
    assert (front.mean, front.std) == (-4.268, 4.569)
    assert run.objective.utterance_weight == 1.0 and run.objective.utterance_reduction == "sum"
    assert (phase.masks.clones, phase.masks.block, phase.masks.surplus) == (16, [5, 5], 0.07)
    assert (run.objective.decoder.layers, run.objective.decoder.groups) == (6, 16)
    assert (run.metrics, run.select, phase.evaluate_every) == ([], None, 0)
    assert phase.steps * phase.batch / 1_912_134 == pytest.approx(10, abs=0.05)  # ten epochs


def test_the_public_code_differs_in_the_end_of_the_cosine():
    published, code = paper("eat_as2m_pretrain"), paper("eat_as2m_pretrain_code")
    assert (published.phases[0].schedule.min_lr, code.phases[0].schedule.min_lr) == (1e-6, 0.0)
    assert (code.objective.collapse.target, code.objective.collapse.prediction) == (0, 0)


def test_large_trains_twice_as_long():
    phase = paper("eat_as2m_pretrain_large").phases[0]
    assert phase.steps == 800_000 and phase.teacher.layers == list(range(24))


TABLE_4 = [  # name, lr, steps, warm-up, batch, frames, mixup, SpecAugment, roll, noise, loss, smoothing
    ("as2m", 5e-5, 300_000, 30_000, 96, 1024, 0.8, 0.2, True, False, "bce", 0.0),
    ("as20k", 5e-5, 40_000, 4_000, 48, 1024, 0.8, 0.2, True, False, "bce", 0.0),
    ("esc50", 5e-5, 4_000, 400, 48, 512, None, 0.2, True, False, "ce", 0.1),
    ("esc50_code", 5e-5, 4_000, 400, 48, 512, None, 0.4, True, False, "ce", 0.1),
    ("spc2", 2e-4, 40_000, 4_000, 256, 128, 0.8, 0.1, False, True, "bce", 0.0),
    ("spc2_code", 2e-4, 40_000, 4_000, 256, 128, 0.8, 0.2, True, True, "bce", 0.0),
]


@pytest.mark.parametrize("row", TABLE_4, ids=[row[0] for row in TABLE_4])
def test_eat_finetuning_as_published(row):
    name, lr, steps, warmup, batch, frames, mixup, masked, roll, noise, loss, smoothing = row
    run = paper(f"eat_finetune_{name}", multi_label=name.startswith("as"))
    phase = run.phases[0]
    assert (phase.optimizer.lr, phase.steps, phase.schedule.warmup, phase.batch) == (lr, steps, warmup, batch)
    assert (phase.frontend.frames, phase.tokens.grid) == (frames, (frames // 16, 8))
    augment = phase.augment
    assert (augment.mixup.alpha if augment.mixup else None) == mixup
    assert (augment.mixup is None) or augment.mixup.probability == 0.9
    assert (augment.spec_augment.frequency, augment.spec_augment.time) == (masked, masked)
    assert (augment.roll is not None, augment.noise is not None) == (roll, noise)
    assert (run.objective.loss, run.objective.label_smoothing) == (loss, smoothing)
    assert run.objective.reduction == ("labels" if name.startswith("as") else "clips")
    assert (phase.optimizer.layer_decay, phase.optimizer.weight_decay, run.model.drop_path) == (0.65, 0.05, 0.1)
    assert (phase.optimizer.betas, phase.schedule.min_lr, phase.clip) == ([0.9, 0.95], 1e-6, None)
    assert run.metrics == (["map"] if name.startswith("as") else ["accuracy"])


# Lengths


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3 steps", 3),
        ("1 step", 1),
        ("2 epochs", 75),
        ("0.5 epochs", 19),
        ("100 clips", 12),
        ("25 %", 250),
        ("1e2 steps", 100),
        ("1 clips", 1),
        ("0 steps", 0),
        ("0.01 %", 1),
    ],
)
def test_lengths_in_steps(text, steps):
    assert Length.parse(text).steps(batch=8, clips=300, whole=1000) == steps


@settings(deadline=None)
@given(
    st.just(0.0) | st.floats(1e-9, 1e6),
    st.sampled_from(["epochs", "steps", "clips", "%"]),
    st.integers(1, 4096),
    st.integers(1, 10**7),
)
def test_lengths_are_exact_fractions_and_survive_being_written(value, unit, batch, clips):
    length = Length.parse(f"{value!r} {unit}")
    assert Length.parse(str(length)) == length
    per_unit = {"epochs": Fraction(clips, batch), "steps": 1, "clips": Fraction(1, batch), "%": Fraction(clips, 100)}
    steps = length.steps(batch=batch, clips=clips, whole=clips)
    assert steps == (max(1, round(length.value * per_unit[unit])) if length.value else 0)


@pytest.mark.parametrize(
    ("text", "rate", "count"), [("25 ms", 16_000, 400), ("10 ms", 22_050, 220), ("0.01 s", 32_000, 320)]
)
def test_durations_in_samples(text, rate, count):
    assert samples(Duration.parse(text), rate) == count


@pytest.mark.parametrize(
    "text", ["5", "epochs", "5 epoch s", "-1 steps", "1e999 steps", "ten steps", "5 ms", "", "1/2 epochs"]
)
def test_what_is_no_length(text):
    with pytest.raises(ValueError, match="not an amount with a unit"):
        Length.parse(text)


# Phases


def test_a_coarse_phase_has_a_longer_hop_and_fewer_frames():
    coarse, fine = tiny().phases
    assert (coarse.frontend.hop, coarse.frontend.frames, coarse.frontend.frame_length) == (320, 48, 400)
    assert (fine.frontend.hop, fine.frontend.frames, fine.frontend.frame_length) == (160, 96, 400)
    assert (coarse.tokens.grid, fine.tokens.grid) == ((3, 8), (6, 8))
    assert (coarse.visible, fine.visible) == (4, 9)  # int(24 x 0.2), int(48 x 0.2)
    assert (coarse.steps, fine.steps) == (6, 8)
    assert (coarse.schedule.warmup, fine.schedule.warmup) == (1, 2)
    assert (coarse.teacher.over, fine.teacher.over) == (3, 4)


def test_what_does_not_fill_a_patch_is_left_out():
    phase = tiny(PRETRAIN, "frontend.frames=303").phases[1]
    assert phase.tokens.grid == (18, 8) and phase.frontend.frames == 303


@settings(deadline=None)
@given(st.integers(16, 4096), st.sampled_from([0.2, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9]))
def test_the_visible_share_is_free_of_rounding(frames, ratio):
    phase = tiny(PRETRAIN, f"frontend.frames={max(frames, 32)}", f"masks.ratio={ratio}").phases[1]
    tokens = phase.tokens.count
    assert phase.visible == max(1, int(tokens * (1 - Fraction(str(ratio)))))


def test_a_step_schedule_in_steps():
    schedule = "train.schedule={kind: step, warmup: 2 steps, start: 50 %, every: 25 %, factor: 0.5}"
    fine = tiny(PRETRAIN, schedule).phases[1].schedule
    assert (fine.kind, fine.warmup, fine.start, fine.every, fine.factor) == ("step", 2, 4, 2, 0.5)


def test_a_warmup_may_be_longer_than_its_phase():
    """The published teachers of sound events end inside their warm-up."""
    schedule = tiny(PRETRAIN, "train.schedule.warmup=100 steps").phases[1].schedule
    assert (schedule.warmup, schedule.steps) == (100, 8)
    assert learning_rate(schedule, 1.0, 7) == pytest.approx(0.08)


def test_a_linear_schedule_in_steps():
    linear = "train.schedule={kind: linear, warmup: 2 steps, start: 50 %, over: 8 steps, min_lr: 1e-5}"
    fine = tiny(PRETRAIN, linear).phases[1].schedule
    assert (fine.kind, fine.warmup, fine.start, fine.over, fine.min_lr) == ("linear", 2, 4, 8, 1e-5)
    rates = [learning_rate(fine, 1e-3, step) for step in (0, 1, 3, 4, 8, 12, 20)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 5.05e-4, 1e-5, 1e-5])


# The data


def test_normalisation_is_measured_unless_given():
    assert (tiny().phases[0].frontend.mean, tiny().phases[0].frontend.std) == (-5.0, 4.0)
    front = tiny(PRETRAIN, "frontend.normalize={mean: 1.5, std: 2.5}").phases[0].frontend
    assert (front.mean, front.std) == (1.5, 2.5)
    assert tiny(PRETRAIN, "frontend.normalize=measured").phases[0].frontend.mean == -5.0


def test_metrics_follow_the_labels_and_select_follows_the_metrics():
    plain = ["evaluate.metrics=null", "objective.reduction=clips"]
    assert (tiny(FINETUNE, *plain).metrics, tiny(FINETUNE, *plain).select) == (["accuracy"], "accuracy")
    assert tiny(FINETUNE, *plain, multi_label=True).metrics == ["map"]
    chosen = tiny(FINETUNE, *plain, "evaluate.select=auc")
    assert (chosen.metrics, chosen.select) == (["accuracy", "auc"], "auc")


def test_nothing_is_selected_or_scored_without_validation_clips():
    run = tiny(FINETUNE, "data.valid=[]", clips_valid=0)
    assert run.select is None and run.phases[0].evaluate_every == 0


def test_a_held_out_fold_selects_only_where_the_spec_says_so():
    fold = ["data.valid=[]", "data.test=[]", "data.fold=1"]
    assert tiny(FINETUNE, *fold).select is None
    assert tiny(FINETUNE, *fold, "evaluate.select=map").select == "map"


def test_evaluation_and_saves_in_steps():
    phase = tiny(FINETUNE, "evaluate.every=1 epochs", "checkpoints.every=80 clips").phases[0]
    assert (phase.evaluate_every, phase.checkpoint_every) == (4, 10)  # 36 / 8, 80 / 8
    assert tiny(FINETUNE).evaluate_batch == 16


@pytest.mark.parametrize(
    ("overrides", "given", "message"),
    [
        ([], {"sample_rate": 32_000}, "works at 16000 Hz and data set 'sounds' is stored at 32000 Hz"),
        (["phases.fine.frontend.sample_rate=8000"], {}, "works at 8000 Hz and data set 'sounds'"),
        (
            ["objective={kind: classify, loss: ce, reduction: clips}", "evaluate.metrics=[map]"],
            {"multi_label": True},
            "ce is for one label",
        ),
        (["evaluate.metrics=[map, accuracy]"], {"multi_label": True}, "accuracy is for one label per clip"),
        (["evaluate.metrics=[top5]"], {}, "top5 is always 1 with 3 classes"),
    ],
)
def test_a_spec_that_does_not_fit_the_data(overrides, given, message):
    with pytest.raises(SpecError, match=message):
        tiny(FINETUNE, *overrides, **given)


def test_all_misfits_come_together():
    with pytest.raises(SpecError) as caught:
        tiny(FINETUNE, "evaluate.metrics=[accuracy, top5]", multi_label=True, sample_rate=8000)
    assert [part.splitlines()[0][:25] for part in str(caught.value).split("\n\n")] == [
        "the front end works at 16",
        "evaluate.metrics: accurac",
        "evaluate.metrics: top5 is",
    ]


# Studies, files, hashes


def test_a_study_has_a_child_for_each_fold_or_seed():
    fold = load_spec("papers/eat_finetune_esc50")
    runs = children(fold.spec)
    assert [name for name, _ in runs] == ["fold-1", "fold-2", "fold-3", "fold-4", "fold-5"]
    child = fold.with_overrides(runs[2][1]).spec
    assert (child.data.fold, child.data.folds, children(child)) == (3, None, [])
    seeds = load_file(PRETRAIN, ["seeds=[4, 7]"])
    assert [name for name, _ in children(seeds.spec)] == ["seed-4", "seed-7"]
    child = seeds.with_overrides(children(seeds.spec)[1][1]).spec
    assert (child.seed, child.seeds) == (7, None)


@pytest.mark.parametrize("name", named_specs())
def test_a_resolved_spec_survives_being_written(name, tmp_path):
    spec = load_spec(name).spec
    overrides = children(spec)[0][1] if children(spec) else []
    rate = spec.frontend.sample_rate or BACKBONES[spec.model.backbone].frontend.sample_rate
    known = facts(multi_label=name.startswith("papers/eat_finetune_as"), sample_rate=rate)
    if "top5" in (spec.evaluate.metrics or []):
        known = facts(sample_rate=rate, classes=[str(number) for number in range(44)])
    run = resolve(load_spec(name, overrides).spec, known)
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(run))
    again = read_resolved(tmp_path / "resolved.yaml")
    assert again == run and resolved_hash(again) == resolved_hash(run)


def test_the_hash_is_of_what_decides_the_numbers():
    usual = resolved_hash(tiny())
    same = [
        "name=other",
        "about=words",
        "tracking.every=3",
        "train.workers=2",
        "train.micro_batch=2",
        "checkpoints.keep=9",
    ]
    assert {resolved_hash(tiny(PRETRAIN, argument)) for argument in same} == {usual}
    other = ["seed=9", "train.batch=4", "phases.fine.length=9 steps", "masks.ratio=0.7", "objective.mask_noise=0.1"]
    hashes = [resolved_hash(tiny(PRETRAIN, argument)) for argument in other]
    assert len({usual, resolved_hash(tiny(fingerprint="0" * 64)), *hashes}) == len(other) + 2


@pytest.mark.parametrize("text", ["", "name: x\n", "{", "- 1\n"])
def test_a_damaged_resolved_file_is_told(tmp_path, text):
    (tmp_path / "resolved.yaml").write_text(text)
    with pytest.raises(DataError, match="not a resolved spec"):
        read_resolved(tmp_path / "resolved.yaml")
