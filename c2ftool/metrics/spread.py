"""Mean and spread over folds or seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean, sample standard deviation (None for one value) and number of values."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.std is None else f"{self.mean:.4f} ± {self.std:.4f} (n = {self.n})"


def mean_and_spread(values: Iterable[float]) -> Spread:
    """The mean, the sample standard deviation (n - 1 in the denominator) and the number of the values.

    The deviation is None for one value: it says nothing about spread. Raises ValueError for none.
    """
    known = [float(v) for v in values]
    if not known:
        raise ValueError("no values to average")
    mean = fmean(known)
    if len(known) == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1)), len(known))
