"""`frontend`: from waveform to log-mel. Built by c2ftool/frontend. The rest comes with the backbone (backbones.py)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from c2ftool.spec.amounts import Duration
from c2ftool.spec.base import Section


class Statistics(Section):
    """Mean and standard deviation of the log-mel: features are (x - mean) / (2 std)."""

    mean: float | None = Field(None, description="Mean of the log-mel; measured on the prepared set if not given.")
    std: float | None = Field(None, gt=0, description="Its standard deviation; measured if not given.")

    @model_validator(mode="before")
    @classmethod
    def _measured(cls, value: Any) -> Any:
        if value == "measured":
            return {}
        if isinstance(value, str):
            raise ValueError(f"{value!r} is no normalisation; write `measured`, or {{mean: -4.268, std: 4.569}}")
        return value

    @model_validator(mode="after")
    def _both(self) -> Statistics:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; give both, or write `measured`")
        return self

    @property
    def measured(self) -> bool:
        return self.mean is None


class Frontend(Section):
    """The log-mel; a spec names only what differs from the backbone's own front end."""

    sample_rate: int | None = Field(None, ge=1000, le=192_000, description="Of the prepared set; samples per second.")
    mels: int | None = Field(None, ge=8, le=512, description="Mel bands.")
    window: Literal["hanning", "povey", "hamming", "rectangular"] | None = Field(
        None, description="Window function of Kaldi front ends; the others have a periodic Hann window."
    )
    frame_length: Duration | None = Field(None, description="Length of the analysis window.")
    hop: Duration | None = Field(None, description="Frame shift, before any compression.")
    frames: int | None = Field(
        None, ge=1, description="Frames of the input; shorter clips are padded, longer ones cut."
    )
    pad: Literal["log_mel", "silence", "repeat"] | None = Field(
        None,
        description="How a shorter clip is filled up: with 0 in the `log_mel`, with `silence`, or by its own sound in "
        "`repeat`.",
    )
    normalize: Statistics | None = Field(None, description="`measured`, or {mean, std}.")
    jitter: bool | None = Field(
        None, description="Whether the filter bank is jittered in training, as fPaSST's is; as published if not given."
    )
