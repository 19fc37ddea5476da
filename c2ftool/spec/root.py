"""The whole spec, section by section in the order users write them. Checks that span sections: check.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.adapters import Adapter
from c2ftool.spec.amounts import Length
from c2ftool.spec.augment import Augment
from c2ftool.spec.base import Section
from c2ftool.spec.compression import Compression, NoCompression
from c2ftool.spec.data import Data
from c2ftool.spec.entering import Enter
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.masks import Masks
from c2ftool.spec.model import Model
from c2ftool.spec.objective import Objective
from c2ftool.spec.running import Checkpoints, Evaluate, Tracking
from c2ftool.spec.savings import Savings
from c2ftool.spec.stop import Stop
from c2ftool.spec.teachers import Teacher
from c2ftool.spec.train import Train, TrainPart

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Phase(TrainPart):
    """A stretch of training. Repeats any key of `train` that a phase may change, and the sections named here."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="Names the phase in logs, files and `extends`.")
    length: Length = Field(description="`5 epochs`, `400000 steps` or `100000 clips`.")
    compression: Compression | None = Field(None, description="Other than the spec's, in this phase.")
    masks: Masks | None = Field(None, description="Other than the spec's; merges over it.")
    teachers: Annotated[list[Teacher], Field(max_length=1)] | None = Field(
        None, description="Other than the spec's; replaces the list."
    )
    augment: Augment | None = Field(None, description="Other than the spec's; merges over it.")
    frontend: Frontend | None = Field(None, description="Other than the spec's; merges over it.")
    enter: Enter | None = Field(None, description="Other than the spec's; merges over it.")
    stop: Stop | None = Field(None, description="A rule that may end the phase before its length.")


class Spec(Section):
    """One training run, or a study of several."""

    c2f: Literal[1] = Field(description="Version of the language.")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run's folder.")
    about: str = Field("", description="A sentence for readers.")
    task: Literal["pretrain", "finetune", "distill"] = Field(
        description="Which command runs it: `c2f pretrain`, `c2f finetune`, `c2f distill`."
    )
    seed: Seed = Field(0, description="Every draw of the run is a function of it.")
    seeds: list[Seed] | None = Field(None, min_length=2, description="A study: one child run for each seed.")
    backbones: list[str] | None = Field(
        None, min_length=2, description="A study: one child run for each backbone, and each seed where there are seeds."
    )
    data: Data
    frontend: Frontend = Frontend()
    model: Model
    adapters: Annotated[list[Adapter], Field(max_length=16)] = Field(
        [], description="Small parts that learn beside a frozen body: parallel and look-aside adapters, LoRA."
    )
    objective: Objective = Field(
        description="What the loss is: `eat` and `ssast` pre-train, `classify` and `detect` fine-tune."
    )
    masks: Masks | None = Field(None, description="Which tokens are to be predicted; needed by pre-training.")
    teachers: list[Teacher] = Field(
        [],
        max_length=1,
        description="Who gives the targets: an EMA teacher for `eat`, an ensemble of trained models for `c2f distill`.",
    )
    augment: Augment = Augment()
    train: Train = Train()
    compression: Compression = Field(
        NoCompression(method="none"), description="Fewer time tokens, so a cheaper step; mostly given by phases."
    )
    enter: Enter = Enter()
    phases: list[Phase] = Field(
        min_length=1, description="In order; weights carry over, optimiser and schedule start afresh."
    )
    control: Literal["none", "restart"] = Field(
        "none",
        description="`restart`: the same phases without compression, the control that says what restarting alone does.",
    )
    evaluate: Evaluate = Evaluate()
    checkpoints: Checkpoints = Checkpoints()
    savings: Savings | None = None
    tracking: Tracking = Tracking()
