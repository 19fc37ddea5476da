"""`objective`: what the loss is. Built by c2ftool/objectives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Length
from c2ftool.spec.base import Section


class Decoder(Section):
    """The convolutional decoder of EAT pre-training; dropped afterwards."""

    layers: int = Field(6, ge=1, le=32, description="Convolutions, before a linear layer.")
    kernel: int = Field(3, ge=1, le=15, description="Odd side of the convolutions.")
    groups: int = Field(16, ge=1, description="Groups of the convolutions; must divide the width.")


class Collapse(Section):
    """Stops a run whose representations have lost their spread (data2vec 2.0; public EAT code has it switched off)."""

    after: Length = Field(Length.parse("5000 steps"), description="Do not judge earlier.")
    target: float = Field(0.1, ge=0, description="Least standard deviation of the targets over tokens; 0 is off.")
    prediction: float = Field(0.01, ge=0, description="Least standard deviation of the predictions; 0 is off.")


class Eat(Section):
    """Utterance-frame objective: masked tokens and the whole clip, predicted from what is visible (EAT, section 3)."""

    kind: Literal["eat"]
    utterance_weight: float = Field(1.0, ge=0, description="Lambda of the paper.")
    utterance_reduction: Literal["sum", "mean"] = Field(
        "sum",
        description="`mean`: over all sequences of the step. `sum`: as published, where the loss is summed over the "
        "`utterance_sequences` of a device; the weight is lambda times that count whatever the batch is here.",
    )
    utterance_sequences: int = Field(192, ge=1, description="Sequences that `sum` stands for: 12 clips x 16 clones.")
    mask_noise: float = Field(0.01, ge=0, description="Standard deviation of the decoder's input at masked places.")
    decoder: Decoder = Decoder()
    collapse: Collapse = Collapse()


class Ssast(Section):
    """Joint discriminative and generative prediction of masked patches (Gong et al., SSAST, AAAI 2022, section 2.4)."""

    kind: Literal["ssast"]
    generative_weight: float = Field(
        10.0, ge=0, description="Lambda of the paper: weight of the squared error beside the InfoNCE loss."
    )


class Classify(Section):
    """Clip classification with one or several labels."""

    kind: Literal["classify"]
    loss: Literal["bce", "ce"] = Field(description="`bce`: a sigmoid for each class. `ce`: softmax over classes.")
    reduction: Literal["clips", "labels", "elements"] = Field(
        "clips",
        description="What the summed loss is divided by: clips; the sum of (mixed) labels, as EAT does on AudioSet; "
        "or clips x classes.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the label spread over all classes (`ce` only)."
    )


class Detect(Section):
    """Sound event detection: binary cross-entropy of each class in each frame, and of each class in weak clips."""

    kind: Literal["detect"]
    weak_weight: float = Field(1.0, ge=0, description="Weight of the weakly labelled clips' loss.")


Objective = Annotated[Eat | Ssast | Classify | Detect, Field(discriminator="kind")]
