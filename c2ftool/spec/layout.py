"""From front end and compression to what the tokeniser sees: frames, mel bands, patches, tokens. Integers only."""

from __future__ import annotations

from c2ftool.compression.grid import shorter, token_grid
from c2ftool.spec.amounts import Duration, samples
from c2ftool.spec.backbones import Backbone
from c2ftool.spec.compression import Compression, FrameShift, NoCompression, Patch, Pool
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedFrontend, ResolvedPool, Tokens


def full_frontend(given: Frontend, size: Backbone, mean: float, std: float) -> ResolvedFrontend:
    """The front end of a backbone with what a spec changes of it, at full resolution.

    mean, std: of the data; those that the spec gives come before them.
    """
    default = size.frontend
    rate = given.sample_rate or default.sample_rate
    length = given.frame_length or Duration.parse(f"{default.frame_length_ms} ms")
    hop = given.hop or Duration.parse(f"{default.hop_ms} ms")
    if given.normalize is not None and given.normalize.mean is not None and given.normalize.std is not None:
        mean, std = given.normalize.mean, given.normalize.std
    return ResolvedFrontend(
        kind=given.kind,
        sample_rate=rate,
        mels=given.mels or default.mels,
        window=given.window or default.window,
        frame_length=samples(length, rate),
        hop=samples(hop, rate),
        frames=given.frames or default.frames,
        mean=float(mean),
        std=float(std),
    )


def strides(model: Model, size: Backbone) -> tuple[int, int]:
    """(frames, mel bands) from patch to patch at full resolution."""
    return (model.stride[0], model.stride[1]) if model.stride is not None else size.patch


def compressed(
    full: ResolvedFrontend, compression: Compression, patch: tuple[int, int], stride: tuple[int, int]
) -> tuple[ResolvedFrontend, Tokens]:
    """The front end and the tokens of a phase. patch, stride: (frames, mel bands) at full resolution.

    Raises ValueError where no token is left.
    """
    factor, mels = compression.factor, compression.mel_factor
    front = full
    frames_in, mels_in = full.frames, full.mels
    match compression:
        case NoCompression():
            pass
        case FrameShift():
            frames_in, mels_in = shorter(full.frames, factor, "frames"), shorter(full.mels, mels, "mel bands")
            length = full.frame_length * (factor if compression.window == "scaled" else 1)
            changed = {"frames": frames_in, "mels": mels_in, "hop": full.hop * factor, "frame_length": length}
            front = full.model_copy(update=changed)
        case Pool():
            frames_in, mels_in = shorter(full.frames, factor, "frames"), shorter(full.mels, mels, "mel bands")
            pool = ResolvedPool(reduce=compression.reduce, time=factor, mel=mels, at=compression.at)
            front = full.model_copy(update={"pool": pool if factor * mels > 1 else None})
        case Patch():
            patch = (patch[0] * factor, patch[1] * mels)
            stride = (stride[0] * factor, stride[1] * mels)
    return front, tokens_of(frames_in, mels_in, patch, stride)


def tokens_of(frames: int, mels: int, patch: tuple[int, int], stride: tuple[int, int] | None = None) -> Tokens:
    """The tokens of an input; without overlap if no stride. Raises ValueError where none is left."""
    step = stride or patch
    time, frequency = token_grid(frames, mels, patch, step)
    return Tokens(frames=frames, mels=mels, patch=[*patch], stride=[*step], time=time, frequency=frequency)
