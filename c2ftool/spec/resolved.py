"""The resolved spec: every value decided, every length in steps. What the engine builds from, and run folders keep.

`resolve.py` makes it; it is plain frozen data, written to `resolved.yaml` and hashed.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.adapters import Adapter
from c2ftool.spec.augment import Augment
from c2ftool.spec.base import Section
from c2ftool.spec.compression import Compression
from c2ftool.spec.data import Data
from c2ftool.spec.entering import Enter
from c2ftool.spec.masks import Masks
from c2ftool.spec.model import Model
from c2ftool.spec.objective import Objective
from c2ftool.spec.running import Checkpoints, Metric, Postprocess, Tracking
from c2ftool.spec.savings import Savings
from c2ftool.spec.spectrum import KALDI, Spectrum
from c2ftool.spec.train import Optimizer


class ResolvedPool(Section):
    """A pooling layer of one phase: kernel = stride = (time, mel)."""

    reduce: Literal["avg", "max"]
    time: int
    mel: int
    at: Literal["input", "log_mel"]


class ResolvedFrontend(Section):
    """The log-mel of one phase; lengths in samples."""

    sample_rate: int
    mels: int
    window: str
    frame_length: int = Field(description="Samples of the analysis window.")
    hop: int = Field(description="Samples between frames, compression included.")
    frames: int = Field(description="Frames that are made; a pooling layer comes after them.")
    mean: float
    std: float
    pad: Literal["log_mel", "silence", "repeat"] = "log_mel"
    spectrum: Spectrum = KALDI
    pool: ResolvedPool | None = None

    @property
    def samples(self) -> int:
        """Samples that the frames cover: what is read of a clip."""
        if self.spectrum.kind == "stft":  # centred frames; pre-emphasis takes a sample, and so a frame
            return max(1, self.frames if self.spectrum.preemphasis else self.frames - 1) * self.hop
        return self.frame_length + (self.frames - 1) * self.hop

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform."""
        return 1 << (self.frame_length - 1).bit_length() if self.spectrum.padded else self.frame_length


class Tokens(Section):
    """What the tokeniser of one phase takes and makes; pairs are (time, mel)."""

    frames: int = Field(description="Frames of its input, pooled where there is a pooling layer.")
    mels: int
    patch: list[int]
    stride: list[int]
    time: int = Field(description="Tokens over time.")
    frequency: int = Field(description="Tokens over the mel axis.")

    @property
    def grid(self) -> tuple[int, int]:
        """(time, frequency)."""
        return self.time, self.frequency

    @property
    def count(self) -> int:
        """Tokens of the grid, without those in front of it."""
        return self.time * self.frequency


class ResolvedTeacher(Section):
    """An EMA teacher with its rise in steps."""

    kind: Literal["ema"]
    decay: float
    final_decay: float
    over: int = Field(description="Steps over which the decay rises.")
    layers: list[int] = Field(description="Blocks averaged to the target.")


class ResolvedEnsemble(Section):
    """Stored logits that are learned from. fingerprint: of the members' weights, or of the file."""

    kind: Literal["ensemble"]
    members: list[str]
    logits: str | None
    weight: float
    missing: Literal["error", "labels"]
    fingerprint: str


class ResolvedSchedule(Section):
    """A schedule in steps of its phase. kind: cosine, step, milestones, linear or constant."""

    kind: str
    steps: int
    warmup: int
    min_lr: float = 0.0
    start: int = 0
    every: int = 1
    over: int = 1
    factor: float = 1.0
    milestones: list[int] = Field([], description="Steps.")
    factors: list[float] = Field([], description="Of the peak, from each on.")


class ResolvedStop(Section):
    """A stop rule, every value decided."""

    kind: Literal["surpasses", "plateau", "budget"]
    metric: Metric | None = None
    value: float | None = None
    patience: int = 0
    min_delta: float = 0.0
    flops: float | None = None
    seconds: float | None = None
    of: Literal["phase", "run"] = "phase"


class ResolvedAverage(Section):
    """Moments at which weights are averaged: round(start + k every) steps of the phase, k = 0, 1, ..

    Exact fractions as text: five times one epoch must be the end of five epochs.
    """

    start: str
    every: str

    def due(self, step: int) -> bool:
        """Whether a moment comes after so many steps."""
        start, every = Fraction(self.start), Fraction(self.every)
        near = max(0, round((step - start) / every))
        return any(k >= 0 and round(start + k * every) == step for k in (near - 1, near, near + 1))


class ResolvedPhase(Section):
    """One phase, whole."""

    name: str
    steps: int = Field(description="Optimiser steps of the phase.")
    batch: int
    clips_per_epoch: int
    optimizer: Optimizer
    schedule: ResolvedSchedule
    clip: float | None
    average: ResolvedAverage | None
    full_frontend: ResolvedFrontend = Field(description="Before compression.")
    frontend: ResolvedFrontend
    compression: Compression
    tokens: Tokens
    enter: Enter
    stop: ResolvedStop | None
    masks: Masks | None
    visible: int | None = Field(description="Tokens that the student sees, where there are masks.")
    teacher: Annotated[ResolvedTeacher | ResolvedEnsemble, Field(discriminator="kind")] | None
    augment: Augment
    label_frames: int = Field(0, description="Label frames that the input covers; 0 where clips are labelled.")
    label_hop: int = Field(0, description="Samples of a label frame.")
    evaluate_every: int = Field(description="Steps between evaluations; 0: none.")
    checkpoint_every: int = Field(description="Steps between saves; 0: only by time.")
    collapse_after: int = Field(0, description="Steps before representations are watched.")


class Resolved(Section):
    """The whole run."""

    name: str
    task: str
    about: str
    seed: int
    data: Data
    classes: list[str]
    multi_label: bool
    data_fingerprint: str
    model: Model
    adapters: list[Adapter] = Field([], description="Each with a name and a rank.")
    objective: Objective
    phases: list[ResolvedPhase]
    metrics: list[Metric]
    select: Metric | None
    evaluate_batch: int
    checkpoints: Checkpoints
    tracking: Tracking
    savings: Savings | None
    micro_batch: int | None
    precision: str
    compile: str
    workers: int | None
    non_finite: int
    postprocess: Postprocess = Postprocess()
    empty: Literal["leave_out", "keep"] = "leave_out"
    clips_shown: int = 0

    @property
    def supervised(self) -> bool:
        """Whether there are labels to learn, and scores."""
        return self.task != "pretrain"

    @property
    def by_frame(self) -> bool:
        """Whether frames are labelled and scored, not clips."""
        return self.data.labels == "frame"
