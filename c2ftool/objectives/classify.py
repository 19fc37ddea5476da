"""Clip classification. Axes: B clips, C classes."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.models.heads import ClipClassifier
from c2ftool.objectives.base import Objective
from c2ftool.spec.objective import Classify


class ClassifyObjective(Objective):
    """Binary or categorical cross-entropy on (mixed) labels, divided as the spec says."""

    def __init__(self, student: ClipClassifier, spec: Classify) -> None:
        super().__init__()
        self.student: ClipClassifier = student
        self.spec = spec
        self.weights = {"loss": 1.0}

    def train(self, mode: bool = True) -> Self:
        """As every module's; a frozen body stays in evaluation, its batch statistics too."""
        super().train(mode)
        if not any(p.requires_grad for p in self.student.backbone.parameters()):
            self.student.backbone.eval()
        return self

    def norms(self, features: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Clips, labels or clips x classes."""
        assert targets is not None
        match self.spec.reduction:
            case "clips":
                norm = torch.tensor(len(targets), dtype=torch.float64, device=targets.device)
            case "labels":
                norm = targets.sum(dtype=torch.float64)
            case "elements":
                norm = torch.tensor(targets.numel(), dtype=torch.float64, device=targets.device)
        return {"loss": norm}

    def forward(self, features: Tensor, targets: Tensor | None, draw: Draw) -> dict[str, Tensor]:
        """The loss summed over clips and classes, float32."""
        assert targets is not None
        logits = self.student(features, draw).float()
        match self.spec.loss:
            case "bce":
                loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            case "ce":
                loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self.spec.label_smoothing)
        return {"loss": loss}
