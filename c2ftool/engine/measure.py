"""Timing real steps of each phase: loading, front end, augmentation, forward, backward, optimiser (`--measure`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from c2ftool.data.taught import Taught
from c2ftool.engine.checkpoint import Checkpoints
from c2ftool.engine.device import Device, place
from c2ftool.engine.loop import Loop
from c2ftool.engine.plan import Plan
from c2ftool.engine.reporter import Reporter
from c2ftool.errors import MissingError
from c2ftool.objectives.build import build_objective

_WARM = 3
_STEPS = (5, 30)  # at least, at most
_MOST = 10_000  # steps that batches are asked for
_SECONDS = 10.0  # of a phase, beyond the least
_SIDE = 2048  # of the matrices whose product is timed


@dataclass(frozen=True)
class Measured:
    """Steps of one phase. seconds: median of a step, data loading included. waited: of it, for data."""

    phase: str
    steps: int
    seconds: float
    waited: float
    clips: int  # of a step
    flops: float  # of a step, front end not included

    @property
    def rate(self) -> float:
        """FLOPs per second."""
        return self.flops / self.seconds


def measure(plan: Plan, device: Device, threads: int, say: Callable[[str], None]) -> tuple[list[Measured], float]:
    """(each phase's steps, FLOPs per second of a large matrix product in the same precision).

    Nothing is written. Raises MissingError where the data are not prepared here.
    """
    if plan.selection is None:
        raise MissingError(
            f"steps are timed on the data, and {plan.resolved.data.dataset!r} is not prepared here",
            cure="Prepare it, or name a set that is: data.dataset=demo",
        )
    return [_phase(plan, index, device, threads, say) for index in range(len(plan.costs))], _matmul_rate(device)


def _phase(plan: Plan, index: int, device: Device, threads: int, say: Callable[[str], None]) -> Measured:
    phase = plan.resolved.phases[index]
    with PhaseSteps(plan, index, device, threads) as steps:
        for _ in range(_WARM):
            steps.step()
        times = [steps.step()]
        while len(times) < _STEPS[1] and (len(times) < _STEPS[0] or sum(s for s, _ in times) < _SECONDS):
            times.append(steps.step())
    say(f"phase {phase.name}: {len(times)} steps timed")
    return Measured(
        phase=phase.name,
        steps=len(times),
        seconds=median(seconds for seconds, _ in times),
        waited=median(waited for _, waited in times),
        clips=phase.batch,
        flops=float(plan.costs[index].clip.training * phase.batch),
    )


class PhaseSteps:
    """Real steps of one phase, one at a time, from first weights; nothing is written.

    taught: the teachers' logits, where there are any to learn from; the phase is timed without them if not given.
    """

    def __init__(self, plan: Plan, index: int, device: Device, threads: int, taught: Taught | None = None) -> None:
        if plan.selection is None:
            raise ValueError("steps need the data of the plan")
        self._device, self._index, self._phase = device, index, plan.resolved.phases[index]
        objective = build_objective(plan.resolved, index)
        self._loop = Loop(
            resolved=plan.resolved,
            selection=plan.selection,
            objective=objective,
            placed=place(objective, device),
            device=device,
            checkpoints=Checkpoints(Path("unused"), 1),
            reporter=Reporter(plan.resolved, plan.costs, None),
            scoring=None,
            record={},
            threads=threads,
            taught=taught,
        )
        self._loop.clock.enter(index)
        self._batches = self._loop.begin(index, _MOST)

    def step(self) -> tuple[float, float]:
        """(seconds of one step, those of them spent waiting for data)."""
        clock = self._loop.clock
        waited, started = clock.waited[self._index], time.perf_counter()
        self._loop.step(self._index, clock.step, self._phase, self._batches)
        if self._device.cuda:
            torch.cuda.synchronize(self._device.torch)
        return time.perf_counter() - started, clock.waited[self._index] - waited

    def __enter__(self) -> PhaseSteps:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()


@torch.no_grad()
def _matmul_rate(device: Device) -> float:
    """FLOPs per second of a square matrix product, the best of several."""
    a = torch.randn(_SIDE, _SIDE, device=device.torch)
    b = torch.randn(_SIDE, _SIDE, device=device.torch)
    best = 0.0
    for _ in range(8):
        with device.autocast():
            if device.cuda:
                torch.cuda.synchronize(device.torch)
            started = time.perf_counter()
            a @ b
            if device.cuda:
                torch.cuda.synchronize(device.torch)
        best = max(best, 2 * _SIDE**3 / (time.perf_counter() - started))
    return best
