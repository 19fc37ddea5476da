"""Phases, compression, stop rules, averaging and savings in a spec: what is refused and why, and what is resolved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from c2ftool.errors import SpecError
from c2ftool.spec.load import Loaded, load_file
from c2ftool.spec.resolve import DataFacts, read_resolved, resolve, resolved_yaml
from c2ftool.spec.resolved import Resolved, ResolvedAverage, ResolvedStop

SPECS = Path(__file__).parents[1] / "specs"
C2F, PRETRAIN, FINETUNE = SPECS / "c2f.yaml", SPECS / "pretrain.yaml", SPECS / "finetune.yaml"
FACTS = DataFacts(
    name="sounds", classes=["a", "b", "c"], sample_rate=16_000, multi_label=False, mean=-5.0, std=4.0,
    fingerprint="f" * 64, clips_train=36, clips_valid=12, clips_test=12,
)  # fmt: skip
FOLD = ("data.valid=[]", "data.test=[]", "data.fold=1")


def load(spec: Path = C2F, *overrides: str) -> Loaded:
    return load_file(spec, list(overrides))


def faults(spec: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(spec, *overrides)
    return str(caught.value)


def resolved(spec: Path = C2F, *overrides: str, **given: Any) -> Resolved:
    return resolve(load(spec, *overrides).spec, dataclasses.replace(FACTS, **given))


# --- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["phases.coarse.compression.factor=16"],
            "compression by 16: 128 frames x 128 mel bands leave no 256 x 16 patch",
        ),
        (
            ["phases.coarse.compression={method: pool, factor: 16}"],
            "compression by 16: 8 frames x 128 mel bands leave no 16 x 16 patch",
        ),
        (
            ["phases.coarse.compression={method: fshift, factor: 16}", "frontend.frames=12"],
            "compression by 16: 12 frames compressed 16 to 1 leave none",
        ),
        (
            ["phases.coarse.compression={method: fshift, factor: 4, mel_factor: 8}", "frontend.mels=64"],
            "compression by 4 (mel axis 8): 32 frames x 8 mel bands leave no 16 x 16 patch",
        ),
        (
            ["compression={method: patch, factor: 1, mel_factor: 8}", "frontend.mels=64"],
            "compression by 1 (mel axis 8): 128 frames x 64 mel bands leave no 16 x 128 patch",
        ),
    ],
)
def test_a_factor_that_leaves_no_token_is_named_with_what_is_left(overrides: list[str], message: str) -> None:
    said = faults(C2F, *overrides)
    assert message in said and "raise frontend.frames or frontend.mels, or lower the factor" in said


def test_the_phase_whose_factor_is_too_large_is_shown() -> None:
    said = faults(C2F, "frontend.frames=63")
    line = next(n for n, row in enumerate(C2F.read_text().splitlines(), 1) if "name: coarse" in row)
    assert f"c2f.yaml:{line}:" in said and "compression: {method: patch, factor: 4}" in said
    assert "1 fault found" in said  # 63 frames are enough for factor 2 and for none


def test_patch_compression_needs_a_patch_kernel() -> None:
    message = "fpasst_micro has no patch kernel, so its patches cannot be widened\n"
    said = faults(C2F, "model.backbone=fpasst_micro")
    assert said.count(message) == 2 and "use method fshift or pool" in said  # coarse and middle
    load(C2F, "model.backbone=fpasst_micro", *(f"phases.{p}.compression.method=fshift" for p in ("coarse", "middle")),
         *(f"phases.{p}.compression.factor=2" for p in ("coarse", "middle")))  # fmt: skip
    everywhere = ("phases=[{name: a, length: 1 steps}]", "compression={method: patch, factor: 2}")
    assert message in faults(C2F, "model.backbone=fpasst_micro", *everywhere)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compression={method: fshift, factor: 3}"], "cannot be 3\n    known: 1, 2, 4, 8, 16"),
        (["compression={method: fshift, factor: 2, mel_factor: 16}"], "compression.mel_factor cannot be 16"),
        (["compression={method: none, factor: 2}"], "compression.factor cannot be 2"),
        (["compression={method: patch}"], 'compression needs the key "factor"'),
        (["compression={method: squeeze, factor: 2}"], 'unknown method "squeeze"'),
        (["compression={method: pool, factor: 2, window: scaled}"], 'unknown key "window"'),
        (["compression={method: patch, factor: 2, resize: bicubic}"], "compression.resize cannot be 'bicubic'"),
        (["phases.fine.enter.positions=linear"], 'did you mean "bilinear"?'),
        (["phases.fine.enter.carry=[weights]"], "known: optimizer"),
        (["control=repeat"], "known: none, restart"),
    ],
)
def test_words_that_the_language_does_not_have(overrides: list[str], message: str) -> None:
    assert message in faults(C2F, *overrides)


@pytest.mark.parametrize("stride", [[17, 16], [16, 20], [32, 32]])
def test_a_stride_beyond_the_patch_would_leave_gaps(stride: list[int]) -> None:
    message = f"a stride of {stride[0]} x {stride[1]} leaves gaps between patches of 16 x 16"
    assert message in faults(C2F, f"model.stride={stride}")
    load(C2F, "model.stride=[16, 1]")


def test_the_eat_objective_is_eats() -> None:
    said = faults(PRETRAIN, "model.backbone=ast_micro")
    assert "objective eat pre-trains EAT, not ast_micro\n    choose one of the eat_ backbones" in said


def test_phases_of_other_methods_follow_each_other() -> None:
    run = resolved(
        C2F,
        "phases=[{name: a, length: 2 steps, compression: {method: pool, factor: 4, reduce: max}}, "
        "{name: b, length: 2 steps, compression: {method: fshift, factor: 2, mel_factor: 2}}, "
        "{name: c, length: 2 steps, compression: {method: patch, factor: 2}}, {name: d, length: 2 steps}]",
    )
    assert [phase.tokens.grid for phase in run.phases] == [(2, 8), (4, 4), (4, 8), (8, 8)]
    assert [phase.frontend.hop for phase in run.phases] == [160, 320, 160, 160]
    assert all(phase.full_frontend == run.phases[3].frontend for phase in run.phases)


def test_a_compression_of_the_spec_holds_in_phases_that_name_none() -> None:
    phases = resolved(C2F, "compression={method: fshift, factor: 2}").phases
    assert [phase.compression.method for phase in phases] == ["patch", "patch", "fshift"]
    merged = resolved(C2F, "compression={method: patch, factor: 8, resize: bilinear}").phases
    resizes = [phase.compression.model_dump()["resize"] for phase in merged]
    assert resizes == ["bilinear"] * 3 and [phase.compression.factor for phase in merged] == [4, 2, 8]


@pytest.mark.parametrize("spec", [C2F, PRETRAIN, FINETUNE])
def test_the_restart_control_is_the_same_phases_at_full_resolution(spec: Path) -> None:
    run, control = resolved(spec), resolved(spec, "control=restart")
    finest = run.phases[-1]
    for phase, ours in zip(control.phases, run.phases, strict=True):
        assert (phase.compression.factor, phase.compression.mel_factor) == (1, 1)
        assert (phase.tokens, phase.frontend) == (finest.tokens, phase.full_frontend)
        assert phase.visible == finest.visible
        same = {"compression", "tokens", "frontend", "visible"}
        assert phase.model_dump(exclude=same) == ours.model_dump(exclude=same)
    assert [phase.compression.factor for phase in run.phases] != [phase.compression.factor for phase in control.phases]
    without = [
        phase.compression.factor for phase in resolved(spec, "compression.method=none", "control=restart").phases
    ]
    assert set(without) == {1}


def test_masks_follow_the_grid() -> None:
    run = resolved(
        PRETRAIN,
        "frontend.frames=256",
        "phases.coarse.compression={method: patch, factor: 4}",
        "phases.fine.compression={method: pool, factor: 2}",
        "model.stride=[8, 16]",
    )
    assert [phase.tokens.grid for phase in run.phases] == [(7, 8), (15, 8)]
    assert [phase.visible for phase in run.phases] == [int(56 * 0.2), 24]


# --- the order of phases under `extends` ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "order"),
    [
        ("[{name: first, length: 1 steps}, {name: coarse}, {name: middle}, {name: fine}]", "first coarse middle fine"),
        ("[{name: fine}, {name: coarse}, {name: middle}]", "fine coarse middle"),
        ("[{name: coarse}, {name: extra, length: 1 steps}, {name: middle}, {name: fine}]", "coarse extra middle fine"),
        # not all are named: changes in place, what is new comes after
        ("[{name: extra, length: 1 steps}, {name: coarse}]", "coarse middle fine extra"),
        ("[{name: fine, length: 9 steps}]", "coarse middle fine"),
    ],
)
def test_a_spec_that_names_all_phases_orders_them(tmp_path: Path, phases: str, order: str) -> None:
    (tmp_path / "x.yaml").write_text(f"extends: {C2F}\nname: x\nphases: {phases}\n")
    run = load(tmp_path / "x.yaml").spec
    assert [phase.name for phase in run.phases] == order.split()
    middle = next(phase for phase in run.phases if phase.name == "middle")
    assert str(middle.length) == "6 steps" and middle.enter is not None and middle.enter.carry == ["optimizer"]


@pytest.mark.parametrize("name", ["best", "last", "average", "last-teacher"])
def test_a_phase_is_not_called_as_other_weights_are(name: str) -> None:
    """weights-NAME.safetensors of a phase would be taken for the run's best, last or averaged weights."""
    faults(C2F, f"phases=[{{name: {name}, length: 1 steps}}]")


