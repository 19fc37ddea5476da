"""What the engine asks of every objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from c2ftool.augment.build import Augmentations
from c2ftool.draws import Draw
from c2ftool.frontend.build import LogMel, build_frontend
from c2ftool.models.backbone import Backbone
from c2ftool.models.layout import Change, Rules
from c2ftool.spec.resolved import ResolvedEnsemble, ResolvedPhase, Tokens

Targets = dict[str, Tensor]


class Batch(Protocol):
    """What a step is made of, on the device: what the loader gives (c2ftool/data/batch.py)."""

    @property
    def waveforms(self) -> Tensor: ...  # (B, S) int16
    @property
    def lengths(self) -> Tensor: ...  # (B,)
    @property
    def partners(self) -> Batch | None: ...
    def targets(self, weight: float = 0.0) -> Targets: ...


@dataclass(frozen=True)
class Prepared:
    """One rank's part of a step's batch, on the device. B clips, C classes.

    norms: what each loss term's sum is divided by, as this part contributes to it; the engine sums them over ranks, so
    a loss does not depend on how the batch is cut.
    """

    features: Tensor  # (B, frames, mels)
    targets: Targets  # (B, ...) each
    norms: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A loss and what it needs. Everything trainable is under `student`.

    weights: the total loss is the sum over terms of weight x sum / norm.
    """

    student: nn.Module
    weights: dict[str, float]

    def begin_phase(self, phase: ResolvedPhase, index: int) -> None:
        """Take up a phase: its front end and augmentation."""
        self._frontend: LogMel = build_frontend(phase.frontend)
        factor = self._frontend.factors[0] * phase.frontend.hop // phase.full_frontend.hop
        # feature frames to a label frame
        ratio = phase.label_hop / (phase.full_frontend.hop * factor) if phase.label_hop else 1.0
        self._augment = Augmentations(phase.augment, factor, self._frontend.pad_value, ratio)
        self._teacher_weight = phase.teacher.weight if isinstance(phase.teacher, ResolvedEnsemble) else 0.0

    def resize(self, tokens: Tokens, rules: Rules) -> list[Change]:
        """Fit the student's backbone to another token grid and patch; names are the student's."""
        changes = self.backbone.resize(tokens, rules)
        return [replace(change, name=f"backbone.{change.name}") for change in changes]

    def prepare_batch(self, batch: Batch, draw: Draw) -> Prepared:
        """The whole local batch as features and targets, without gradient."""
        with torch.no_grad(), torch.autocast(batch.waveforms.device.type, enabled=False):
            others = batch.partners
            partners = None
            if others is not None:
                partners = (others.waveforms, others.lengths, self.targets_of(others) or {})
            waveforms, lengths, targets = self._augment.waveforms(
                batch.waveforms, batch.lengths, self.targets_of(batch), draw, partners
            )
            features, targets = self._augment.features(self._frontend(waveforms, lengths, draw), targets, draw)
            features = self._frontend.compress(features)
            return Prepared(features, targets or {}, self.norms(features, targets or {}))

    @property
    def backbone(self) -> Backbone:
        """The student's."""
        backbone = self.student.backbone
        assert isinstance(backbone, Backbone)
        return backbone

    def layers(self) -> tuple[int, Callable[[str], int | None]]:
        """(blocks of the backbone, the block with which a parameter of the student learns; None: at the full rate)."""
        backbone = self.backbone

        def layer_of(name: str) -> int | None:
            inside = name.removeprefix("backbone.")
            return None if inside == name else backbone.layer_of(inside)

        return backbone.depth, layer_of

    def targets_of(self, batch: Batch) -> Targets | None:
        """What is to be learned of a batch, before augmentation; None where its labels are not looked at."""
        return batch.targets(self._teacher_weight)

    @abstractmethod
    def norms(self, features: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Each term's denominator for these clips, float64 scalars."""

    @abstractmethod
    def forward(self, features: Tensor, targets: Targets, draw: Draw) -> dict[str, Tensor]:
        """The sums of the terms over the clips given, a micro-batch."""

    def after_step(self, step: int) -> None:
        """Told after each optimiser step, with the steps done in the phase."""

    def watch(self, step: int) -> dict[str, float]:
        """Further figures of the last step. Raises GuardError where training has gone wrong beyond repair."""
        return {}

    def extra_state(self) -> dict[str, Tensor]:
        """State beside the student's weights."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up `extra_state` again."""

    def teacher_weights(self) -> dict[str, Tensor] | None:
        """The teacher's weights under the student's names, where there is a teacher."""
        return None

    def trainable(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters that learn, with their names under the student."""
        return ((name, p) for name, p in self.student.named_parameters() if p.requires_grad)
