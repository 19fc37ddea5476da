"""Heads: tokens to scores. Axes: B clips, N patch tokens, D width, C classes."""

from __future__ import annotations

from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import PatchBackbone
from c2ftool.spec import model as spec_model


class ClipHead(nn.Module):
    """One score per class and clip: pooled tokens, LayerNorm, linear (EAT: EAT_audio_classification.py; AST: mlp_head).

    With `linear_softmax` every token is scored and the scores are pooled (Wang et al., ICASSP 2019). The public code
    pools the D features by that formula instead, and scores the result; no published weights do.
    """

    def __init__(
        self, width: int, spec: spec_model.ClipHead, classes: int, *, prefix: int = 1, eps: float = 1e-6
    ) -> None:
        """prefix: tokens in front of the patches' (EAT's CLS; AST's class and distillation token). eps: of the norm."""
        super().__init__()
        self.pool = spec.pool
        self.prefix = prefix
        self.norm = nn.LayerNorm(width, eps)
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P + N, D) with the P tokens in front first -> (B, C) logits."""
        match self.pool:
            case "cls":
                return self.fc(self.norm(tokens[:, : self.prefix].mean(1)))
            case "mean":
                return self.fc(self.norm(tokens[:, self.prefix :].mean(1)))
            case "linear_softmax":
                return linear_softmax(self.fc(self.norm(tokens[:, self.prefix :])))


class ClipClassifier(nn.Module):
    """A backbone with a clip head."""

    def __init__(self, backbone: PatchBackbone, spec: spec_model.ClipHead, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ClipHead(backbone.width, spec, classes, prefix=backbone.prefix, eps=backbone.head_eps)

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, C) logits."""
        return self.head(self.backbone(features, draw))


def linear_softmax(logits: Tensor) -> Tensor:
    """(B, C) logits of the pooled probability sum p^2 / sum p over (B, N, C) token logits, float32.

    The pooled odds are sum p^2 / sum p (1 - p); both sums are taken in log space, so no logit is too large for it.
    """
    log_p = nn.functional.logsigmoid(logits.float())
    log_q = nn.functional.logsigmoid(-logits.float())
    return (2 * log_p).logsumexp(1) - (log_p + log_q).logsumexp(1)
