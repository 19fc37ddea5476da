"""From front end and compression to what the tokeniser sees: frames, mel bands, patches, tokens. Integers only."""

from __future__ import annotations

from c2ftool.compression.grid import chunk_grid, halved_grid, image_grid, shorter, stem_grid, token_grid
from c2ftool.spec.amounts import Duration, samples
from c2ftool.spec.backbones import Backbone, Grid
from c2ftool.spec.compression import Compression, FrameShift, NoCompression, Patch, Pool
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedFrontend, ResolvedPool, Tokens

CHUNK = 1001  # frames that M2D looks at together: 10 s


def full_frontend(given: Frontend, size: Backbone, mean: float, std: float) -> ResolvedFrontend:
    """The front end of a backbone with what a spec changes of it, at full resolution.

    mean, std: of the data. Those that the spec gives come first, then those that the front end was published with.
    """
    default = size.frontend
    rate = given.sample_rate or default.sample_rate
    length = given.frame_length or Duration.parse(f"{default.frame_length_ms} ms")
    hop = given.hop or Duration.parse(f"{default.hop_ms} ms")
    normalize = given.normalize
    if normalize is None and default.mean is not None and default.std is not None:
        mean, std = default.mean, default.std
    elif normalize is not None and normalize.mean is not None and normalize.std is not None:
        mean, std = normalize.mean, normalize.std
    spectrum = default.spectrum if given.jitter is not False else default.spectrum.model_copy(update={"jitter": None})
    return ResolvedFrontend(
        sample_rate=rate,
        mels=given.mels or default.mels,
        window=given.window or default.window,
        frame_length=samples(length, rate),
        hop=samples(hop, rate),
        frames=given.frames or default.frames,
        mean=float(mean),
        std=float(std),
        pad=given.pad or default.pad,
        spectrum=spectrum,
    )


def measured(given: Frontend, size: Backbone) -> bool:
    """Whether the data's own mean and deviation are used."""
    return given.normalize.measured if given.normalize is not None else size.frontend.mean is None


def strides(model: Model, size: Backbone) -> tuple[int, int]:
    """(frames, mel bands) from patch to patch at full resolution."""
    return (model.stride[0], model.stride[1]) if model.stride is not None else size.patch


def compressed(
    full: ResolvedFrontend, compression: Compression, size: Backbone, stride: tuple[int, int]
) -> tuple[ResolvedFrontend, Tokens]:
    """The front end and the tokens of a phase. stride: (frames, mel bands) from patch to patch at full resolution.

    Raises ValueError where no token is left, or the backbone does not take the compression.
    """
    if refused := refusal(size, compression):
        raise ValueError(refused[0])
    factor, mels = compression.factor, compression.mel_factor
    front, patch = full, size.patch
    frames_in, mels_in = full.frames, full.mels
    match compression:
        case NoCompression():
            pass
        case FrameShift():
            frames_in, mels_in = fewer_frames(full, factor), shorter(full.mels, mels, "mel bands")
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
    return front, tokens_of(frames_in, mels_in, patch, stride, size.grid)


def refusal(size: Backbone, compression: Compression) -> tuple[str, str] | None:
    """(why a backbone does not take a compression, what else to do); None where it does."""
    if compression.method not in ("none", *size.compressions):
        why = f"{size.name} has no patch kernel, so its patches cannot be widened"
        return why, f"use method {' or '.join(size.compressions)}"
    if size.fixed_mels and compression.mel_factor > 1:
        return f"{size.name} is made for its mel axis, which cannot be compressed", "leave mel_factor out"
    return None


def fewer_frames(full: ResolvedFrontend, factor: int) -> int:
    """Frames at so many times the hop: of centred frames, the first counts besides. Raises ValueError for none."""
    if full.spectrum.kind == "stft" and not full.spectrum.preemphasis and full.frames > factor:
        return (full.frames - 1) // factor + 1
    return shorter(full.frames, factor, "frames")


def tokens_of(
    frames: int,
    mels: int,
    patch: tuple[int, int],
    stride: tuple[int, int] | None = None,
    grid: Grid = "patches",
) -> Tokens:
    """The tokens of an input; without overlap if no stride. grid: as of a backbone.

    Raises ValueError where no token is left.
    """
    step = stride or patch
    match grid:
        case "patches":
            time, frequency = token_grid(frames, mels, patch, step)
        case "stem":
            time, frequency = stem_grid(frames, mels)
        case "chunks":
            time, frequency = chunk_grid(frames, mels, patch, CHUNK)
        case "image":
            time, frequency = image_grid(frames, mels, patch)
        case "halves":
            time, frequency = halved_grid(frames, mels)
    return Tokens(frames=frames, mels=mels, patch=[*patch], stride=[*step], time=time, frequency=frequency)
