"""Objectives: sums that do not depend on how a batch is cut, published weights, the teacher, the collapse watch."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from c2ftool.data.batch import HostBatch
from c2ftool.draws import Draw
from c2ftool.errors import GuardError
from c2ftool.objectives.base import Objective
from c2ftool.objectives.build import build_objective
from c2ftool.objectives.eat import EatObjective, averaged_target, masked_order, token_deviation
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve
from c2ftool.spec.resolved import Resolved

EAT = """
c2f: 1
name: t
task: pretrain
seed: 1
data: {dataset: demo}
frontend: {frames: 80, mels: 64}
model: {backbone: eat_tiny}
objective: {kind: eat, decoder: {layers: 2}, collapse: {after: 5 steps}}
masks: {kind: inverse_block, clones: 3, block: [2, 2]}
teachers: [{kind: ema, decay: 0.9, final_decay: 0.99, over: 10 steps}]
train: {batch: 4}
phases:
  - {name: coarse, length: 20 steps, compression: {method: fshift, factor: 2}}
  - {name: fine, length: 20 steps}
"""
CLASSIFY = """
c2f: 1
name: t
task: finetune
seed: 1
data: {dataset: demo}
frontend: {frames: 32, mels: 64}
model: {backbone: eat_tiny, head: {kind: clip}}
objective: {kind: classify, loss: bce}
train: {batch: 4}
phases: [{name: only, length: 20 steps}]
"""
FACTS = DataFacts(
    name="demo", classes=list("abcde"), sample_rate=16_000, multi_label=False, mean=-4.0, std=4.0, fingerprint="0",
    clips_train=40, clips_valid=0, clips_test=0,
)  # fmt: skip


@pytest.fixture
def made(tmp_path: Path):
    """Makes (objective in its first phase, resolved spec) from a spec's text and arguments."""

    def make(text: str, *arguments: str) -> tuple[Objective, Resolved]:
        path = tmp_path / "t.yaml"
        path.write_text(text)
        resolved = resolve(load_file(path, list(arguments)).spec, FACTS)
        objective = build_objective(resolved)
        objective.begin_phase(resolved.phases[0], 0)
        return objective.train(), resolved

    return make


