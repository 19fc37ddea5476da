"""`data`: which clips are trained on, which are held out. Built by c2ftool/data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Duration
from c2ftool.spec.base import Section


class Uniform(Section):
    """Every clip once an epoch, in a new order each epoch."""

    kind: Literal["uniform"]


class ClassBalanced(Section):
    """Clips drawn by weight: the sum over a clip's classes of 1000 / (clips of the class + 0.01) (Gong et al., AST)."""

    kind: Literal["class_balanced"]
    replacement: bool = Field(True, description="Draw with replacement; without, a clip comes at most once an epoch.")
    clips: int | None = Field(None, ge=1, description="Clips drawn per epoch; as many as the set has if not given.")


Fold = Annotated[int, Field(ge=1)]
Sampler = Annotated[Uniform | ClassBalanced, Field(discriminator="kind")]


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
    labels: Literal["clip"] = Field("clip", description="`clip`: one set of labels per clip.")
    classes: list[str] | None = Field(
        None, min_length=2, description="Keep only clips of these classes, in this order."
    )
    sampler: Sampler = Field(Uniform(kind="uniform"), description="How the clips of an epoch are drawn.")
    crop: Literal["start", "random"] = Field("start", description="Which part of a clip longer than the input is used.")
    min_length: Duration | None = Field(None, description="Leave out shorter clips (EAT: `0.625 s`, 10,000 samples).")
