"""A batch on the host, and what it becomes on the device: waveforms and targets.

Axes: B clips, S samples, C classes, T label frames, E events.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from c2ftool.events import paint

Targets = dict[str, Tensor]


@dataclass(frozen=True)
class FrameLabels:
    """The events of a batch as frames, not yet painted, and which clips' events are known.

    clip: (E,) places in this part of the batch. label: (E,) classes of the run. first, last: (E,) frames, last
    exclusive. strong: (B,) bool. frames: T.
    """

    clip: Tensor
    label: Tensor
    first: Tensor
    last: Tensor
    strong: Tensor
    frames: int


@dataclass(frozen=True)
class HostBatch:
    """Part of a step's batch, on the host.

    logits: of an ensemble, (B, C, T) or (B, C) float16, and known: (B, C) bool, which of them there are. partners: as
    many further clips, to be mixed with.
    """

    places: Tensor  # (B,) int64: places in the step's whole batch
    waveforms: Tensor  # (B, S) int16, zero beyond each clip's length
    lengths: Tensor  # (B,) int64
    labels: Tensor  # (B, C) float32 multi-hot
    frames: FrameLabels | None = None
    logits: Tensor | None = None
    known: Tensor | None = None
    partners: HostBatch | None = None

    def with_partners(self, partners: HostBatch) -> HostBatch:
        """The same batch with the clips that its own are mixed with."""
        return replace(self, partners=partners)

    def to(self, device: torch.device) -> HostBatch:
        """The same batch on the device; the copy from pinned memory does not block."""
        return _moved(self, device)

    def targets(self, weight: float = 0.0) -> Targets:
        """What is to be learned, float32, made on the batch's device.

        `clip`: (B, C) labels of clips. Of frame labels besides `frame`: (B, C, T), and `strong`: (B,) bool, the clips
        whose frames are known. weight: w of the ensemble; where its logits are known, a target y of frames (of clips,
        where the logits are those of clips) becomes (1 - w) y + w sigmoid(logit): the mixed loss of Schmid et al.
        (ICASSP 2025), as binary cross-entropy is linear in its target.
        """
        out: Targets = {"clip": self.labels}
        if self.frames is not None:
            f = self.frames
            out["frame"] = paint(f.clip, f.label, f.first, f.last, (*self.labels.shape, f.frames))
            out["strong"] = f.strong
        if self.logits is not None and self.known is not None and weight:
            key = "frame" if self.logits.dim() == 3 else "clip"
            share = weight * self.known.float()
            if key == "frame":
                share = share[..., None]
            out[key] = torch.lerp(out[key], self.logits.float().sigmoid(), share.expand_as(out[key]))
        return out


def _moved(batch: HostBatch, device: torch.device) -> HostBatch:
    def moved(value: object) -> object:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, FrameLabels):
            return FrameLabels(**{f.name: moved(getattr(value, f.name)) for f in fields(value)})  # type: ignore[arg-type]
        return _moved(value, device) if isinstance(value, HostBatch) else value

    return HostBatch(**{f.name: moved(getattr(batch, f.name)) for f in fields(batch)})  # type: ignore[arg-type]
