"""`data`: which clips are trained on, which are held out. Built by c2ftool/data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Duration
from c2ftool.spec.base import Section


class Uniform(Section):
    """Every clip once an epoch, in a new order each epoch."""

    kind: Literal["uniform"]
    repeat: int = Field(1, ge=1, description="Times each clip comes in an epoch (DCASE 2016: 12 crops of 120 s).")


class ClassBalanced(Section):
    """Clips drawn by weight: the sum over a clip's classes of 1000 / (clips of the class + 0.01) (Gong et al., AST)."""

    kind: Literal["class_balanced"]
    replacement: bool = Field(True, description="Draw with replacement; without, a clip comes at most once an epoch.")
    clips: int | None = Field(None, ge=1, description="Clips drawn per epoch; as many as the set has if not given.")


class ActiveTime(Section):
    """Clips drawn by weight: the sum over classes of 1000 x active frames / (offset + active frames of the class)
    (Schmid et al., ICASSP 2025). Needs frame labels."""

    kind: Literal["active_time"]
    offset: float = Field(30.0, gt=0, description="Frames added to each class's, against classes that hardly occur.")
    replacement: bool = Field(
        True,
        description="Draw with replacement, in proportion to the weights. The published code draws without: nearly all "
        "clips, the heavy ones first, which orders an epoch and does not balance it.",
    )
    clips: int | None = Field(None, ge=1, description="Clips drawn per epoch; as many as the set has if not given.")


Fold = Annotated[int, Field(ge=1)]
Sampler = Annotated[Uniform | ClassBalanced | ActiveTime, Field(discriminator="kind")]


class Also(Section):
    """A further prepared set to pre-train on."""

    dataset: str = Field(description="A prepared set: a name under C2F_DATA, or a path.")
    train: list[str] = Field(["train"], min_length=1, description="Splits to train on.")


class Data(Section):
    """Which prepared set, which of its splits or folds."""

    dataset: str = Field(description="A prepared set: a name under C2F_DATA, a path, or the built-in `demo`.")
    train: list[str] = Field(["train"], min_length=1, description="Splits to train on.")
    also: list[Also] = Field([], description="Sets to pre-train on besides (SSAST: AudioSet and LibriSpeech).")
    valid: list[str] = Field([], description="Splits that `evaluate` scores while training, and that select the best.")
    test: list[str] = Field([], description="Splits that `c2f evaluate` and the end of a run score.")
    fold: Fold | None = Field(None, description="Train without this fold; it becomes the validation and test data.")
    folds: list[Fold] | None = Field(None, min_length=2, description="A study: one child run for each held-out fold.")
    valid_fold: Literal["same", "next"] = Field(
        "same",
        description="`same`: the held-out fold is validated and tested on. `next`: the fold after it is the validation "
        "data, and not trained on either (MAESTRO).",
    )
    labels: Literal["clip", "frame"] = Field(
        "clip", description="`clip`: one set of labels per clip. `frame`: events with onset and offset, as frames."
    )
    frame: Duration = Field(Duration.parse("40 ms"), description="Length of a label frame.")
    covers: Literal["any", "centre"] = Field(
        "any",
        description="A frame is labelled where an event covers `any` part of it, or its `centre` (HEAR).",
    )
    weak: list[str] = Field([], description="Splits with clip labels only, trained on beside `train` (frame labels).")
    weak_share: float = Field(0.5, gt=0, lt=1, description="Share of each batch that comes from the `weak` splits.")
    classes: Annotated[list[str], Field(min_length=2)] | Literal["trained"] | None = Field(
        None,
        description="Only these classes, in this order; with clip labels, only clips that have one of them. `trained`: "
        "those that the training splits' own metadata name (AudioSet Strong: 447 of 456).",
    )
    sampler: Sampler = Field(Uniform(kind="uniform"), description="How the clips of an epoch are drawn.")
    crop: Literal["start", "random"] = Field(
        "start", description="Which part of a clip longer than the input is trained on; frame labels follow."
    )
    long: Literal["start", "slices"] = Field(
        "start",
        description="What is scored of a clip longer than the input: its start, or all of it in consecutive slices "
        "whose frames are put together (frame labels).",
    )
    min_length: Duration | None = Field(None, description="Leave out shorter clips (EAT: `0.625 s`, 10,000 samples).")
