"""What a spec would do and cost, without doing it: `--dry-run` and `c2f flops`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from c2ftool.costs.savings import Point, savings
from c2ftool.data.known import known_clips
from c2ftool.engine.adapters import find_adapter
from c2ftool.engine.baseline import Baseline, child_of, find_baseline, require_same_data
from c2ftool.engine.cost import Parameters, PhaseCost, against_whole, count_parameters, memory, phase_costs
from c2ftool.engine.selection import Selection, facts, select
from c2ftool.engine.train import Options, prepare, run_name
from c2ftool.errors import MissingError, UsageError
from c2ftool.models.weights import resolve_weights
from c2ftool.spec.amounts import Length
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import Loaded
from c2ftool.spec.resolve import DataFacts, children, read_resolved, resolve
from c2ftool.spec.resolved import Resolved, ResolvedPhase
from c2ftool.spec.root import Spec

What = Literal["forward", "training"]


@dataclass(frozen=True)
class Plan:
    """A resolved spec and what it takes."""

    resolved: Resolved
    selection: Selection | None  # None where published counts stand for a set that is not prepared here
    costs: list[PhaseCost]
    children: int  # runs of the study; 0 for a single run

    @property
    def flops(self) -> int:
        """Training FLOPs of one run."""
        return sum(cost.training for cost in self.costs)

    def parameters(self) -> Parameters:
        """How many there are, and learn."""
        return count_parameters(self.resolved)

    def against_whole(self) -> tuple[float, float] | None:
        """(FLOPs, memory) of the dearest phase's step, over those of training the whole network; None where it is."""
        return against_whole(self.resolved)

    def memory(self) -> list[int]:
        """Bytes of each phase's step."""
        return [memory(self.resolved, phase).total for phase in self.resolved.phases]


@dataclass(frozen=True)
class PlannedSavings:
    """Shares of FLOPs saved, by the lengths in the specs.

    first_beat: the paper's rule by the published lengths, if any, counted over forward passes as the paper counts;
    first_beat_training: the same over forward and backward passes, where wide patches save a little more.
    """

    baseline: str
    end: float
    first_beat: float | None
    first_beat_training: float | None
    lengths: str  # in words: what first_beat compares


def plan(loaded: Loaded, options: Options) -> Plan:
    """What would be run, without running it. Of a study, the first child."""
    one, inside, runs = _first(loaded, options)
    resolved, selection = prepare(one, inside)
    reference = resolved.model.weights
    if reference is not None and selection is not None and reference.startswith(("file:", "run:")):
        resolve_weights(reference, options.runs_root)  # nothing is fetched for a plan
    for item in resolved.adapters:
        if item.weights is not None:
            find_adapter(item, options.runs_root)
    return Plan(resolved, selection, phase_costs(resolved), runs)


def cost_plan(loaded: Loaded, options: Options) -> Plan:
    """As `plan`, for the cost alone: a set that is not prepared here may be one whose counts are published.

    What the spec is compared with is not looked at.
    """
    one, _, runs = _first(loaded, options)
    data = one.spec.data
    try:
        selection = select(data, options.data_root)
        known = facts(selection, data)
    except MissingError:
        counts = _published(one.spec)
        if counts is None:
            raise
        selection, known = None, counts
    resolved = resolve(one.spec, known)
    return Plan(resolved, selection, phase_costs(resolved), runs)


def _first(loaded: Loaded, options: Options) -> tuple[Loaded, Options, int]:
    """(the spec of the first child, its options, how many children); a single run is its own, and has 0."""
    runs = children(loaded.spec)
    if not runs:
        return loaded, options, 0
    suffix, overrides = runs[0]
    inside = replace(options, run=f"{run_name(loaded.spec, options)}/{suffix}")
    return loaded.with_overrides(overrides), inside, len(runs)