# --- stop rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["surpasses, value: 0.5", "plateau"])
@pytest.mark.parametrize("place", ["phases.coarse.stop", "phases.fine.stop"])
def test_a_rule_of_a_metric_needs_validation_clips(rule: str, place: str) -> None:
    kind = rule.partition(",")[0]
    said = faults(C2F, "phases.fine.stop={kind: budget, flops: 1}", f"{place}={{kind: {rule}}}", "data.valid=[]")
    assert f"{kind} needs a metric on validation clips, and there are none" in said and "use kind: budget" in said
    load(C2F, f"{place}={{kind: {rule}}}", *FOLD)  # the held-out fold is validated on
    said = faults(PRETRAIN, f"phases.fine.stop={{kind: {rule}}}")
    assert f"{kind} needs a metric, and pre-training is not scored\n    use kind: budget" in said


def test_surpassing_needs_a_value_or_a_baseline() -> None:
    said = faults(C2F, "phases.fine.stop={kind: surpasses}")
    assert "surpasses needs something to surpass\n    give a `value`, or name a run in savings.baseline" in said
    load(C2F, "phases.fine.stop={kind: surpasses, value: 0}")
    load(C2F, "phases.fine.stop={kind: surpasses}", "savings.baseline=run:other")


@pytest.mark.parametrize("given", ["", ", flops: 1e9, time: 5 min"])
def test_a_budget_is_of_one_thing(given: str) -> None:
    said = faults(PRETRAIN, f"phases.coarse.stop={{kind: budget{given}}}")
    assert "a budget is of `flops` or of `time`\n    give one of them" in said


