"""Heads: tokens to scores. Axes: B clips, P tokens in front, N tokens of the grid, D width, C classes."""

from __future__ import annotations

from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone
from c2ftool.spec import model as spec_model
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.backbones import Pooling


class ClipHead(nn.Module):
    """One score per class and clip: pooled tokens, LayerNorm, linear (EAT: EAT_audio_classification.py; AST: mlp_head).

    With `linear_softmax` every token is scored and the scores are pooled (Wang et al., ICASSP 2019). The public code
    pools the D features by that formula instead, and scores the result; no published weights do.
    """

    def __init__(
        self, width: int, pool: Pooling, classes: int, *, prefix: int = 1, eps: float = 1e-6, norm: bool = True
    ) -> None:
        """prefix: tokens in front of the grid's (EAT's CLS; AST's class and distillation token). eps: of the norm."""
        super().__init__()
        self.pool = pool
        self.prefix = prefix
        self.norm: nn.Module = nn.LayerNorm(width, eps) if norm else nn.Identity()
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C) logits of (B, P + N, D), the P tokens in front first; of (B, D) where embeddings are pooled."""
        match self.pool:
            case "cls":
                return self.fc(self.norm(tokens[:, : self.prefix].mean(1)))
            case "mean":
                return self.fc(self.norm(tokens[:, self.prefix :].mean(1)))
            case "embedding":
                return self.fc(self.norm(tokens))
            case "linear_softmax":
                return linear_softmax(self.fc(self.norm(tokens[:, self.prefix :])))


class ClipClassifier(nn.Module):
    """A backbone with a head that scores clips."""

    def __init__(self, backbone: Backbone, spec: spec_model.Head, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module
        match spec:
            case spec_model.ClipHead():
                size = backbone.size
                self.head = ClipHead(
                    backbone.width,
                    pooling(spec, size),
                    classes,
                    prefix=backbone.prefix,
                    eps=backbone.head_eps,
                    norm=size.head_norm if spec.norm is None else spec.norm,
                )
            case spec_model.TokenSemanticHead():
                from c2ftool.models.token_semantic import TokenSemanticHead

                frequency = backbone.grid(backbone.tokens.frames)[1]
                self.head = TokenSemanticHead(backbone.width, classes, frequency)

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, C) logits."""
        tokens = self.backbone(features, draw)
        if isinstance(self.head, ClipHead) and self.head.pool == "embedding":
            return self.head(self.backbone.embedding(tokens, draw))
        return self.head(tokens)


def pooling(spec: spec_model.ClipHead, size: Size) -> Pooling:
    """What a clip head pools: the backbone's usual where the spec does not say."""
    return spec.pool or size.pool


def linear_softmax(logits: Tensor) -> Tensor:
    """(B, C) logits of the pooled probability sum p^2 / sum p over (B, N, C) token logits, float32.

    The pooled odds are sum p^2 / sum p (1 - p); both sums are taken in log space, so no logit is too large for it.
    """
    log_p = nn.functional.logsigmoid(logits.float())
    log_q = nn.functional.logsigmoid(-logits.float())
    return (2 * log_p).logsumexp(1) - (log_p + log_q).logsumexp(1)