def _published(spec: Spec) -> DataFacts | None:
    known = known_clips(spec.data)
    if known is None:
        return None
    size = BACKBONES[spec.model.backbone]
    return DataFacts(
        name=spec.data.dataset,
        classes=[str(number) for number in range(known.classes)],
        sample_rate=spec.frontend.sample_rate or size.frontend.sample_rate,
        multi_label=known.multi_label,
        mean=0.0,
        std=1.0,
        fingerprint="",
        clips_train=known.train,
        clips_valid=known.valid,
        clips_test=known.test,
    )


def planned_savings(
    loaded: Loaded, plan_: Plan, reference: str | None, options: Options
) -> tuple[Plan, PlannedSavings]:
    """(the baseline's plan, savings against it). reference: of the baseline; the spec's own if not given.

    Raises UsageError where none is named or it has other data, MissingError where it is not known.
    """
    own = loaded.spec.savings
    if reference is None:
        if own is None:
            raise UsageError("no baseline is named", cure="Give --baseline SPEC, or `savings: {baseline: SPEC}`.")
        reference = own.baseline
    _, inside, runs = _first(loaded, options)
    child = child_of(inside.run) if runs and inside.run is not None else None
    baseline = find_baseline(reference, options.runs_root, child, loaded.path.parent)
    theirs = _plan_of(baseline, options)
    if baseline.loaded is not None:  # the specs are compared: what became of a run does not matter here
        baseline = replace(baseline, run=None)
    require_same_data(plan_.resolved.data, baseline)
    first_beat, training, lengths = None, None, ""
    if own is not None and own.baseline_best is not None and own.reached is not None:
        first_beat = _published_saving(plan_, theirs, own.baseline_best, own.reached, "forward")
        training = _published_saving(plan_, theirs, own.baseline_best, own.reached, "training")
        lengths = f"the last phase surpassing after {own.reached}, the baseline at its best after {own.baseline_best}"
    whole = savings([_end(plan_)], [_end(theirs)], "end").flops
    assert whole is not None
    return theirs, PlannedSavings(reference, whole, first_beat, training, lengths)


def _plan_of(baseline: Baseline, options: Options) -> Plan:
    if baseline.loaded is not None:
        return cost_plan(baseline.loaded, options)
    assert baseline.run is not None
    resolved = read_resolved(baseline.run / "resolved.yaml")
    return Plan(resolved, None, phase_costs(resolved), 0)


def _published_saving(run: Plan, baseline: Plan, best: Length, reached: Length, what: What) -> float | None:
    """The paper's rule with its lengths: trained until the baseline was at its best, and until that was passed."""
    *coarse, last = zip(run.resolved.phases, run.costs, strict=True)
    spent = sum(_per_clip(cost, what) * cost.clips for _, cost in coarse) + _cost_of(*last, reached, what)
    left, reference = best, 0
    for phase, cost in zip(baseline.resolved.phases, baseline.costs, strict=True):
        steps = min(phase.steps, left.steps(batch=phase.batch, clips=phase.clips_per_epoch))
        reference += _per_clip(cost, what) * phase.batch * steps
        epochs = left.exact_steps(batch=phase.batch, clips=phase.clips_per_epoch) - steps
        left = Length(max(epochs, Fraction(0)), "steps")
    return savings([_point(spent, 1.0)], [_point(reference, 0.0)], "first_beat").flops


def _per_clip(cost: PhaseCost, what: What) -> int:
    return cost.clip.forward if what == "forward" else cost.clip.training


def _cost_of(phase: ResolvedPhase, cost: PhaseCost, length: Length, what: What) -> int:
    """FLOPs of a stretch of a phase."""
    return _per_clip(cost, what) * phase.batch * length.steps(batch=phase.batch, clips=phase.clips_per_epoch)


def _end(plan_: Plan) -> Point:
    return _point(plan_.flops, 0.0)


def _point(flops: int, value: float) -> Point:
    """A moment of which only the cost is known, and whether it is better than another."""
    return Point(phase="", final=True, epochs=0.0, flops=float(flops), seconds=0.0, rate_sum=0.0, value=value)
