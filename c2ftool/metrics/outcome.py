"""What the results of an evaluation have in common, whatever was scored: values by name, a row for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Score:
    """A metric's value and what it means."""

    name: str
    value: float
    definition: str


class Results(Protocol):
    """The results of clips (results.py) or of events in time (detection.py), as reports see them."""

    @property
    def clips(self) -> int: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> dict[str, Score]: ...

    def values(self) -> dict[str, float]:
        """The scores as numbers by name."""
        ...

    def kind(self) -> str:
        """What was scored, in a few words."""
        ...

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        ...

    def by_class(self) -> tuple[list[tuple[str, float | None]], str]:
        """The figure that stands for each class, and what it is."""
        ...

    def class_table(self) -> tuple[list[str], list[list[Any]]]:
        """(columns, rows): class, how many there are, and figures, None where one is not defined."""
        ...


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