@pytest.mark.parametrize("given", ["flops: 0", "flops: -1", "time: 0 s"])
def test_a_budget_of_nothing_is_refused(given: str) -> None:
    faults(PRETRAIN, f"phases.coarse.stop={{kind: budget, {given}}}")


@pytest.mark.parametrize("rule", ["plateau, metric: map", "surpasses, value: 0.1, metric: map"])
def test_a_phase_stops_by_what_is_measured(rule: str) -> None:
    said = faults(C2F, f"phases.fine.stop={{kind: {rule}}}")
    assert "map is not among evaluate.metrics\n    add it there" in said
    with pytest.raises(SpecError) as caught:  # with the metrics left to the data, it is known when they are
        resolved(C2F, f"phases.fine.stop={{kind: {rule}}}", "evaluate.metrics=null")
    assert "phase fine stops by map, which is not measured" in str(caught.value)
    assert "Set evaluate.metrics=[accuracy, map]." in str(caught.value)
    several = ("evaluate.metrics=null", "objective.loss=bce")
    resolved(C2F, f"phases.fine.stop={{kind: {rule}}}", *several, multi_label=True)


def test_a_metric_that_is_never_evaluated_stops_nothing() -> None:
    faults(C2F, "evaluate.every=0 steps")


def test_stop_rules_are_resolved_with_the_metric_that_selects() -> None:
    run = resolved(
        C2F,
        "evaluate={metrics: [accuracy, map], select: map}",
        "phases.coarse.stop={kind: surpasses, value: 0.25}",
        "phases.middle.stop={kind: budget, time: 1.5 min, of: run}",
        "phases.fine.stop={kind: plateau, metric: accuracy, patience: 4, min_delta: 0.01}",
    )
    assert [phase.stop for phase in run.phases] == [
        ResolvedStop(kind="surpasses", metric="map", value=0.25),
        ResolvedStop(kind="budget", seconds=90.0, of="run"),
        ResolvedStop(kind="plateau", metric="accuracy", patience=4, min_delta=0.01),
    ]
    fold = resolved(C2F, *FOLD).phases[-1].stop  # nothing selects on a held-out fold, but rules look at the first
    assert fold is not None and fold.metric == "accuracy"
    budget = resolved(PRETRAIN, "phases.coarse.stop={kind: budget, flops: 2e9}").phases
    assert [phase.stop for phase in budget] == [ResolvedStop(kind="budget", flops=2e9), None]