def draw(rows: int = 4, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def features(clips: int = 4, frames: int = 40) -> torch.Tensor:
    return torch.randn(clips, frames, 64, generator=torch.Generator().manual_seed(3))


def one_hot(*classes: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(classes), 5).float()


def clips(labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The targets of an objective: labels of clips, or none."""
    return {} if labels is None else {"clip": labels}


def step(objective: Objective, optimizer: torch.optim.Optimizer, x, targets, number: int) -> float:
    """One step of training; the total loss before it."""
    norms = objective.norms(x, targets)
    sums = objective(x, targets, draw(len(x), number))
    loss = sum(objective.weights[name] * sums[name] / norms[name] for name in sums)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    objective.after_step(number + 1)
    return loss.item()


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [EAT, CLASSIFY])
def test_sums_and_norms_do_not_depend_on_how_the_batch_is_cut(made, text):
    objective, resolved = made(text, "model.drop_path=0.4")
    x = features(4, resolved.phases[0].frontend.frames)
    targets = clips(one_hot(0, 1, 2, 2) if text == CLASSIFY else None)
    whole = objective(x, targets, draw())
    norms = objective.norms(x, targets)
    assert list(whole) == list(norms) == list(objective.weights)
    parts = [slice(0, 1), slice(1, 4)]
    some = [{name: target[p] for name, target in targets.items()} for p in parts]
    cut = [objective(x[p], t, draw().select(p)) for p, t in zip(parts, some, strict=True)]
    cut_norms = [objective.norms(x[p], t) for p, t in zip(parts, some, strict=True)]
    for name in whole:
        assert whole[name].item() == pytest.approx(sum(c[name].item() for c in cut), rel=1e-5)
        assert norms[name].item() == sum(n[name].item() for n in cut_norms)
        assert norms[name].dtype == torch.float64 and norms[name].shape == ()


@pytest.mark.parametrize("text", [EAT, CLASSIFY])
def test_waveforms_become_features_and_a_loss_that_falls(made, text):
    objective, resolved = made(text, "model.drop_path=0.1")
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.randint(-20_000, 20_000, (4, 9_000), generator=generator).to(torch.int16)
    waveforms[1] //= 10
    lengths = torch.tensor([9_000, 8_000, 5_000, 9_000])
    prepared = objective.prepare_batch(HostBatch(torch.arange(4), waveforms, lengths, one_hot(0, 1, 2, 3)), draw())
    front = resolved.phases[0].frontend
    assert prepared.features.shape == (4, front.frames, front.mels)
    assert prepared.features.dtype == torch.float32 and not prepared.features.requires_grad
    assert (prepared.targets == {}) == (text == EAT)
    optimizer = torch.optim.AdamW([p for _, p in objective.trainable()], lr=1e-3)
    losses = [step(objective, optimizer, prepared.features, prepared.targets, n) for n in range(12)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("text", [EAT, CLASSIFY])
def test_losses_stay_float32_under_autocast(made, text):
    objective, resolved = made(text)
    x = features(4, resolved.phases[0].frontend.frames)
    targets = clips(one_hot(0, 1, 2, 3) if text == CLASSIFY else None)
    plain = objective(x, targets, draw())
    with torch.autocast("cpu", torch.bfloat16):
        cast = objective(x, targets, draw())
    for name, value in cast.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.05)


def test_the_same_seed_builds_the_same_objective_whatever_torch_drew_before(made):
    torch.manual_seed(1)
    first = made(EAT)[0].student.state_dict()
    torch.manual_seed(2)
    again, other = made(EAT)[0].student.state_dict(), made(EAT, "seed=2")[0].student.state_dict()
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


# --- EAT --------------------------------------------------------------------------------------------------------------


def test_norms_are_masked_tokens_and_sequences(made):
    objective, resolved = made(EAT)
    assert resolved.phases[0].tokens.grid == (2, 4) and resolved.phases[0].visible == 1
    norms = objective.norms(features(), None)
    assert norms["frame"].item() == 4 * 3 * 7 and norms["utterance"].item() == 4 * 3


@pytest.mark.parametrize(("reduction", "weight"), [("sum", 0.5 * 192), ("mean", 0.5)])
def test_utterance_weight_has_the_published_effect_whatever_the_batch(made, reduction, weight):
    arguments = ("objective.utterance_weight=0.5", f"objective.utterance_reduction={reduction}")
    assert made(EAT, *arguments)[0].weights == {"frame": 1.0, "utterance": weight}
    assert made(EAT, *arguments, "train.batch=8", "masks.clones=2")[0].weights["utterance"] == weight


def test_masks_and_noise_are_those_of_the_step_and_row(made):
    objective, _ = made(EAT)
    x = features(1).repeat(4, 1, 1)
    sums = [objective(x, {}, draw(step=n))["frame"].item() for n in (0, 0, 1)]
    assert sums[0] == sums[1] != sums[2]
    rows = [objective(x[:1], {}, draw().select(slice(n, n + 1)))["frame"].item() for n in range(4)]
    assert len(set(rows)) == 4


def test_noise_at_masked_places_has_the_stated_strength(made):
    objective, _ = made(EAT, "objective.mask_noise=0.25")
    seen = []
    objective.student.decoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0].detach()))
    objective(features(), {}, draw())
    outside = seen[0].abs().mean(-1) < 0.5  # visible tokens come out of a LayerNorm
    assert outside.sum() == 4 * 3 * 7
    assert seen[0][outside].std().item() == pytest.approx(0.25, rel=0.05)


def test_a_teacher_is_built_beside_the_student_and_follows_it(made):
    objective, _ = made(EAT)
    assert all(name.startswith(("backbone.", "decoder.")) for name, _ in objective.trainable())
    assert {n.split(".")[1] for n in objective.state_dict()} == {"backbone", "decoder"}
    before = {n: v.clone() for n, v in objective.extra_state().items()}
    student = objective.student.backbone.state_dict()
    assert all(torch.equal(before[n], student[n]) for n in student)
    with torch.no_grad():
        objective.student.backbone.cls_token += 1
    objective.after_step(1)
    moved = objective.extra_state()["cls_token"] - before["cls_token"]
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.909))  # 0.9 + 0.09 / 10
    assert set(objective.teacher_weights()) == {f"backbone.{n}" for n in before}


def test_extra_state_brings_back_the_same_losses(made):
    objective, _ = made(EAT)
    optimizer = torch.optim.SGD([p for _, p in objective.trainable()], lr=1e-3)
    for number in range(3):
        step(objective, optimizer, features(), None, number)
    other, _ = made(EAT, "seed=9")
    other.student.load_state_dict(objective.student.state_dict())
    assert other(features(), {}, draw())["frame"] != objective(features(), {}, draw())["frame"]
    other.load_extra_state({n: v.clone() for n, v in objective.extra_state().items()})
    mine, theirs = (o(features(), {}, draw()) for o in (objective, other))
    assert {n: v.item() for n, v in mine.items()} == {n: v.item() for n, v in theirs.items()}


def test_a_later_phase_keeps_the_teacher_and_its_decay_starts_afresh(made):
    objective, resolved = made(EAT)
    with torch.no_grad():
        objective.student.backbone.cls_token += 1
    before = objective.extra_state()["cls_token"].clone()
    objective.begin_phase(resolved.phases[1], 1)
    torch.testing.assert_close(objective.extra_state()["cls_token"], before, rtol=0, atol=0)
    objective.after_step(1)
    moved = objective.extra_state()["cls_token"] - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.909))
    assert objective(features(4, 80), {}, draw())["frame"] > 0
    assert objective.norms(features(4, 80), None)["frame"].item() == 4 * 3 * (20 - 4)


def test_target_takes_the_layers_asked_for_only(made):
    objective, _ = made(EAT.replace("over: 10 steps", "over: 10 steps, layers: [1, 3]"))
    assert isinstance(objective, EatObjective)
    outputs = objective._teacher.module.targets(features(), [1, 3])
    torch.testing.assert_close(objective.teacher_target(features()), averaged_target(outputs))
    assert not objective.teacher_target(features()).requires_grad


def test_averaged_target_is_the_published_normalisation():
    outputs = [3 + 5 * torch.randn(2, 40, 16), torch.randn(2, 40, 16)]
    normal = [F.instance_norm(o.transpose(1, 2)).transpose(1, 2) for o in outputs]
    expected = F.layer_norm((normal[0] + normal[1]) / 2, (16,))
    torch.testing.assert_close(averaged_target(outputs), expected, rtol=1e-4, atol=1e-5)


def test_masked_order_is_what_is_not_visible():
    visible = torch.tensor([[0, 3], [1, 2], [4, 5]])
    assert masked_order(visible, 6).tolist() == [[1, 2, 4, 5], [0, 3, 4, 5], [0, 1, 2, 3]]


def test_token_deviation_is_data2vecs():
    x = torch.randn(3, 50, 8) * torch.arange(1, 9)
    expected = torch.sqrt(x.reshape(150, 8).var(dim=0) + 1e-6).mean()
    torch.testing.assert_close(token_deviation(x), expected)
    assert token_deviation(torch.ones(3, 50, 8)).item() == pytest.approx(1e-3)


def collapse_teacher(objective: Objective) -> None:
    assert isinstance(objective, EatObjective)
    for block in objective._teacher.module.blocks:
        block.mlp.fc2.weight.zero_()


def collapse_predictions(objective: Objective) -> None:
    objective.student.decoder.proj.weight.data.zero_()


@pytest.mark.parametrize(("collapse", "word"), [(collapse_teacher, "targets"), (collapse_predictions, "predictions")])
def test_a_collapse_stops_the_run_once_it_is_judged(made, collapse, word):
    objective, _ = made(EAT)
    assert objective.watch(100) == {}  # nothing has been seen yet
    objective(features(), {}, draw())
    healthy = objective.watch(100)
    assert healthy["target_deviation"] > 0.5 and healthy["prediction_deviation"] > 0.01
    collapse(objective)
    objective(features(), {}, draw())
    assert min(objective.watch(4).values()) < 0.01
    with pytest.raises(GuardError, match=f"the {word} have collapsed") as caught:
        objective.watch(5)
    assert caught.value.exit_code == 76 and caught.value.place == "step 5" and caught.value.cure


def test_the_collapse_watch_can_be_switched_off(made):
    objective, _ = made(EAT, "objective.collapse.target=0", "objective.collapse.prediction=0")
    collapse_teacher(objective)
    collapse_predictions(objective)
    objective(features(), {}, draw())
    assert max(objective.watch(100).values()) < 0.01


# --- classification ---------------------------------------------------------------------------------------------------


def mixed() -> torch.Tensor:
    return 0.3 * one_hot(0, 1, 2, 2) + 0.7 * one_hot(2, 2, 1, 0)


@pytest.mark.parametrize(("reduction", "norm"), [("clips", 4), ("labels", 5), ("elements", 20)])
def test_bce_is_summed_and_divided_as_the_spec_says(made, reduction, norm):
    objective, _ = made(CLASSIFY, f"objective.reduction={reduction}")
    x, targets = features(4, 32), mixed()
    targets[0, 4] = 1.0
    logits = objective.student(x)
    expected = -(targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log()).sum()
    assert objective(x, clips(targets), draw())["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert objective.norms(x, clips(targets))["loss"].item() == pytest.approx(norm, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_takes_mixed_labels_and_smoothing(made, smoothing):
    objective, _ = made(CLASSIFY, "objective.loss=ce", f"objective.label_smoothing={smoothing}")
    x, targets = features(4, 32), mixed()
    smoothed = (1 - smoothing) * targets + smoothing / 5
    expected = -(smoothed * objective.student(x).log_softmax(1)).sum()
    assert objective(x, clips(targets), draw())["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_frozen_body_leaves_the_head_to_learn(made):
    objective, _ = made(CLASSIFY, "model.freeze=body")
    assert [n for n, _ in objective.trainable()] == [
        "head.norm.weight",
        "head.norm.bias",
        "head.fc.weight",
        "head.fc.bias",
    ]
    objective(features(4, 32), clips(one_hot(0, 1, 2, 3)), draw())["loss"].backward()
    assert all(p.grad is None for p in objective.student.backbone.parameters())
    assert objective.student.head.fc.weight.grad.any()


def test_classification_keeps_no_extra_state(made):
    objective, _ = made(CLASSIFY)
    assert objective.extra_state() == {} and objective.teacher_weights() is None and objective.watch(10) == {}
