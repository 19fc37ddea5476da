"""The front end of a phase as a module: int16 waveforms in, what the tokeniser takes out.

log-mel -> (pooled, at `log_mel`) -> padded, normalised -> [augmentation] -> (pooled, at `input`) -> tokeniser
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from c2ftool.compression.pool import pool
from c2ftool.frontend.kaldi import log_mel
from c2ftool.spec.resolved import ResolvedFrontend


class LogMel(nn.Module):
    """Log-mel of clips of different lengths, padded or cut to the same frames, normalised as in AST and EAT.

    Axes: B clips, S samples. Frames beyond a clip's end are 0 in the log-mel, before normalising, as in the papers'
    code: after it they are `pad_value`, which is above most of a quiet clip.
    """

    def __init__(self, spec: ResolvedFrontend) -> None:
        super().__init__()
        self.spec = spec

    @property
    def pad_value(self) -> float:
        """The value of a padded frame after normalising."""
        return (0.0 - self.spec.mean) / (2 * self.spec.std)

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, frames, mels) float32 of (B, S) int16 or float waveforms in [-1, 1] with (B,) valid samples each.

        Normalised and, where pooling belongs to the log-mel, pooled; pooling of the input is left to `compress`.
        A clip's mean is removed over its own samples, as far as the frames reach; what lies beyond its length changes
        nothing, nor do the other clips.
        """
        spec = self.spec
        clips = waveforms[:, : spec.samples]
        lengths = lengths.clamp(max=clips.shape[1])
        inside = torch.arange(clips.shape[1], device=clips.device) < lengths[:, None]
        whole = clips.dtype == torch.int16
        scale = 1.0 / 32768 if whole else 1.0
        clips = torch.where(inside, clips, 0).float()
        sums = _whole_sums(clips) if whole else clips.sum(1, dtype=torch.float64)
        means = (sums * scale / lengths.clamp(min=1)).float()
        mel = log_mel(
            clips.mul_(scale).sub_(means[:, None]),
            sample_rate=spec.sample_rate,
            mels=spec.mels,
            frame_length=spec.frame_length,
            hop=spec.hop,
            window=spec.window,
        )
        # frames that reach beyond a clip's end are none of its own
        valid = torch.where(lengths < spec.frame_length, 0, 1 + (lengths - spec.frame_length) // spec.hop)
        wanted = spec.frames
        if spec.pool is not None and spec.pool.at == "log_mel":
            wanted //= spec.pool.time
            valid = valid // spec.pool.time
            if mel.shape[1] < spec.pool.time:
                mel = nn.functional.pad(mel, (0, 0, 0, spec.pool.time - mel.shape[1]))
            mel = pool(mel, spec.pool.reduce, spec.pool.time, spec.pool.mel)
        mel.masked_fill_((torch.arange(mel.shape[1], device=mel.device) >= valid[:, None])[..., None], 0.0)
        if mel.shape[1] < wanted:
            mel = nn.functional.pad(mel, (0, 0, 0, wanted - mel.shape[1]))
        return mel.sub_(spec.mean).div_(2 * spec.std)

    def compress(self, features: Tensor) -> Tensor:
        """What the tokeniser takes of normalised, augmented features (B, frames, mels): pooled, where that is last."""
        pooling = self.spec.pool
        if pooling is None or pooling.at != "input":
            return features
        return pool(features, pooling.reduce, pooling.time, pooling.mel)

    @property
    def factors(self) -> tuple[int, int]:
        """(time, mel) compression that features have while they are augmented, beyond that of hop and filter bank."""
        pooling = self.spec.pool
        return (pooling.time, pooling.mel) if pooling is not None and pooling.at == "log_mel" else (1, 1)


def _whole_sums(clips: Tensor) -> Tensor:
    """(B,) float64 exact sums of (B, S) 16-bit whole numbers held in float32.

    256 of them stay below 2^24, where float32 is exact; summing int16 as int64 takes many times as long.
    """
    blocks = clips.shape[1] // 256
    head = clips[:, : blocks * 256].unflatten(1, (blocks, 256)).sum(2)
    return head.double().sum(1) + clips[:, blocks * 256 :].double().sum(1)


def build_frontend(spec: ResolvedFrontend) -> LogMel:
    """The front end of the kind that the spec names."""
    match spec.kind:
        case "kaldi":
            return LogMel(spec)
        case other:
            raise ValueError(f"unknown front end {other!r}")
