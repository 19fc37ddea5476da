"""Crossing from phase to phase: which rule fits what, what is kept to the bit, what starts afresh, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.engine.boundary import Crossing, border_rules, cross, start_rules
from c2ftool.engine.optimizer import Moments, build_optimizer, moments, set_moments
from c2ftool.models.layout import Change, Rules
from c2ftool.objectives.base import Objective
from c2ftool.objectives.build import build_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve
from c2ftool.spec.resolved import Resolved

SPECS = Path(__file__).parents[1] / "specs"
C2F, PRETRAIN = SPECS / "c2f.yaml", SPECS / "pretrain.yaml"
FACTS = DataFacts(
    name="sounds", classes=["a", "b", "c"], sample_rate=16_000, multi_label=False, mean=-5.0, std=4.0,
    fingerprint="f" * 64, clips_train=36, clips_valid=12, clips_test=12,
)  # fmt: skip
CPU = torch.device("cpu")
SIZED = {"backbone.pos_embed", "backbone.patch_embed.proj.weight"}


def resolved(spec: Path = C2F, *overrides: str) -> Resolved:
    return resolve(load_file(spec, list(overrides)).spec, FACTS)


def features(run: Resolved, index: int, clips: int = 4) -> Tensor:
    tokens = run.phases[index].tokens
    return torch.randn(clips, tokens.frames, tokens.mels, generator=torch.Generator().manual_seed(index))


def optimizer_of(objective: Objective, run: Resolved, index: int) -> torch.optim.Optimizer:
    return build_optimizer(objective.trainable(), run.phases[index].optimizer, *objective.layers())


def train(objective: Objective, optimizer: torch.optim.Optimizer, run: Resolved, index: int, steps: int = 3) -> None:
    """Some steps of a phase, so that there are moments and a teacher of its own."""
    objective.begin_phase(run.phases[index], index)
    x = features(run, index)
    targets = {"clip": torch.eye(3)[torch.arange(4) % 3]} if run.task == "finetune" else {}
    for step in range(steps):
        sums = objective.train()(x, targets, Draw(1, index, step, torch.arange(len(x))))
        optimizer.zero_grad()
        torch.stack(list(sums.values())).sum().backward()
        optimizer.step()
        objective.after_step(step + 1)


def trained(run: Resolved, index: int = 0) -> tuple[Objective, torch.optim.Optimizer]:
    """The objective after some steps of a phase, with its optimiser."""
    objective = build_objective(run, index)
    optimizer = optimizer_of(objective, run, index)
    train(objective, optimizer, run, index)
    return objective, optimizer


def copied(objective: Objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.student.state_dict().items()}


def over(run: Resolved, objective: Objective, optimizer: torch.optim.Optimizer | None, index: int = 0) -> Crossing:
    return cross(objective, optimizer, run.phases[index], run.phases[index + 1], run.seed)


# --- the rules --------------------------------------------------------------------------------------------------------


def test_a_border_is_bilinear_and_a_start_is_cut_unless_the_spec_says_otherwise() -> None:
    plain = resolved(C2F, "phases=[{name: a, length: 2 steps}, {name: b, length: 2 steps}]").phases
    assert border_rules(*plain) == Rules("bilinear", "pi")
    assert start_rules(plain[0], BACKBONES["ast_micro"]) == Rules("cut", "pi")
    asked = resolved(C2F, "enter={positions: bicubic, patch_kernel: bilinear}", "phases.fine.enter.positions=none")
    coarse, middle, fine = asked.phases
    assert start_rules(coarse, BACKBONES["ast_micro"]) == border_rules(coarse, middle) == Rules("bicubic", "bilinear")
    assert border_rules(middle, fine) == Rules("none", "bilinear")


@pytest.mark.parametrize(
    ("coarse", "middle", "fine", "rules"),
    [
        ("bilinear", None, None, ["bilinear", "bilinear", "pi"]),  # start, coarse -> middle, middle -> fine
        ("bilinear", "pi", None, ["bilinear", "pi", "pi"]),
        ("pi", "bilinear", None, ["pi", "bilinear", "bilinear"]),
        (None, "bilinear", None, ["pi", "bilinear", "bilinear"]),
        ("bilinear", None, "pi", ["bilinear", "bilinear", "pi"]),
    ],
)
def test_kernels_follow_the_patch_compression_entered_else_the_one_left(
    coarse: str | None, middle: str | None, fine: str | None, rules: list[str]
) -> None:
    def phase(name: str, rule: str | None, factor: int) -> str:
        how = f"{{method: patch, factor: {factor}, resize: {rule}}}" if rule else "{method: fshift, factor: 1}"
        return f"{{name: {name}, length: 2 steps, compression: {how}}}"

    text = ", ".join((phase("coarse", coarse, 4), phase("middle", middle, 2), phase("fine", fine, 1)))
    phases = resolved(C2F, f"phases=[{text}]").phases
    asked = [
        start_rules(phases[0], BACKBONES["ast_micro"]),
        border_rules(phases[0], phases[1]),
        border_rules(phases[1], phases[2]),
    ]
    assert [rule.patch_kernel for rule in asked] == rules


def test_what_a_phase_says_of_its_kernel_comes_before_its_compression() -> None:
    run = resolved(C2F, "phases.middle.enter.patch_kernel=bilinear", "phases.coarse.enter.patch_kernel=bilinear")
    assert start_rules(run.phases[0], BACKBONES["ast_micro"]).patch_kernel == "bilinear"
    assert border_rules(run.phases[0], run.phases[1]).patch_kernel == "bilinear"
    assert border_rules(run.phases[1], run.phases[2]).patch_kernel == "pi"  # its own rule, not the phase's before


# --- the weights ------------------------------------------------------------------------------------------------------


def test_weights_cross_to_the_bit_but_for_those_that_are_resized() -> None:
    run = resolved()
    objective, optimizer = trained(run)
    before, parameters = copied(objective), dict(objective.student.named_parameters())
    crossing = over(run, objective, optimizer)
    after = objective.student.state_dict()
    assert {change.name for change in crossing.changes} == SIZED and crossing.replaced
    assert {change.kind for change in crossing.changes} == {"resized"}
    assert all(torch.equal(after[name], before[name]) for name in before if name not in SIZED)
    now = dict(objective.student.named_parameters())
    assert {name for name in now if now[name] is not parameters[name]} == SIZED
    assert after["backbone.pos_embed"].shape == (1, 2 + 4 * 8, 96)  # from 2 + 2 x 8
    assert after["backbone.patch_embed.proj.weight"].shape == (96, 1, 16, 32)  # from 16 x 64
    assert torch.equal(after["backbone.pos_embed"][:, :2], before["backbone.pos_embed"][:, :2])


def test_a_border_without_a_new_grid_changes_nothing() -> None:
    run = resolved(C2F, "phases=[{name: a, length: 2 steps}, {name: b, length: 2 steps}]")
    objective, optimizer = trained(run)
    before, parameters = copied(objective), dict(objective.student.named_parameters())
    crossing = over(run, objective, optimizer)
    assert crossing.changes == [] and not crossing.replaced
    assert all(p is parameters[name] for name, p in objective.student.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in objective.student.state_dict().items())


def test_created_positions_are_the_first_ones_of_the_seed() -> None:
    run = resolved(C2F, "phases.middle.enter.positions=none")
    objective, optimizer = trained(run)
    crossing = over(run, objective, optimizer)
    assert {(c.name, c.kind) for c in crossing.changes} == {
        ("backbone.pos_embed", "created"),
        ("backbone.patch_embed.proj.weight", "resized"),
    }
    fresh = build_objective(run, 1).student.state_dict()["backbone.pos_embed"]
    assert torch.equal(objective.student.state_dict()["backbone.pos_embed"], fresh)


def test_eat_recomputes_its_positions_and_replaces_nothing() -> None:
    run = resolved(PRETRAIN)
    objective, optimizer = trained(run)
    before, parameters = copied(objective), dict(objective.student.named_parameters())
    crossing = over(run, objective, optimizer)
    assert [(c.kind, c.what) for c in crossing.changes] == [("recomputed", "positions 8 x 3 -> 8 x 6 (sine-cosine)")]
    assert not crossing.replaced
    assert all(p is parameters[name] for name, p in objective.student.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in objective.student.state_dict().items())


def test_the_teacher_crosses_as_the_student_does() -> None:
    run = resolved(PRETRAIN, "phases.coarse.compression={method: patch, factor: 2}")
    objective, optimizer = trained(run)
    kernel = "backbone.patch_embed.proj.weight"
    teacher = objective.teacher_weights()
    assert teacher is not None
    student = {name: objective.student.state_dict()[name].clone() for name in teacher}
    assert not torch.equal(teacher[kernel], student[kernel])  # it lags behind
    crossing = over(run, objective, optimizer)
    change = next(c for c in crossing.changes if c.name == kernel)
    assert change.resize is not None
    after = objective.teacher_weights()
    assert after is not None and list(after) == list(teacher)
    assert torch.equal(after[kernel], change.resize(teacher[kernel]))
    assert all(torch.equal(after[name], teacher[name]) for name in teacher if name != kernel)
    train(objective, optimizer_of(objective, run, 1), run, 1)  # both work on the new grid


def test_a_frozen_body_stays_frozen_over_a_border() -> None:
    run = resolved(C2F, "model.freeze=body")
    objective, optimizer = trained(run)
    over(run, objective, optimizer)
    assert {name for name, _ in objective.trainable()} == {"head.norm.weight", "head.norm.bias", "head.fc.weight"} | {
        "head.fc.bias"
    }


# --- the optimiser's moments ------------------------------------------------------------------------------------------


def test_moments_start_afresh_unless_the_phase_asks_for_them() -> None:
    run = resolved(C2F, "phases.middle.enter.carry=[]")
    objective, optimizer = trained(run)
    crossing = over(run, objective, optimizer)
    assert crossing.moments == {} and crossing.reset == ["learning-rate schedule", "optimiser moments"]
    assert over(resolved(), build_objective(resolved()), None).moments == {}  # resumed at a border: none in memory


def kept(run: Resolved) -> tuple[Objective, Moments, Crossing]:
    """(objective past the border, its moments before, the crossing)."""
    objective, optimizer = trained(run)
    before = {name: {key: value.clone() for key, value in held.items()} for name, held in moments(optimizer).items()}
    return objective, before, over(run, objective, optimizer)


def test_carried_moments_are_the_same_bits_but_for_those_of_resized_tensors() -> None:
    objective, before, crossing = kept(resolved())
    assert set(crossing.moments) == set(before) == {name for name, _ in objective.trainable()}
    assert crossing.reset == ["learning-rate schedule"]
    changes = {change.name: change for change in crossing.changes}
    for name, held in crossing.moments.items():
        assert torch.equal(held["step"], before[name]["step"]) and held["step"] == 3
        first, second = held["exp_avg"], held["exp_avg_sq"]
        assert first.shape == second.shape == objective.student.state_dict()[name].shape
        if name not in changes:
            assert torch.equal(first, before[name]["exp_avg"]) and torch.equal(second, before[name]["exp_avg_sq"])
            continue
        assert torch.equal(first, changes[name].moved(before[name]["exp_avg"], "first"))
        assert torch.equal(second, changes[name].moved(before[name]["exp_avg_sq"], "second"))
        assert bool((second >= 0).all()) and bool(first.any()) and bool(second.any())


def test_moments_of_created_tensors_start_afresh_and_are_named() -> None:
    _, before, crossing = kept(resolved(C2F, "phases.middle.enter={positions: none, carry: [optimizer]}"))
    assert set(before) - set(crossing.moments) == {"backbone.pos_embed"}
    assert crossing.reset == ["learning-rate schedule", "moments of backbone.pos_embed"]


@pytest.mark.parametrize("positions", ["bilinear", "none"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_next_optimiser_takes_the_moments_up(kind: str, positions: str) -> None:
    run = resolved(
        C2F, f"train.optimizer.kind={kind}", "train.optimizer.lr=1e-3", f"phases.middle.enter.positions={positions}"
    )
    objective, _, crossing = kept(run)
    optimizer = optimizer_of(objective, run, 1)
    set_moments(optimizer, crossing.moments)
    taken = moments(optimizer)
    assert set(taken) == set(crossing.moments)
    assert all(torch.equal(taken[n]["exp_avg"], held["exp_avg"]) for n, held in crossing.moments.items())
    # a step is the mean of the gradients so far: with a gradient of 0 the weights still move, by the moments alone
    before = copied(objective)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = objective.student.state_dict()
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved == set(crossing.moments)
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert all(moments(optimizer)[name]["step"] == 4 for name in crossing.moments)
    train(objective, optimizer, run, 1)


AFRESH = ["learning-rate schedule", "decay of the EMA teacher"]


def test_moments_of_what_is_recomputed_are_not_asked_for() -> None:
    run = resolved(PRETRAIN, "phases.fine.enter.carry=[optimizer]")
    _, before, crossing = kept(run)
    assert set(crossing.moments) == set(before) and crossing.reset == AFRESH
    for name, held in crossing.moments.items():
        assert all(torch.equal(held[key], before[name][key]) for key in ("step", "exp_avg", "exp_avg_sq"))


# --- the account ------------------------------------------------------------------------------------------------------


def test_the_account_says_what_was_kept_resized_and_reset() -> None:
    run = resolved()
    objective, optimizer = trained(run)
    first, second = over(run, objective, optimizer), over(run, objective, None, 1)
    assert first.lines("weights, moments") == [
        "carried over: weights, moments",
        "resized: backbone.pos_embed: positions 8 x 2 -> 8 x 4 (bilinear); "
        "backbone.patch_embed.proj.weight: patch kernel 16 x 64 -> 16 x 32 (pi)",
        "starting afresh: learning-rate schedule; dropped: nothing",
    ]
    assert second.lines("weights") == [
        "carried over: weights",
        "resized: backbone.pos_embed: positions 8 x 4 -> 8 x 8 (bilinear); "
        "backbone.patch_embed.proj.weight: patch kernel 16 x 32 -> 16 x 16 (pi)",
        "starting afresh: learning-rate schedule, optimiser moments; dropped: nothing",
    ]


def test_the_account_of_what_is_created_recomputed_or_unchanged() -> None:
    made = Change("backbone.pos_embed", "created", "positions 8 x 2 -> 8 x 4 (start afresh)")
    computed = Change("backbone.positions", "recomputed", "positions 8 x 3 -> 8 x 6 (sine-cosine)")
    assert Crossing([made, computed], {}, ["learning-rate schedule"]).lines("weights") == [
        "carried over: weights",
        "created: backbone.pos_embed: positions 8 x 2 -> 8 x 4 (start afresh)",
        "recomputed: positions 8 x 3 -> 8 x 6 (sine-cosine)",
        "starting afresh: learning-rate schedule; dropped: the values of backbone.pos_embed",
    ]
    assert Crossing([], {}, ["optimiser moments"]).lines("weights, EMA teacher") == [
        "carried over: weights, EMA teacher",
        "resized: nothing, no tensor has the shape of the grid or the patch",
        "starting afresh: optimiser moments; dropped: nothing",
    ]
