"""The front end of a phase as a module: int16 waveforms in, what the tokeniser takes out.

log-mel -> (pooled, at `log_mel`) -> padded, normalised -> [augmentation] -> (pooled, at `input`) -> tokeniser
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from c2ftool.compression.pool import pool
from c2ftool.draws import Draw
from c2ftool.frontend import kaldi, stft
from c2ftool.spec.resolved import ResolvedFrontend
from c2ftool.spec.spectrum import Spectrum


class LogMel(nn.Module):
    """Log-mel of clips of different lengths, filled up or cut to the same frames, normalised.

    Axes: B clips, S samples. `spec.pad` says how a shorter clip is filled up. `log_mel`: frames beyond its end are 0 in
    the log-mel, before normalising, as in the code of AST and EAT; after it they are `pad_value`, which is above most
    of a quiet clip. `silence`: its waveform is 0 from its end on. `repeat`: it begins again at its end.
    """

    def __init__(self, spec: ResolvedFrontend) -> None:
        super().__init__()
        self.spec = spec

    @property
    def pad_value(self) -> float:
        """The value after normalising of what is 0 in the log-mel."""
        return (0.0 - self.spec.mean) / (2 * self.spec.std)

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) float32 of (B, S) int16 or float waveforms in [-1, 1] with (B,) valid samples each.

        Normalised and, where pooling belongs to the log-mel, pooled; pooling of the input is left to `compress`.
        A clip's mean is removed over its own samples, as far as the frames reach; what lies beyond its length changes
        nothing, nor do the other clips. draw: of a training step, whose filter bank is jittered where the spec says so.
        """
        spec = self.spec
        clips, lengths = _filled(waveforms, lengths, spec)
        own = lengths if spec.pad == "log_mel" else None
        mel = _log_mel(_prepared(clips, lengths, spec), own, spec, _jittered(spec.spectrum, draw))
        wanted = spec.frames
        if own is None:
            valid = None
        elif spec.spectrum.kind == "stft":
            valid = stft.frames_of(own - 1 if spec.spectrum.preemphasis else own, spec.hop)
        else:  # frames that reach beyond a clip's end are none of its own
            valid = torch.where(own < spec.frame_length, 0, 1 + (own - spec.frame_length) // spec.hop)
        if spec.pool is not None and spec.pool.at == "log_mel":
            wanted //= spec.pool.time
            valid = None if valid is None else valid // spec.pool.time
            if mel.shape[1] < spec.pool.time:
                mel = nn.functional.pad(mel, (0, 0, 0, spec.pool.time - mel.shape[1]))
            mel = pool(mel, spec.pool.reduce, spec.pool.time, spec.pool.mel)
        if valid is not None:
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


def build_frontend(spec: ResolvedFrontend) -> LogMel:
    """The front end of a spec."""
    return LogMel(spec)


@torch.no_grad()
def raw_log_mel(waveforms: Tensor, spec: ResolvedFrontend) -> Tensor:
    """(B, T, mels) float32 log-mel of whole (B, S) int16 or float waveforms, not filled up, cut, pooled or normalised.

    T: the frames that S samples have.
    """
    return _log_mel(_prepared(waveforms, None, spec), None, spec, spec.spectrum)


def _filled(waveforms: Tensor, lengths: Tensor, spec: ResolvedFrontend) -> tuple[Tensor, Tensor]:
    """The waveforms as far as the frames reach, and the samples that are valid in them.

    `log_mel`: not made longer. `silence`: as long as the frames, with anything beyond the valid samples. `repeat`:
    every clip fills all of them, except that of a clip without samples none is valid.
    """
    samples = max(spec.samples, 1)
    clips = waveforms[:, :samples]
    lengths = lengths.clamp(max=clips.shape[1])
    if spec.pad == "log_mel":
        return clips, lengths
    if spec.pad == "silence" or not clips.shape[1]:
        return nn.functional.pad(clips, (0, samples - clips.shape[1])), lengths
    # remainders of int32: those of int64 take ten times as long on a CPU
    places = torch.arange(samples, dtype=torch.int32, device=clips.device) % lengths.clamp(min=1).int()[:, None]
    return clips.gather(1, places.long()), torch.where(lengths > 0, samples, 0)


def _prepared(clips: Tensor, lengths: Tensor | None, spec: ResolvedFrontend) -> Tensor:
    """(B, S) float32 new waveforms: scaled, each less its mean where that is removed, 0 beyond its valid samples.

    lengths: (B,) valid samples; all are if None.
    """
    spectrum, inside, whole = spec.spectrum, None, clips.dtype == torch.int16
    scale = spectrum.scale / 32768 if whole else spectrum.scale
    if lengths is not None and clips.device.type == "cpu" and bool((lengths >= clips.shape[1]).all()):
        lengths = None  # the usual case, and where asking takes no time the masks would take a tenth of all of it
    if lengths is not None:
        inside = torch.arange(clips.shape[1], device=clips.device) < lengths[:, None]
        # whole numbers are never NaN, and a product is the quicker of the two
        clips = clips * inside if whole else torch.where(inside, clips, 0)
    clips = clips.float().mul_(scale) if whole else clips.float() * scale
    if not spectrum.remove_mean:
        return clips
    clips.sub_((_sums(clips) / (clips.shape[1] if lengths is None else lengths.clamp(min=1))).float()[:, None])
    # frames that are kept of a clip padded in the log-mel do not see beyond its end
    return clips if inside is None or spec.pad == "log_mel" else clips.masked_fill_(~inside, 0.0)


def _jittered(spectrum: Spectrum, draw: Draw | None) -> Spectrum:
    """The spectrum with the filter bank of this step."""
    if spectrum.jitter is None or spectrum.high_hz is None or draw is None:
        return spectrum
    low, high = spectrum.jitter
    return spectrum.model_copy(
        update={
            "low_hz": spectrum.low_hz + math.floor(draw.once("frontend.low_hz") * low),
            "high_hz": spectrum.high_hz + high / 2 - math.floor(draw.once("frontend.high_hz") * high),
        }
    )


def _log_mel(clips: Tensor, lengths: Tensor | None, spec: ResolvedFrontend, spectrum: Spectrum) -> Tensor:
    """(B, T, mels) log-mel of prepared waveforms (B, S). lengths: where clips end, if their frames are to end there."""
    match spectrum.kind:
        case "kaldi":
            return kaldi.log_mel(
                clips,
                sample_rate=spec.sample_rate,
                mels=spec.mels,
                frame_length=spec.frame_length,
                hop=spec.hop,
                window=spec.window,
                spectrum=spectrum,
            )
        case "stft":
            if spectrum.preemphasis:
                clips = stft.emphasised(clips)
                lengths = None if lengths is None else (lengths - 1).clamp(min=0)
            return stft.log_mel(
                clips,
                lengths,
                sample_rate=spec.sample_rate,
                mels=spec.mels,
                frame_length=spec.frame_length,
                hop=spec.hop,
                spectrum=spectrum,
            )


def _sums(clips: Tensor) -> Tensor:
    """(B,) float64 sums of (B, S) float32 waveforms; exact where they are whole numbers of 16 bits, or 2^-15 of them.

    256 of these stay below 2^24, where float32 is exact; summing in float64 from the start takes many times as long.
    """
    blocks = clips.shape[1] // 256
    head = clips[:, : blocks * 256].unflatten(1, (blocks, 256)).sum(2)
    return head.double().sum(1) + clips[:, blocks * 256 :].double().sum(1)
