"""What a run saved against a baseline, and what the same phases without compression reach for the same cost.

Sources: Feng et al., "From Coarse to Fine", ICASSP 2024 (arXiv 2401.08415), section 3: the cost until the last phase
passes the baseline's best against the baseline's cost up to its best epoch. The paper also counts rows that never
pass; here those are "not reached". The control is not in the paper: a new phase begins with a full learning rate, so
part of a gain may come from the restart alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Rule = Literal["first_beat", "end"]
_ROUNDING = 1 + 1e-9  # sums of the same amounts in another order are still within a budget


@dataclass(frozen=True)
class Point:
    """One evaluation of a run on the validation clips, with what its training had taken by then."""

    phase: str
    final: bool  # whether it lies in the run's last phase
    epochs: float  # trained so far, over the run
    flops: float  # of training so far, over the run
    seconds: float  # of training so far, over the run
    rate_sum: float  # learning rate x epochs, summed over the steps so far
    value: float  # the metric, larger is better; NaN where it is not defined


@dataclass(frozen=True)
class Savings:
    """What a run saved by a rule. Shares are of the baseline's cost: 0.583 is 58.3 %, negative where it cost more."""

    rule: Rule
    reached: bool  # whether the run has the point that the rule asks for; without it there are no shares
    flops: float | None  # None: not reached, or the baseline's cost is nothing or not known
    seconds: float | None
    run: Point | None  # the evaluations that were compared
    baseline: Point
    note: str  # a sentence in words


@dataclass(frozen=True)
class Control:
    """The best evaluations of a control within what a run had; None where it has none."""

    at_equal_cost: Point | None  # within the run's training FLOPs
    at_equal_rate: Point | None  # within the run's summed learning rate


def first_beat(run: Sequence[Point], target: float) -> Point | None:
    """The first evaluation of the last phase whose value exceeds the target, None if none does; a tie does not."""
    return next((p for p in run if p.final and math.isfinite(p.value) and p.value > target), None)


def best(points: Iterable[Point]) -> Point | None:
    """The evaluation with the largest finite value, the earliest of equal ones; None where no value is finite."""
    return max((p for p in points if math.isfinite(p.value)), key=lambda p: p.value, default=None)


def savings(run: Sequence[Point], baseline: Sequence[Point], rule: Rule) -> Savings:
    """What the run saved; evaluations are in the order in which they were made.

    `first_beat`: the run's cost until the last phase first passes the baseline's best, against the baseline's cost up
    to that best. `end`: both runs whole; values do not matter and may be NaN. Raises ValueError if the baseline has no
    evaluation to compare with: none at all, or for `first_beat` none with a finite value.
    """
    if not baseline:
        raise ValueError("the baseline has no evaluation")
    if rule == "end":
        reference, point = baseline[-1], run[-1] if run else None
        return _compared(rule, point, reference, _end_note(run, baseline))
    top = best(baseline)
    if top is None:
        raise ValueError("no evaluation of the baseline has a finite value")
    point = first_beat(run, top.value)
    return _compared(rule, point, top, _beat_note(run, point, top))


def control(run: Sequence[Point], control_points: Sequence[Point]) -> Control:
    """The control's best evaluations within the whole run's training FLOPs and within its summed learning rate."""
    if not run:
        return Control(None, None)
    flops, rate = run[-1].flops * _ROUNDING, run[-1].rate_sum * _ROUNDING
    return Control(
        best(p for p in control_points if p.flops <= flops), best(p for p in control_points if p.rate_sum <= rate)
    )


def _compared(rule: Rule, point: Point | None, reference: Point, note: str) -> Savings:
    if point is None:
        return Savings(rule, False, None, None, None, reference, note)
    flops, seconds = _share(point.flops, reference.flops), _share(point.seconds, reference.seconds)
    if flops is None:
        note += "; no share of FLOPs, as " + _why_none(point.flops, reference.flops)
    return Savings(rule, True, flops, seconds, point, reference, note)


def _share(spent: float, reference: float) -> float | None:
    return 1 - spent / reference if math.isfinite(spent) and math.isfinite(reference) and reference > 0 else None


def _why_none(spent: float, reference: float) -> str:
    known = math.isfinite(spent) and math.isfinite(reference)
    return "the baseline had not trained by then" if known else "they are not known for both"


def _beat_note(run: Sequence[Point], point: Point | None, top: Point) -> str:
    last = [p for p in run if p.final]
    if point is not None:
        passed = f"passed the baseline's best ({_text(top.value)}, epoch {_epochs(top)})"
        return f"{passed} at epoch {_epochs(point)} of {_epochs(run[-1])}"
    most, before = best(last), best(p for p in run if not p.final)
    if not last:
        reason = f"no evaluation in the last phase to compare with {_text(top.value)}"
    elif most is None:
        reason = f"no finite value in the last phase to compare with {_text(top.value)}"
    else:
        value, target = _apart(most.value, top.value)
        reason = f"best {value} against {target}" + (", a tie" if most.value == top.value else "")
    if before is not None and before.value > top.value:
        value, _ = _apart(before.value, top.value)
        reason += f" ({value} in phase {before.phase} does not count: it is not the last)"
    return f"not reached: {reason}"


def _end_note(run: Sequence[Point], baseline: Sequence[Point]) -> str:
    if not run:
        return "not reached: the run has no evaluation"
    note = f"whole runs compared: {_epochs(run[-1])} against {_epochs(baseline[-1])} epochs"
    mine, theirs = best(run), best(baseline)
    if mine is None or theirs is None:
        return note
    value, target = _apart(mine.value, theirs.value)
    return f"{note}; best {value} against {target}"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Two values in as few figures, from three, as tell them apart; equal ones in three."""
    figures = next((n for n in range(3, 17) if _text(first, n) != _text(second, n)), 17 if first != second else 3)
    return _text(first, figures), _text(second, figures)


def _text(value: float, figures: int = 3) -> str:
    return f"{value:.{figures}g}"


def _epochs(point: Point) -> str:
    return f"{round(point.epochs, 2):g}"
