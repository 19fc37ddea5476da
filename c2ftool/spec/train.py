"""`train`: how weights are updated; defaults of every phase. Built by c2ftool/engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Length
from c2ftool.spec.base import Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class _Moments(Section):
    """What Adam and AdamW have in common."""

    kind: str
    lr: float = Field(gt=0, description="Peak learning rate.")
    betas: list[Beta] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="Decay of the first and of the second moment."
    )
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    weight_decay: float
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Block i of n learns at lr x layer_decay^(n - i); what is in no block at the full rate.",
    )


class AdamW(_Moments):
    """Adam with decoupled weight decay. Biases and other 1-D tensors are not decayed."""

    kind: Literal["adamw"]
    weight_decay: float = Field(0.05, ge=0, description="Times the rate, of matrices.")


class Adam(_Moments):
    """Adam with weight decay added to the gradient (L2), of every tensor: as AST trains."""

    kind: Literal["adam"]
    weight_decay: float = Field(0.0, ge=0, description="Times the weights, added to their gradient.")


class Sgd(Section):
    """Stochastic gradient descent with momentum (Sutskever et al., 2013, as torch has it)."""

    kind: Literal["sgd"]
    lr: float = Field(gt=0, description="Peak learning rate.")
    momentum: Beta = Field(0.9, description="Decay of the velocity.")
    weight_decay: float = Field(0.0, ge=0, description="Times the weights, added to their gradient.")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Block i of n learns at lr x layer_decay^(n - i); what is in no block at the full rate.",
    )


class Cosine(Section):
    """Linear warm-up to the peak, then a cosine to `min_lr`, per step."""

    kind: Literal["cosine"]
    warmup: Length = Field(Length.parse("0 steps"), description="Linear rise from 0; `%` is of the phase.")
    min_lr: float = Field(0.0, ge=0, description="Rate at the end of the phase.")


class Step(Section):
    """Linear warm-up, then the rate times `factor` at `start` and every `every` after it."""

    kind: Literal["step"]
    warmup: Length = Field(Length.parse("0 steps"), description="Linear rise from 0; `%` is of the phase.")
    start: Length = Field(description="When the first factor is applied; `%` is of the phase.")
    every: Length = Field(description="Time between further factors.")
    factor: float = Field(0.5, gt=0, lt=1, description="What the rate is multiplied by.")


class Milestones(Section):
    """Linear warm-up, the peak rate, and from each moment in `at` on its factor of the peak (EPIC-SOUNDS)."""

    kind: Literal["milestones"]
    warmup: Length = Field(Length.parse("0 steps"), description="Linear rise from 0; `%` is of the phase.")
    at: list[Length] = Field(min_length=1, description="Moments, one after the other; `%` is of the phase.")
    factors: list[float] = Field(min_length=1, description="What the peak is multiplied by from each moment on.")


class Linear(Section):
    """Linear warm-up, the peak rate until `start`, then a straight line down to `min_lr` over `over` (EfficientAT)."""

    kind: Literal["linear"]
    warmup: Length = Field(Length.parse("0 steps"), description="Linear rise from 0; `%` is of the phase.")
    start: Length = Field(Length.parse("0 steps"), description="When the rate begins to fall; `%` is of the phase.")
    over: Length = Field(
        Length.parse("100 %"), description="How long it falls, which may be beyond the phase; `%` is of the phase."
    )
    min_lr: float = Field(0.0, ge=0, description="Rate at the end of the fall, and from there on.")


class Constant(Section):
    """Linear warm-up, then the peak rate to the end."""

    kind: Literal["constant"]
    warmup: Length = Field(Length.parse("0 steps"), description="Linear rise from 0; `%` is of the phase.")


class Average(Section):
    """The arithmetic mean of the weights at regular moments of a phase (Gong et al., AST: epochs 1 to 5)."""

    start: Length = Field(Length.parse("1 epochs"), description="The first moment, counted from the phase's start.")
    every: Length = Field(Length.parse("1 epochs"), description="Between moments.")


Optimizer = Annotated[AdamW | Adam | Sgd, Field(discriminator="kind")]
Schedule = Annotated[Cosine | Step | Milestones | Linear | Constant, Field(discriminator="kind")]


class TrainPart(Section):
    """What a phase may repeat of `train`."""

    batch: int | None = Field(None, ge=1, description="Clips per optimiser step, over all devices.")
    optimizer: Optimizer | None = Field(None, description="How gradients become updates.")
    schedule: Schedule | None = Field(None, description="The learning rate over the steps of a phase.")
    clip: float | None = Field(None, gt=0, description="Largest norm of the gradient; no clipping if not given.")
    average: Average | None = Field(
        None, description="Average the weights of the last phase; the mean is what is scored at the end."
    )


class Train(TrainPart):
    """Defaults of every phase, and what holds for the whole run."""

    batch: int = Field(32, ge=1, description="Clips per optimiser step, over all devices.")
    optimizer: Optimizer = Field(AdamW(kind="adamw", lr=5e-4), description="How gradients become updates.")
    schedule: Schedule = Field(
        Cosine(kind="cosine"),
        description="The learning rate over the steps: cosine, step, milestones, linear or constant.",
    )
    micro_batch: int | None = Field(
        None, ge=1, description="Clips per forward pass on a device; the losses do not depend on it."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="`auto`: bf16 where the GPU has it, fp16 on older GPUs, fp32 on a CPU."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile of the blocks; `auto`: on CUDA only."
    )
    workers: int | None = Field(
        None, ge=0, le=256, description="Loader threads per device; chosen from the cores if not given."
    )
    non_finite: int = Field(
        10,
        ge=0,
        description="Steps in a row with a non-finite loss or gradient that are skipped before the run stops (76).",
    )
