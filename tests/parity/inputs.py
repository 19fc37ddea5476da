"""What parity cases share: weights files as published, their loading, inputs and front ends."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from deterministic import fill, spectrogram, waveform
from torch import Tensor, nn

from c2ftool.frontend import build
from c2ftool.models.positions import MAX_TIME, sincos_2d
from c2ftool.models.weights import Start, load_into, starting_weights
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.resolved import ResolvedFrontend

Case = dict[str, Any]
Outputs = dict[str, Tensor]


def published_file(case: Case, folder: Path) -> Path:
    """A checkpoint in the case's published layout, filled by rule, as a training program would have saved it.

    Constants that the case says to leave alone are there with their shape; their values are never read.
    """
    derived = case.get("derived_tensors", [])
    more = derived["tensors"] if isinstance(derived, dict) else []
    positions = set() if isinstance(derived, dict) else set(derived)
    constants = {*case["checkpoint"].get("not_filled", ()), *(name for name, _ in more)}
    fixed = case.get("fixed_tensors", {}).get("values", {})
    tied = case.get("tied_tensors", {}).get("map", {})
    ema = "_ema."
    model: dict[str, Any] = {}
    for name, shape in [*case["tensors"], *more]:
        if name in positions:  # a constant: EAT's table of positions
            value = sincos_2d(MAX_TIME, shape[1] // MAX_TIME, shape[2], torch.device("cpu"))[None].clone()
        elif name in fixed:
            value = torch.tensor(fixed[name])
        elif name.rsplit(".", 1)[-1] in INTEGERS:
            value = torch.full(tuple(shape), INTEGERS[name.rsplit(".", 1)[-1]](case), dtype=torch.int64)
        elif name in constants:
            value = torch.zeros(tuple(shape))
        else:
            value = torch.from_numpy(fill(tied.get(name, name), tuple(shape)))
        place = model.setdefault("_ema", {}) if name.startswith(ema) else model
        place[name.removeprefix(ema)] = value
    key = case["checkpoint"]["state_dict_key"]  # null: the tensors alone
    whole = model if key is None else {"args": argparse.Namespace(arch="eat"), "cfg": {"task": {}}, key: model}
    path = folder / "published.pt"
    torch.save(whole, path)
    return path


# Whole numbers in published files, by the last part of their names.
INTEGERS: dict[str, Callable[[Case], int]] = {
    "p_input_fdim": lambda case: case["config"]["mel_bins"],
    "p_input_tdim": lambda case: case["config"]["frames"],
    "num_batches_tracked": lambda case: 0,
    "relative_position_index": lambda case: 0,
}


def loaded(case: Case, unused: Collection[str] = ()) -> Start:
    """The case's weights through the loader that `model.weights=file:PATH` takes; every tensor must find its place.

    unused: names of tensors that are in the file and belong to nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = starting_weights(published_file(case, Path(folder)))
    placed = sum(len(part or ()) for part in (start.backbone, start.head, start.decoder, start.teacher))
    derived = case.get("derived_tensors", [])
    constants = {*case["checkpoint"].get("not_filled", ()), *([] if isinstance(derived, dict) else derived)}
    tied = case.get("tied_tensors", {}).get("map", {})
    apart = constants | set(unused) | (tied.keys() - set(tied.values()))
    expected = len({name for name, _ in case["tensors"]} - apart)
    if placed != expected:
        raise AssertionError(f"{placed} of {expected} tensors were placed: {start.report}")
    return start


def load_strictly(module: nn.Module, state: dict[str, Tensor] | None) -> None:
    """Load a part; nothing may be missing or left over."""
    report = load_into(module, state or {}, where="parity case")
    if report.unexpected:
        raise AssertionError(f"not used: {report.unexpected}")


def features(given: Mapping[str, Any]) -> Tensor:
    """(B, frames, mels) of an input of normalised features, with or without a channel axis."""
    images = torch.from_numpy(spectrogram(given["seed"], tuple(given["shape"])))
    return images[:, 0] if images.ndim == 4 else images


def wave_of(given: Mapping[str, Any]) -> Tensor:
    """(1, samples) of an input that is a waveform."""
    return torch.from_numpy(waveform(given["seed"], given["seconds"], given["sample_rate"]))[None]


def frontend_of(mean: float, std: float, frames: int = 1024) -> ResolvedFrontend:
    """The front end that EAT and AST share, with the statistics of a case."""
    return ResolvedFrontend(
        sample_rate=16_000, mels=128, window="hanning", frame_length=400, hop=160, frames=frames,
        mean=mean, std=std,
    )  # fmt: skip


def raw_log_mel(wave: Tensor, spec: ResolvedFrontend) -> Tensor:
    """(frames, mels) before padding and normalising, of a (1, samples) waveform."""
    return build.raw_log_mel(wave, spec)[0]


def time_first(pair: Sequence[int]) -> tuple[int, int]:
    """(time, mel) of a pair that a published file writes mel first."""
    mel, time = pair
    return time, mel


def backbone_named(family: str, size: Mapping[str, Any]) -> str | None:
    """The backbone of ours that has the family and the size; None if there is none."""
    depth = sum(size["depths"]) if "depths" in size else size.get("depth")  # over all stages; heads are the first one's
    heads = size["heads"][0] if isinstance(size["heads"], list) else size["heads"]
    wanted = (family, size["embed_dim"], depth, heads)
    return next((b.name for b in BACKBONES.values() if (b.family, b.width, b.depth, b.heads) == wanted), None)
