"""SSAST's objective: sums that do not depend on how a batch is cut, what the student sees, phases, both variants."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from c2ftool.data.batch import HostBatch
from c2ftool.draws import Draw
from c2ftool.engine.boundary import cross
from c2ftool.masks.gather import gather_tokens
from c2ftool.models.layout import Rules
from c2ftool.objectives.build import build_objective
from c2ftool.objectives.ssast import SsastObjective, SsastStudent, patch_pixels
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.load import load_file
from c2ftool.spec.model import Model
from c2ftool.spec.resolve import DataFacts, resolve
from c2ftool.spec.resolved import Resolved

SPEC = """
c2f: 1
name: t
task: pretrain
seed: 1
data: {dataset: demo}
frontend: {frames: 96, mels: 128}
model: {backbone: ssast_patch_micro}
objective: {kind: ssast}
masks: {kind: cluster, ratio: 0.5, size: [2, 3]}
train: {batch: 4}
phases:
  - {name: coarse, length: 20 steps, compression: {method: fshift, factor: 2}}
  - {name: fine, length: 20 steps}
"""
FRAMES = ("model.backbone=ssast_frame_micro", "masks={kind: random, ratio: 0.5}")
FACTS = DataFacts(
    name="demo", classes=list("abcde"), sample_rate=16_000, multi_label=False, mean=-4.0, std=4.0, fingerprint="0",
    clips_train=40, clips_valid=0, clips_test=0,
)  # fmt: skip
DECODER = {"mask_token"} | {
    f"{h}.{n}.{k}" for h in ("discriminative", "generative") for n in (0, 2) for k in ("weight", "bias")
}


@pytest.fixture
def made(tmp_path: Path):
    """Makes (objective in its first phase, resolved spec) from the spec with arguments."""

    def make(*arguments: str) -> tuple[SsastObjective, Resolved]:
        path = tmp_path / "t.yaml"
        path.write_text(SPEC)
        resolved = resolve(load_file(path, list(arguments)).spec, FACTS)
        objective = build_objective(resolved)
        assert isinstance(objective, SsastObjective)
        objective.begin_phase(resolved.phases[0], 0)
        return objective.train(), resolved

    return make


def unlabelled(waveforms: torch.Tensor) -> HostBatch:
    clips, samples = waveforms.shape
    return HostBatch(torch.arange(clips), waveforms, torch.full((clips,), samples), torch.zeros(clips, 0))


def draw(rows: int = 4, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def features(clips: int = 4, frames: int = 48, mels: int = 128) -> Tensor:
    return 0.5 * torch.randn(clips, frames, mels, generator=torch.Generator().manual_seed(3))


def means(objective: SsastObjective, x: Tensor, masked: Tensor) -> dict[str, float]:
    sums = objective.loss_given(x, masked)
    count = masked.numel()
    return {
        "discriminative": sums["discriminative"].item() / count,
        "generative": sums["generative"].item() / (count * 256),
    }


def spread(tokens: int, step: int = 2) -> Tensor:
    return torch.arange(0, tokens, step)[None].expand(4, -1)


@pytest.mark.parametrize("arguments", [(), FRAMES], ids=["patches", "frames"])
def test_ssast_sums_and_norms_do_not_depend_on_how_the_batch_is_cut(made, arguments):
    objective, resolved = made(*arguments, "model.drop_path=0.4")
    phase, x = resolved.phases[0], features()
    assert phase.tokens.count == 24
    whole, norms = objective(x, {}, draw()), objective.norms(x, {})
    assert list(whole) == list(norms) == list(objective.weights) == ["discriminative", "generative"]
    assert objective.weights == {"discriminative": 1.0, "generative": 10.0}
    assert norms["discriminative"].item() == 4 * 12 and norms["generative"].item() == 4 * 12 * 256
    parts = [slice(0, 1), slice(1, 4)]
    cut = [objective(x[p], {}, draw().select(p)) for p in parts]
    cut_norms = [objective.norms(x[p], {}) for p in parts]
    for name in whole:
        assert whole[name].item() == pytest.approx(sum(c[name].item() for c in cut), rel=1e-5)
        assert norms[name].item() == sum(n[name].item() for n in cut_norms)
        assert norms[name].dtype == torch.float64 and norms[name].shape == ()


@pytest.mark.parametrize("arguments", [(), FRAMES], ids=["patches", "frames"])
def test_waveforms_become_patches_whose_places_and_pixels_are_learnt(made, arguments):
    objective, resolved = made(*arguments, "model.drop_path=0.1")
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.randint(-20_000, 20_000, (4, 16_000), generator=generator).to(torch.int16)
    prepared = objective.prepare_batch(unlabelled(waveforms), draw())
    front = resolved.phases[0].frontend
    assert prepared.features.shape == (4, front.frames, front.mels) and prepared.targets == {}
    optimizer = torch.optim.AdamW([p for _, p in objective.trainable()], lr=1e-3)
    losses = []
    for step in range(12):
        sums = objective(prepared.features, {}, draw(step=step))
        loss = sum(objective.weights[name] * sums[name] / prepared.norms[name] for name in sums)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_ssast_losses_stay_float32_and_finite_under_autocast(made, kind):
    objective, _ = made()
    x = 4 * features()  # scores of hundreds of pixels each
    plain = objective(x, {}, draw())
    with torch.autocast("cpu", kind):
        cast = objective(x, {}, draw())
    for name, value in cast.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(plain[name].item(), rel=0.02)


def test_masks_follow_the_step_and_the_row_alone(made):
    objective, _ = made()
    x = features(1).expand(4, -1, -1)
    sums = [objective(x, {}, draw(step=n))["generative"].item() for n in (0, 0, 1)]
    assert sums[0] == sums[1] != sums[2]
    rows = [objective(x[:1], {}, draw().select(slice(n, n + 1)))["generative"].item() for n in range(4)]
    assert len(set(rows)) == 4


def test_the_student_does_not_see_what_is_masked_and_sees_all_else(made):
    objective, resolved = made()
    x, tokens = features(), resolved.phases[0].tokens
    masked = spread(tokens.count)
    before = objective.student(x, masked)
    assert [p.shape for p in before] == [(4, 12, 256)] * 2
    blocks = x.unflatten(1, (3, 16)).unflatten(3, (8, 16))  # clip, time, frame, mel, band
    for token, seen in [(4, False), (5, True)]:
        changed = blocks.clone()
        changed[:, token % 3, :, token // 3] += 1
        after = objective.student(changed.flatten(3).flatten(1, 2), masked)
        for old, new in zip(before, after, strict=True):
            assert (old - new).abs().amax(-1).gt(1e-6).all() if seen else torch.equal(old, new)


def test_pixels_are_those_of_the_tokens_patch(made):
    objective, resolved = made()
    x, tokens = features(2), resolved.phases[0].tokens
    pixels = patch_pixels(x, tokens)
    assert pixels.shape == (2, 24, 256)
    assert torch.equal(pixels[1, 7 * 3 + 2], x[1, 32:48, 112:128].T.reshape(-1))
    # the kernel, flattened, takes them as they are
    proj = objective.student.backbone.patch_embed.proj
    torch.testing.assert_close(
        pixels @ proj.weight.flatten(1).T + proj.bias, objective.student.backbone.patch_embed(x), atol=1e-5, rtol=0
    )


def test_perfect_predictions_have_accuracy_one_and_no_error_left(made):
    objective, resolved = made()
    x, masked = features(), spread(24)
    assert objective.watch(0) == {}
    wanted = gather_tokens(patch_pixels(x, resolved.phases[0].tokens), masked)
    shift = 0
    objective.student.decoder.register_forward_hook(lambda *_: (wanted.roll(shift, 1), wanted))
    assert means(objective, x, masked) == {"discriminative": pytest.approx(0, abs=1e-4), "generative": 0}
    assert objective.watch(1) == {"accuracy": 1.0}
    shift = 1  # every prediction is that of another patch of the clip
    assert means(objective, x, masked)["discriminative"] > 20
    assert objective.watch(2) == {"accuracy": 0.0}


def test_predictions_that_are_all_alike_cost_the_logarithm_of_the_candidates(made):
    objective, _ = made()
    zeros = torch.zeros(4, 12, 256)
    objective.student.decoder.register_forward_hook(lambda *_: (zeros, zeros))
    x = features()
    values = means(objective, x, spread(24))
    assert values["discriminative"] == pytest.approx(torch.tensor(12.0).log().item(), rel=1e-6)
    assert values["generative"] == pytest.approx(0.25, rel=0.02)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_more_frames_change_the_positions_alone(made):
    objective, resolved = made()
    before = {n: p.clone() for n, p in objective.student.state_dict().items()}
    crossing = cross(objective, None, *resolved.phases, seed=1)
    assert [(c.name, c.kind) for c in crossing.changes] == [("backbone.pos_embed", "resized")]
    after = objective.student.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if n != "backbone.pos_embed")
    objective.begin_phase(resolved.phases[1], 1)
    x = features(frames=96)
    assert objective.norms(x, {})["discriminative"].item() == 4 * 24
    assert all(value.isfinite() for value in objective(x, {}, draw()).values())


def test_larger_patches_have_more_pixels_and_both_heads_last_layers_start_afresh(made):
    objective, resolved = made("phases.coarse.compression={method: patch, factor: 2}")
    coarse, fine = resolved.phases
    assert (coarse.tokens.patch, fine.tokens.patch) == ([32, 16], [16, 16])
    x = features(frames=96)
    assert objective.norms(x, {})["generative"].item() == 4 * 12 * 512
    assert objective.student(x, spread(24))[0].shape == (4, 12, 512)
    before = {n: p.clone() for n, p in objective.student.decoder.state_dict().items()}
    crossing = cross(objective, None, coarse, fine, seed=1)
    last = [f"decoder.{head}.2.{kind}" for head in ("discriminative", "generative") for kind in ("weight", "bias")]
    assert [c.name for c in crossing.changes if c.kind == "created"] == last
    assert crossing.changes[-1].what == "512 -> 256 pixels of a patch (start afresh)"
    after = objective.student.decoder.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if f"decoder.{n}" not in last)
    assert after["generative.2.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert after["generative.2.bias"].abs().max() == 0
    objective.begin_phase(fine, 1)
    assert objective.student(x, spread(48))[1].shape == (4, 24, 256)
    assert sum(objective(x, {}, draw()).values()).isfinite()
    assert cross(objective, None, fine, fine, seed=1).changes == []


def test_pooled_frames_are_predicted_pooled(made):
    objective, resolved = made("phases.coarse.compression={method: pool, factor: 2, reduce: avg}")
    waveforms = torch.randint(-20_000, 20_000, (4, 16_000), generator=torch.Generator().manual_seed(0)).short()
    prepared = objective.prepare_batch(unlabelled(waveforms), draw())
    assert prepared.features.shape == (4, 48, 128)
    assert all(value.isfinite() for value in objective(prepared.features, {}, draw()).values())
    assert [c.name for c in cross(objective, None, *resolved.phases, seed=1).changes] == ["backbone.pos_embed"]


# --- what is built ----------------------------------------------------------------------------------------------------


def test_everything_trainable_has_a_first_value_from_the_seed(made):
    first, again, other = (made(*a)[0].student for a in ((), (), ("seed=2",)))
    assert set(first.decoder.state_dict()) == DECODER
    for name, value in first.decoder.state_dict().items():
        assert torch.equal(value, again.decoder.state_dict()[name])
        if name.endswith("bias"):
            assert value.abs().max() == 0
        else:
            assert value.std().item() == pytest.approx(0.02, rel=0.2), name
            assert not torch.equal(value, other.decoder.state_dict()[name])


def test_patches_that_overlap_and_other_encoders_are_refused():
    spec = spec_objective.Ssast(kind="ssast")
    overlapping, whole = tokens_of(96, 128, (16, 16), (10, 16)), tokens_of(96, 128, (16, 16))
    with pytest.raises(ValueError, match=r"must not overlap: stride 10 x 16, patch 16 x 16 \(time x mel\)"):
        SsastStudent(Model(backbone="ssast_patch_micro"), overlapping, spec)
    with pytest.raises(ValueError, match="eat_tiny is no encoder of SSAST"):
        SsastStudent(Model(backbone="eat_tiny"), whole, spec)
    objective = SsastObjective(SsastStudent(Model(backbone="ssast_patch_micro"), whole, spec), spec)
    with pytest.raises(ValueError, match="must not overlap"):
        objective.resize(overlapping, Rules())
    assert objective.backbone.tokens == whole  # nothing was changed


def test_every_parameter_gets_a_gradient(made):
    objective, _ = made()
    sum(objective(features(), {}, draw()).values()).backward()
    assert [name for name, p in objective.trainable() if p.grad is None or not p.grad.isfinite().all()] == []