def test_surpassing_the_baseline_is_its_best_of_the_rules_own_metric() -> None:
    arguments = ["evaluate.metrics=[accuracy, map]", "savings.baseline=run:other"]
    best = {"accuracy": 0.75, "map": 0.5}

    def value(rule: str, **given: Any) -> float | None:
        stop = resolved(C2F, *arguments, f"phases.fine.stop={{kind: surpasses{rule}}}", **given).phases[-1].stop
        assert stop is not None
        return stop.value

    assert value("", baseline_best=best) == 0.75 and value(", metric: map", baseline_best=best) == 0.5
    assert value(", value: 0.9", baseline_best=best) == 0.9  # what the spec says comes first
    assert value("") is None and value("", baseline_best={"map": 0.5}) is None


# --- averaging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["train", "phases.fine"])
@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("start", "10 %", "a share has no meaning here\n    write steps, epochs or clips"),
        ("every", "50 %", "a share has no meaning here"),
        ("start", "0 steps", "an average has no moment `0`"),
        ("every", "0 epochs", "an average has no moment `0`\n    write steps, epochs or clips above 0"),
    ],
)
def test_moments_of_an_average_are_counted_in_training(section: str, key: str, given: str, message: str) -> None:
    said = faults(C2F, f"{section}.average.{key}={given}")
    assert message in said and "1 fault found" in said


def test_an_average_is_resolved_in_steps_of_its_phase() -> None:
    run = resolved(C2F, "train.average={start: 2 epochs, every: 80 clips}", "phases.fine={batch: 4, length: 9 epochs}")
    assert [phase.average for phase in run.phases] == [
        None,
        None,
        ResolvedAverage(start="18", every="20"),  # 36 clips in an epoch, 4 in a step
    ]
    run = resolved(C2F, "train.average=null", "phases.fine.average={}")
    assert [phase.average for phase in run.phases] == [None, None, ResolvedAverage(start="9/2", every="9/2")]


# --- savings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("baseline_best: 3 epochs", "baseline_best and reached belong together; reached is not given"),
        ("reached: 3 epochs", "baseline_best and reached belong together; baseline_best is not given"),
        ("reached: 3 epochs, baseline_best: 50 %", "a share has no meaning here"),
        ("reached: 3 %, baseline_best: 5 epochs", "a share has no meaning here"),
        ("metric: map", "map is not among evaluate.metrics"),
    ],
)
def test_savings_that_cannot_be_told(given: str, message: str) -> None:
    assert message in faults(C2F, f"savings={{baseline: run:other, {given}}}")


def test_pretraining_is_compared_over_whole_runs() -> None:
    said = faults(PRETRAIN, "savings.baseline=run:other")
    assert "first_beat needs a metric, and pre-training is not scored\n    use at: end" in said
    load(PRETRAIN, "savings={baseline: run:other, at: end}")
    load(C2F, "savings={baseline: run:other, reached: 3 epochs, baseline_best: 10 epochs}")


# --- mixup ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["augment.waveform_mixup={}", "train.batch=7"], "argument 2: train.batch=7"),
        (["phases.fine.augment.waveform_mixup={}", "phases.fine.batch=9"], "argument 2: phases.fine.batch=9"),
        (["train.batch=9", "phases.middle.augment.waveform_mixup={}"], "argument 1: train.batch=9"),
    ],
)
def test_waveform_mixup_needs_an_even_batch(overrides: list[str], where: str) -> None:
    said = faults(C2F, *overrides)
    assert f"{where}: waveform_mixup mixes the clips of a batch in pairs, and" in said
    assert "choose an even batch" in said
    load(C2F, "train.batch=7")  # without mixup any batch will do


def test_waveform_mixup_needs_labels() -> None:
    assert "waveform_mixup needs labels, and pre-training has none" in faults(PRETRAIN, "augment.waveform_mixup={}")
    assert "waveform_mixup needs labels" in faults(PRETRAIN, "phases.fine.augment.waveform_mixup={}")


# --- all together -----------------------------------------------------------------------------------------------------


def test_all_faults_of_the_phases_come_together() -> None:
    said = faults(
        C2F,
        "model.stride=[20, 20]",
        "phases.coarse.compression.factor=16",
        "phases.middle.stop={kind: budget}",
        "phases.fine.stop={kind: surpasses}",
        "train.average.every=5 %",
    )
    assert said.endswith("5 faults found; nothing was run.")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("control=restart",),
        ("phases.coarse.compression={method: pool, factor: 4, at: log_mel, mel_factor: 2}", "model.stride=[10, 10]"),
        ("phases.coarse.stop={kind: budget, time: 5 min}", "savings={baseline: run:other, reached: 3 epochs, "
         "baseline_best: 10 epochs}", "enter={positions: none, carry: [optimizer]}"),
    ],
)  # fmt: skip
def test_resolved_phases_survive_being_written(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    run = resolved(C2F, *overrides)
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(run))
    assert read_resolved(tmp_path / "resolved.yaml") == run
