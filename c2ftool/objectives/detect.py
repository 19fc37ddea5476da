"""Sound event detection from frame labels and, beside them, clip labels. Axes: B clips, C classes, T label frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from c2ftool.adapters.freeze import keep_frozen
from c2ftool.draws import Draw
from c2ftool.models.frames import FrameDetector
from c2ftool.objectives.base import Objective, Targets
from c2ftool.spec.objective import Detect
from c2ftool.spec.resolved import ResolvedPhase


class DetectObjective(Objective):
    """Binary cross-entropy with (mixed, soft) labels: the mean over strongly labelled clips, classes and frames, and
    the mean over weakly labelled clips and classes (Schmid et al., ICASSP 2025; for weak clips Li et al., TASLP 2024).

    An ensemble's probabilities are part of the targets already (c2ftool/data/batch.py).
    """

    def __init__(self, student: FrameDetector, spec: Detect, weak: bool) -> None:
        """weak: whether there are clips with clip labels only."""
        super().__init__()
        self.student: FrameDetector = student
        self.weak = weak
        if not weak:  # without clips to learn from it would have no gradient
            student.head.weak.requires_grad_(False)
        self.weights = {"strong": 1.0, "weak": spec.weak_weight} if weak else {"strong": 1.0}

    def begin_phase(self, phase: ResolvedPhase, index: int) -> None:
        """Take up a phase: the frames that its input covers."""
        super().begin_phase(phase, index)
        self.student.head.frames = phase.label_frames

    def train(self, mode: bool = True) -> DetectObjective:
        """As every module's; a frozen body stays in evaluation, its batch statistics too."""
        super().train(mode)
        keep_frozen(self.student.backbone)
        return self

    def norms(self, features: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Strongly labelled clips x classes x frames; weakly labelled clips x classes."""
        strong = targets["strong"].sum(dtype=torch.float64)
        clips, classes, frames = targets["frame"].shape
        norms = {"strong": strong * classes * frames}
        if self.weak:
            norms["weak"] = (clips - strong) * classes
        return norms

    def forward(self, features: Tensor, targets: Targets, draw: Draw) -> dict[str, Tensor]:
        """The losses summed over clips, classes and frames, float32."""
        frames, clips = self.student(features, draw)
        strong = targets["strong"]
        loss = F.binary_cross_entropy_with_logits(frames.float(), targets["frame"], reduction="none").sum((1, 2))
        if not self.weak:
            return {"strong": loss.sum()}
        weakly = F.binary_cross_entropy_with_logits(clips.float(), targets["clip"], reduction="none").sum(1)
        return {"strong": loss.where(strong, 0.0).sum(), "weak": weakly.where(~strong, 0.0).sum()}
