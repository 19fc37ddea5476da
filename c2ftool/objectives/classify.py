"""Clip classification. Axes: B clips, C classes."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from c2ftool.adapters.freeze import keep_frozen
from c2ftool.draws import Draw
from c2ftool.models.heads import ClipClassifier
from c2ftool.objectives.base import Objective, Targets
from c2ftool.spec.objective import Classify


class ClassifyObjective(Objective):
    """Binary or categorical cross-entropy on (mixed) labels, divided as the spec says."""

    def __init__(self, student: ClipClassifier, spec: Classify) -> None:
        super().__init__()
        self.student: ClipClassifier = student
        self.spec = spec
        self.weights = {"loss": 1.0}

    def train(self, mode: bool = True) -> Self:
        """As every module's; what is frozen stays in evaluation, its batch statistics too."""
        super().train(mode)
        keep_frozen(self.student.backbone)
        return self

    def norms(self, features: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Clips, labels or clips x classes."""
        labels = targets["clip"]
        match self.spec.reduction:
            case "clips":
                norm = torch.tensor(len(labels), dtype=torch.float64, device=labels.device)
            case "labels":
                norm = labels.sum(dtype=torch.float64)
            case "elements":
                norm = torch.tensor(labels.numel(), dtype=torch.float64, device=labels.device)
        return {"loss": norm}

    def forward(self, features: Tensor, targets: Targets, draw: Draw) -> dict[str, Tensor]:
        """The loss summed over clips and classes, float32."""
        labels = targets["clip"]
        logits = self.student(features, draw).float()
        match self.spec.loss:
            case "bce":
                loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            case "ce":
                loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.spec.label_smoothing)
        return {"loss": loss}
