"""The minima and maxima that give the medians of all windows of a row, as few as sharing allows.

Two neighbouring windows have all but one element in common: their common elements are sorted once, as far as the
middle ones need it, and each window's own element is put in its place. The row is therefore held as two, its even and
its odd places, and what is computed is alike for every pair of windows: one step on whole rows serves them all. What
the pairs have in common again (sorted twos, fours, ..) is computed once, too.

Values are numbered: 0 is the even places, 1 the odd ones, number n + 2 what step n gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Read = tuple[int, int]  # (value, places further on in it)

MINIMUM: Final = 0
MAXIMUM: Final = 1


@dataclass(frozen=True)
class Step:
    """One minimum or maximum of two values. reach: how many places further on it looks in all."""

    kind: int
    first: Read
    second: Read
    reach: int


@dataclass(frozen=True)
class Medians:
    """Steps, and where their results are read.

    At place m `even` is of the window of places 2m to 2m + window - 1 and `odd` of the next one: the element number
    window // 2, from 0.
    """

    steps: tuple[Step, ...]
    even: Read
    odd: Read


@lru_cache(maxsize=256)
def medians(window: int) -> Medians:
    """The steps for windows of that many places, from 2."""
    return min((_Plan(by_powers).medians(window) for by_powers in (True, False)), key=lambda plan: len(plan.steps))


class _Plan:
    """Steps gathered while sorting; the same step at another place is not taken twice.

    by_powers: whether what is to be sorted is cut at a power of 2 or in the middle.
    """

    def __init__(self, by_powers: bool) -> None:
        self.by_powers = by_powers
        self.steps: list[Step] = []
        self.known: dict[tuple[int, Read, Read], Read] = {}
        self.ascending: dict[tuple[int, int], list[Read]] = {}

    def medians(self, window: int) -> Medians:
        """The steps for both windows, less those that no result depends on."""
        common = self.sorted(1, window - 1)
        below, above = common[window // 2 - 1], common[window // 2] if window > 2 else None
        results = []
        for own in (self.row(0), self.row(window)):
            capped = own if above is None else self.step(MINIMUM, above, own)
            results.append(self.step(MAXIMUM, below, capped))
        return self.needed(results)

    @staticmethod
    def row(place: int) -> Read:
        """Where the element of a place of the row is read."""
        return place % 2, place // 2

    def sorted(self, start: int, count: int) -> list[Read]:
        """Where the elements of `count` places from `start` are read in ascending order."""
        if count == 1:
            return [self.row(start)]
        key = (start % 2, count)
        if key not in self.ascending:
            split = 1 << ((count - 1).bit_length() - 1) if self.by_powers else count // 2
            self.ascending[key] = self.merged(
                self.sorted(start % 2, split), self.sorted(start % 2 + split, count - split)
            )
        return [(value, place + start // 2) for value, place in self.ascending[key]]

    def merged(self, a: list[Read], b: list[Read]) -> list[Read]:
        """Two ascending lists as one (Batcher's odd-even merge)."""
        if not a or not b:
            return a or b
        if len(a) == len(b) == 1:
            return [self.step(MINIMUM, a[0], b[0]), self.step(MAXIMUM, a[0], b[0])]
        even, odd = self.merged(a[::2], b[::2]), self.merged(a[1::2], b[1::2])
        result = even[:1]
        paired = min(len(odd), len(even) - 1)
        for low, high in zip(odd[:paired], even[1 : paired + 1], strict=True):
            result += [self.step(MINIMUM, low, high), self.step(MAXIMUM, low, high)]
        return result + odd[paired:] + even[paired + 1 :]

    def step(self, kind: int, a: Read, b: Read) -> Read:
        """Where the minimum or maximum of two values is read."""
        origin = min(a[1], b[1])
        first, second = sorted(((a[0], a[1] - origin), (b[0], b[1] - origin)))
        key = (kind, first, second)
        if key not in self.known:
            reach = max(place + (self.steps[value - 2].reach if value > 1 else 0) for value, place in (first, second))
            self.steps.append(Step(kind, first, second, reach))
            self.known[key] = (len(self.steps) + 1, 0)
        return self.known[key][0], origin

    def needed(self, results: list[Read]) -> Medians:
        """Only the steps that the results depend on, renumbered."""
        wanted = {value for value, _ in results}
        for value in range(len(self.steps) + 1, 1, -1):
            if value in wanted:
                wanted.update((self.steps[value - 2].first[0], self.steps[value - 2].second[0]))
        wanted |= {0, 1}
        place = {old: new for new, old in enumerate(sorted(wanted))}

        def renumbered(read: Read) -> Read:
            return place[read[0]], read[1]

        kept = (self.steps[value - 2] for value in sorted(wanted - {0, 1}))
        steps = tuple(Step(step.kind, renumbered(step.first), renumbered(step.second), step.reach) for step in kept)
        return Medians(steps, renumbered(results[0]), renumbered(results[1]))
