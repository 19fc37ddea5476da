"""Parity cases of training for sound events: augmentation by recorded draws, and events as frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from deterministic import relative_error, spectrogram
from inputs import Case, features
from torch import Tensor

from c2ftool.augment.bands import scale_bands, stretch_bands
from c2ftool.augment.frames import roll_by
from c2ftool.augment.mixup import dominant, mix_statistics, mix_with
from c2ftool.augment.targets import Targets
from c2ftool.events import active_frames, frame_bounds, merged, paint

ALLOWED = 1e-6
LABELS = (447, 250)  # classes, frames
HOPS = 4.0  # 40-ms labels on 10-ms frames
NAMES = {"frame": "labels", "teacher": "pseudo_labels"}  # ours -> published
# Classes that only evaluation clips have; labels of training leave them out.
EVALUATION_ONLY = (
    "Heart murmur", "Outside, rural or natural", "Silence", "Source-ambiguous sounds", "Specific impact sounds",
    "Studio recording", "Throbbing", "Unmodified field recording", "Vibration",
)  # fmt: skip

Params = dict[str, Any]
Compared = tuple[str, float, float]  # an output, its error, what is allowed
Changed = tuple[Tensor, Targets]


def _warped(x: Tensor, targets: Targets, params: Params) -> Changed:
    return stretch_bands(x, params["row_offset"], params["rows"]), targets


def _filtered(x: Tensor, targets: Targets, params: Params) -> Changed:
    return scale_bands(x, params["boundaries"], torch.tensor(params["gain_db"])), targets


def _mixed(x: Tensor, targets: Targets, params: Params) -> Changed:
    share = dominant(torch.tensor(params["beta_draws"]))
    return mix_with(x, targets, torch.tensor(params["permutation"]), share)


def _styled(x: Tensor, targets: Targets, params: Params) -> Changed:
    share = dominant(torch.tensor(params["beta_draws"]))
    return mix_statistics(x, torch.tensor(params["permutation"]), share), targets


def _rolled(x: Tensor, targets: Targets, params: Params) -> Changed:
    moved, after = roll_by(x, targets, torch.tensor(params["gauss_draws"]).long(), HOPS)
    assert after is not None
    return moved, after


CHANGES: dict[str, Callable[[Tensor, Targets, Params], Changed]] = {
    "frequency_warping": _warped,
    "filter_augment": _filtered,
    "mixup": _mixed,
    "freq_mixstyle": _styled,
    "time_roll": _rolled,
}


def sed_augmentations(case: Case) -> list[Compared]:
    """Features, labels and teachers' targets after each change, given its draws."""
    given = case["input"]["features"]
    x = features(given).transpose(1, 2)  # published: mel before time
    seed, shape = given["seed"], (len(x), *LABELS)
    targets = {
        "frame": torch.from_numpy(spectrogram(seed + 1, shape) > 0.9).float(),
        "teacher": torch.from_numpy(4 * spectrogram(seed + 2, shape)).sigmoid(),
    }
    lines: list[Compared] = []
    for part in case["cases"]:
        changed, after = CHANGES[part["name"]](x, targets, part["params"])
        outputs = {"features": changed.transpose(1, 2)[:, None]} | {NAMES[name]: each for name, each in after.items()}
        for name, recorded in part["outputs"].items():
            lines.append((f"{part['name']} {name}", relative_error(outputs[name].numpy(), recorded), ALLOWED))
    return lines


def sed_label_encoding(case: Case) -> list[Compared]:
    """Merged events and painted frames, which must be equal; an error is 0 or infinite."""
    frames = case["config"]["frames"]
    lines: list[Compared] = []

    def compare(about: str, ours: object, recorded: object) -> None:
        lines.append((about, 0.0 if ours == recorded else math.inf, 0.0))

    for number, part in enumerate(case["clips"]):
        names = sorted({name for _, _, name in part["events"]})
        onset, offset = np.array([event[:2] for event in part["events"]]).T
        label = np.array([names.index(name) for _, _, name in part["events"]])
        clip, label, onset, offset = merged(np.zeros_like(label), label, onset, offset)
        ours = [[on, off, names[of]] for on, off, of in zip(onset.tolist(), offset.tolist(), label, strict=True)]
        compare(f"clip {number} merged", ours, part["merged"])

        trained = ~np.isin(label, [place for place, name in enumerate(names) if name in EVALUATION_ONLY])
        clip, label = clip[trained], label[trained]
        first, last = frame_bounds(onset[trained], offset[trained], frames)
        clips, labels, starts, ends = (torch.from_numpy(each) for each in (clip, label, first, last))
        painted = paint(clips, labels, starts, ends, (1, len(names), frames))[0]
        runs = [
            [name, start, stop] for name, row in zip(names, painted.numpy(), strict=True) for start, stop in _runs(row)
        ]
        compare(f"clip {number} active_frames", runs, part["active_frames"])
        total = int(active_frames(clip, label, first, last)[2].sum())
        compare(f"clip {number} active_frame_total", (total, int(painted.sum())), (part["active_frame_total"],) * 2)
    return lines


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    """(first, last), last exclusive, of the stretches of ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


RUN: dict[str, Callable[[Case], list[Compared]]] = {
    "sed_augmentations": sed_augmentations,
    "sed_label_encoding": sed_label_encoding,
}
