"""SSAST's objective (Gong et al., AAAI 2022, section 2.4; public code: src/models/ast_models.py).

Axes: B clips, T x F grid, N = T F tokens, M masked, D width, P pixels of a patch.

Some patches are hidden from the encoder. From its outputs at their places one head must tell which patch of the clip
stood where, another what its pixels are. Both are asked in one pass with one set of masks; the public code runs the
network twice, with masks drawn anew for each head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.masks.cluster import masked_tokens
from c2ftool.masks.gather import gather_tokens
from c2ftool.models.ast import PREFIX, Ast
from c2ftool.models.backbone import unset
from c2ftool.models.build import build_backbone
from c2ftool.models.layout import Change, Rules
from c2ftool.objectives.base import Batch, Objective, Targets
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.masks import Cluster, Random
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedPhase, Tokens

_LAST = "2"  # the layer of a head that gives pixels


class SsastDecoder(nn.Module):
    """What pre-training has beside the encoder, dropped afterwards: the token at masked places and the two heads."""

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.discriminative = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels))
        self.generative = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels))

    def forward(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Two (B, M, P) predictions of the pixels of (B, M, D) outputs: discriminative, generative."""
        return self.discriminative(outputs), self.generative(outputs)

    def set_pixels(self, pixels: int) -> list[Change]:
        """Predict patches of another size: the heads' last layers are left unset. What starts afresh."""
        changes = []
        for name in ("discriminative", "generative"):
            layer = self.get_submodule(f"{name}.{_LAST}")
            assert isinstance(layer, nn.Linear)
            if layer.out_features == pixels:
                continue
            what = f"{layer.out_features} -> {pixels} pixels of a patch (start afresh)"
            layer.weight = unset(layer.weight, (pixels, layer.in_features))
            layer.bias = unset(layer.bias, (pixels,))
            layer.out_features = pixels
            changes += [Change(f"{name}.{_LAST}.{kind}", "created", what) for kind in ("weight", "bias")]
        return changes


class SsastStudent(nn.Module):
    """The encoder and its decoder. Raises ValueError where patches overlap, or the backbone is another's."""

    def __init__(self, model: Model, tokens: Tokens, spec: spec_objective.Ssast) -> None:
        super().__init__()
        backbone = build_backbone(model, tokens)
        if not isinstance(backbone, Ast):
            raise ValueError(f"{model.backbone} is no encoder of SSAST")
        self.backbone = backbone
        self.decoder = SsastDecoder(backbone.width, pixels_of(tokens))

    def forward(self, features: Tensor, masked: Tensor, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """(B, M, P) predictions of the pixels at the masked places (B, M), discriminative and generative.

        features: (B, frames, mels). draw: of the clips, for drop path.
        """
        tokens = self.backbone.embed(features)
        hidden = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter_(1, masked, True)
        blank = (self.decoder.mask_token + self.backbone.pos_embed[:, PREFIX:]).to(tokens.dtype)
        outputs = self.backbone.encode(torch.where(hidden[..., None], blank, tokens), draw)
        return self.decoder(gather_tokens(outputs, masked + PREFIX))


def pixels_of(tokens: Tokens) -> int:
    """The pixels of a patch. Raises ValueError where patches overlap: what is hidden would be seen next to it."""
    if tokens.stride != tokens.patch:
        stride, patch = (" x ".join(map(str, pair)) for pair in (tokens.stride, tokens.patch))
        raise ValueError(f"patches to be predicted must not overlap: stride {stride}, patch {patch} (time x mel)")
    return tokens.patch[0] * tokens.patch[1]


def patch_pixels(features: Tensor, tokens: Tokens) -> Tensor:
    """(B, N, P) pixels of the patches of (B, frames, mels), mel-major in both: of the grid, and within a patch."""
    (time, frequency), (length, height) = tokens.grid, tokens.patch
    whole = features[:, : time * length, : frequency * height]
    patches = whole.reshape(len(features), time, length, frequency, height).permute(0, 3, 1, 4, 2)
    return patches.reshape(len(features), time * frequency, height * length)


class SsastObjective(Objective):
    """The student, its masks and the two losses."""

    def __init__(self, student: SsastStudent, spec: spec_objective.Ssast) -> None:
        super().__init__()
        self.student: SsastStudent = student
        self.spec = spec
        self.weights = {"discriminative": 1.0, "generative": spec.generative_weight}
        self._accuracy: Tensor | None = None

    def begin_phase(self, phase: ResolvedPhase, index: int) -> None:
        """Take up a phase."""
        super().begin_phase(phase, index)
        assert isinstance(phase.masks, Cluster | Random) and phase.visible is not None
        self._masks: Cluster | Random = phase.masks
        self._masked = phase.tokens.count - phase.visible
        self._pixels = pixels_of(phase.tokens)

    def resize(self, tokens: Tokens, rules: Rules) -> list[Change]:
        """Fit the backbone to another token grid and patch; where the patch is larger or smaller, both heads too."""
        pixels = pixels_of(tokens)
        changes = super().resize(tokens, rules)
        return changes + [
            replace(change, name=f"decoder.{change.name}") for change in self.student.decoder.set_pixels(pixels)
        ]

    def targets_of(self, batch: Batch) -> Targets | None:
        """None: labels are not looked at."""
        return None

    def norms(self, features: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The masked tokens of all clips, and their pixels."""
        masked = len(features) * self._masked
        counts = torch.tensor([masked, masked * self._pixels], dtype=torch.float64, device=features.device)
        return {"discriminative": counts[0], "generative": counts[1]}

    def forward(self, features: Tensor, targets: Targets, draw: Draw) -> dict[str, Tensor]:
        """The loss sums of (B, frames, mels) features; masks are drawn for each clip."""
        backbone = self.student.backbone
        grid = backbone.grid(features.shape[1])
        masked = masked_tokens(grid, self._masks, draw, self._masked, mel_major=backbone.mel_major)
        return self.loss_given(features, masked, draw)

    def loss_given(self, features: Tensor, masked: Tensor, draw: Draw | None = None) -> dict[str, Tensor]:
        """The sums `discriminative`, over masked tokens, and `generative`, over their pixels, in float32.

        discriminative: InfoNCE of the masked patches of a clip. Every patch is scored against every prediction, and
        must find its own among them (the paper's equation 1 has it the other way round; the code is followed).
        generative: squared error. Both targets are the pixels as the encoder would get them.
        """
        discriminative, generative = self.student(features, masked, draw)
        with torch.autocast(features.device.type, enabled=False):
            pixels = patch_pixels(features.float(), self.student.backbone.tokens)
            wanted = gather_tokens(pixels, masked)
            scores = torch.log_softmax(wanted @ discriminative.float().mT, dim=2)  # (B, targets, predictions)
            nce = -scores.diagonal(dim1=1, dim2=2).sum()
            error = F.mse_loss(generative.float(), wanted, reduction="sum")
            own = torch.arange(masked.shape[1], device=masked.device)
            self._accuracy = (scores.detach().argmax(1) == own).float().mean()
        return {"discriminative": nce, "generative": error}

    def watch(self, step: int) -> dict[str, float]:
        """The accuracy of the last micro-batch: the share of predictions whose best patch of the clip is their own.

        With fewer masked patches it is easier: accuracies at different compressions do not compare.
        """
        return {} if self._accuracy is None else {"accuracy": self._accuracy.item()}
