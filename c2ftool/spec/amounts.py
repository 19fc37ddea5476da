"""Amounts with a unit: lengths of training, durations of sound, shares.

A bare number is never an amount: `5` could be epochs or steps, `10` seconds or milliseconds.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_NUMBER = r"(\d{1,25}(?:\.\d{0,25})?|\.\d{1,25})(?:[eE]([+-]?\d{1,2}))?"  # bounded: 1e999999999 would fill memory
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}


def _parse(text: object, units: dict[str, str], example: str) -> tuple[Fraction, str]:
    match = re.fullmatch(rf"\s*{_NUMBER}\s*([a-zA-Z%]+)\s*", text) if isinstance(text, str) else None
    unit = units.get(match.group(3)) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not an amount with a unit; write it like {example}")
    return Fraction(match.group(1) + (f"e{match.group(2)}" if match.group(2) else "")), unit


def _plain(value: Fraction) -> str:
    number = float(value)
    return str(int(number)) if number == int(number) else repr(number)


class _Amount(ABC):
    """Read from text by `parse`; written back by `str`."""

    pattern = ""
    value: Fraction
    unit: str

    @classmethod
    @abstractmethod
    def parse(cls, text: object) -> Any:
        """The amount that a text such as `5 epochs` holds; raises ValueError for anything else."""

    def __str__(self) -> str:
        return f"{_plain(self.value)} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object) -> Any:
            return value if isinstance(value, cls) else cls.parse(value)

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="always")
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": cls.pattern}


@dataclass(frozen=True)
class Length(_Amount):
    """An amount of training: `5 epochs`, `400000 steps`, `100000 clips`, or `25 %` of the phase."""

    value: Fraction
    unit: Literal["epochs", "steps", "clips", "%"]
    pattern = r"^\s*[0-9.eE+-]+\s*(epochs?|steps?|clips?|%)\s*$"

    @classmethod
    def parse(cls, text: object) -> Length:
        units = {"epoch": "epochs", "step": "steps", "clip": "clips"}
        units |= {v: v for v in units.values()} | {"%": "%"}
        value, unit = _parse(text, units, "`5 epochs`, `400000 steps`, `100000 clips` or `25 %`")
        return cls(value, unit)  # type: ignore[arg-type]

    def steps(self, *, batch: int, clips: int, whole: int | None = None) -> int:
        """Optimiser steps of this length, rounded to the nearest (at least 1 where the amount is above 0).

        batch: clips per step. clips: clips in an epoch. whole: steps that `%` is a share of.
        """
        exact = self.exact_steps(batch=batch, clips=clips, whole=whole)
        return max(1, round(exact)) if self.value > 0 else 0

    def exact_steps(self, *, batch: int, clips: int, whole: int | None = None) -> Fraction:
        """Optimiser steps of this length, not rounded: moments that repeat must not drift away from the phase's end."""
        if self.unit == "steps":
            return self.value
        if self.unit == "clips":
            return self.value / batch
        if self.unit == "epochs":
            return self.value * clips / batch
        if whole is None:
            raise ValueError(f"{self}: a share has no meaning here; write steps, epochs or clips")
        return self.value / 100 * whole


@dataclass(frozen=True)
class Duration(_Amount):
    """A duration of sound or of waiting: `10 ms`, `0.48 s`, `30 min`."""

    value: Fraction
    unit: Literal["ms", "s", "min", "h"]
    pattern = r"^\s*[0-9.eE+-]+\s*(ms|s|min|h)\s*$"

    @classmethod
    def parse(cls, text: object) -> Duration:
        value, unit = _parse(text, {u: u for u in ("ms", "s", "min", "h")}, "`10 ms`, `0.48 s` or `30 min`")
        return cls(value, unit)  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        return float(self.exact)

    @property
    def exact(self) -> Fraction:
        """Seconds, not rounded."""
        return self.value * _SECONDS[self.unit]


def samples(duration: Duration, sample_rate: int) -> int:
    """Whole samples of a duration, as Kaldi counts them (milliseconds times samples per millisecond, cut)."""
    return int(Fraction(duration.value) * _SECONDS[duration.unit] * sample_rate)
