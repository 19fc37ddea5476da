"""EAT's utterance-frame objective (Chen et al., IJCAI 2024, section 3; public code: models/EAT_pretraining.py).

Axes: B clips, K clones, R = B K rows (clip-major), T x F grid, N = T F tokens, V visible, M = N - V masked, D width.

The teacher sees the whole clip once; the student sees K masked clones of it. At masked places the decoder's output is
compared with the teacher's target, and the student's CLS with the mean of the target over all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.errors import GuardError
from c2ftool.masks.gather import gather_tokens, masked_places, scatter_tokens
from c2ftool.masks.inverse_block import inverse_block
from c2ftool.models.build import build_eat
from c2ftool.models.decoder import ConvDecoder
from c2ftool.models.eat import Eat
from c2ftool.models.layout import Change, Rules
from c2ftool.objectives.base import Batch, Objective, Targets
from c2ftool.objectives.ema import EmaTeacher, decay_at
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.masks import InverseBlock
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedPhase, ResolvedTeacher, Tokens


class EatStudent(nn.Module):
    """The encoder and its decoder."""

    def __init__(self, model: Model, tokens: Tokens, spec: spec_objective.Eat) -> None:
        super().__init__()
        self.backbone = build_eat(model, tokens)
        self.decoder = ConvDecoder(self.backbone.width, spec.decoder)

    def forward(
        self, features: Tensor, visible: Tensor, fill: Tensor, draw: Draw | None = None
    ) -> tuple[Tensor, Tensor]:
        """(CLS (R, D), predictions (R, M, D) at the masked places, ascending) of (B, frames, mels) features.

        visible: (R, V) places that are seen. fill: what the decoder gets elsewhere, (R, N, D) or of a shape that
        broadcasts to it. draw: of the rows, for drop path.
        """
        grid = self.backbone.grid(features.shape[1])
        encoded = self.backbone.forward_visible(features, visible, draw)
        shape = (len(visible), grid[0] * grid[1], encoded.shape[-1])
        whole = scatter_tokens(encoded[:, 1:], visible, fill.to(encoded.dtype).expand(shape))
        return encoded[:, 0], self.decoder(whole, grid, masked_order(visible, shape[1]))


def masked_order(visible: Tensor, tokens: int) -> Tensor:
    """(R, M) places that are not among the visible (R, V), ascending; the device is not waited for."""
    order = masked_places(visible, tokens).to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order[:, : tokens - visible.shape[1]]


def averaged_target(outputs: Sequence[Tensor]) -> Tensor:
    """(B, N, D) float32 target from the blocks' MLP outputs (B, N, D).

    Each is instance-normalised (per clip and channel, over tokens), they are averaged, then layer-normalised over D
    without affine; eps 1e-5 in both.
    """
    total = torch.zeros_like(outputs[0], dtype=torch.float32)
    for output in outputs:
        centred = output.float() - output.mean(1, keepdim=True, dtype=torch.float32)
        # by hand: on a CPU ten times quicker than var_mean or instance_norm, whose tokens must lie side by side
        total += centred * (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    return F.layer_norm(total / len(outputs), total.shape[-1:])


def token_deviation(x: Tensor) -> Tensor:
    """The standard deviation over all tokens of (..., D), averaged over D: near 0 where tokens have become alike."""
    return (x.float().flatten(0, -2).var(0) + 1e-6).sqrt().mean()


class EatObjective(Objective):
    """The student, its EMA teacher, masks and the two losses."""

    def __init__(self, student: EatStudent, spec: spec_objective.Eat) -> None:
        super().__init__()
        self.student: EatStudent = student
        self.spec = spec
        published = spec.utterance_sequences if spec.utterance_reduction == "sum" else 1
        self.weights = {"frame": 1.0, "utterance": spec.utterance_weight * published}
        self._teacher: EmaTeacher[Eat] | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    def begin_phase(self, phase: ResolvedPhase, index: int) -> None:
        """Take up a phase. A later phase keeps the teacher; its decay starts afresh."""
        super().begin_phase(phase, index)
        assert isinstance(phase.masks, InverseBlock) and phase.teacher is not None and phase.visible is not None
        self._masks: InverseBlock = phase.masks
        assert isinstance(phase.teacher, ResolvedTeacher)
        self._ema: ResolvedTeacher = phase.teacher
        self._masked = phase.tokens.count - phase.visible
        self._collapse_after = phase.collapse_after
        if self._teacher is None:
            self._teacher = EmaTeacher(self.student.backbone)

    def resize(self, tokens: Tokens, rules: Rules) -> list[Change]:
        """Fit student and teacher to another token grid and patch."""
        if self._teacher is not None:
            self._teacher.module.resize(tokens, rules)
        return super().resize(tokens, rules)

    def targets_of(self, batch: Batch) -> Targets | None:
        """None: labels are not looked at."""
        return None

    def norms(self, features: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The masked tokens of all rows, and the rows."""
        rows = len(features) * self._masks.clones
        counts = torch.tensor([rows * self._masked, rows], dtype=torch.float64, device=features.device)
        return {"frame": counts[0], "utterance": counts[1]}

    def forward(self, features: Tensor, targets: Targets, draw: Draw) -> dict[str, Tensor]:
        """The loss sums of (B, frames, mels) features; masks and noise are drawn for each clone."""
        rows = draw.clones(self._masks.clones)
        time, frequency = self.student.backbone.grid(features.shape[1])
        visible = inverse_block((time, frequency), self._masks, rows)
        if self.spec.mask_noise:
            fill = rows.noise("mask.noise", time * frequency, self.student.backbone.width).mul_(self.spec.mask_noise)
        else:
            fill = features.new_zeros(1, 1, 1)
        return self.loss_given(features, visible, fill, rows)

    def loss_given(
        self, features: Tensor, visible: Tensor, fill: Tensor, draw: Draw | None = None
    ) -> dict[str, Tensor]:
        """The sums `frame`, over masked tokens, and `utterance`, over rows; masks and noise as the student takes them.

        Both are squared errors summed over D and divided by sqrt(D), in float32.
        """
        self._seen = None  # the last micro-batch's predictions need not outlive it
        target = self.teacher_target(features)
        cls, predicted = self.student(features, visible, fill, draw)
        with torch.autocast(features.device.type, enabled=False):
            at_masked = gather_tokens(target, masked_order(visible, target.shape[1]))
            whole = target.mean(1).repeat_interleave(len(visible) // len(features), dim=0)
            scale = target.shape[2] ** -0.5
            frame = F.mse_loss(predicted.float(), at_masked, reduction="sum") * scale
            utterance = F.mse_loss(cls.float(), whole, reduction="sum") * scale
        self._seen = (at_masked, predicted.detach())
        return {"frame": frame, "utterance": utterance}

    @torch.no_grad()
    def teacher_target(self, features: Tensor) -> Tensor:
        """(B, N, D) float32: what the teacher makes of the whole clips."""
        assert self._teacher is not None
        return averaged_target(self._teacher.module.targets(features, self._ema.layers))

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        assert self._teacher is not None
        self._teacher.update(self.student.backbone, decay_at(self._ema, step))

    def deviations(self) -> tuple[Tensor, Tensor]:
        """Token deviations of target and prediction at the masked places of the last micro-batch (data2vec 2.0)."""
        assert self._seen is not None
        target, predicted = self._seen
        return token_deviation(target), token_deviation(predicted)

    def watch(self, step: int) -> dict[str, float]:
        """The deviations. Raises GuardError where one is below the spec's limit once `collapse.after` has passed."""
        if self._seen is None:
            return {}
        target, prediction = torch.stack(self.deviations()).tolist()
        limits = self.spec.collapse
        if step >= self._collapse_after:
            for name, value, least in (
                ("targets", target, limits.target),
                ("predictions", prediction, limits.prediction),
            ):
                if value < least:
                    raise GuardError(
                        f"the {name} have collapsed: standard deviation over tokens {value:.3g}, below {least:g}",
                        place=f"step {step}",
                        cure="Lower the learning rate or lengthen its warm-up, raise the teacher's decay, or set "
                        "objective.collapse to watch less strictly.",
                    )
        return {"target_deviation": target, "prediction_deviation": prediction}

    def extra_state(self) -> dict[str, Tensor]:
        """The teacher's weights, under the backbone's names."""
        return {} if self._teacher is None else self._teacher.state()

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up the teacher again; a phase must have begun."""
        assert self._teacher is not None
        self._teacher.load(state)

    def teacher_weights(self) -> dict[str, Tensor] | None:
        """The teacher's weights on the CPU, under the student's names."""
        if self._teacher is None:
            return None
        return {f"backbone.{name}": value.cpu() for name, value in self._teacher.state().items()}
