"""The loop. All of training, for every task:

for each phase, from where the clock stands:
    cross into it: tensors fitted to its token grid, moments kept where asked; save
    enter it: front end, masks, augmentation, optimiser, schedule      (their state restored, if resumed inside)
    for each step that is left:
        batch    = next of the loader                                  the wait is timed
        prepared = log-mel and augmentation of the batch               on the device, float32
        norms    = the loss terms' denominators, summed over ranks
        for each micro-batch:
            terms = objective(micro-batch)
            backward of  sum of weight x term / norm
        all finite?  clip, optimiser step, EMA     else: skip the step; too many in a row: stop (76)
        tick
        every so often: log, watch for collapse, average, evaluate (keep the best), save
        a stop rule fired?  the phase ends here
        asked to stop?  save, leave (75 or 130)
    keep the phase's weights
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from c2ftool.data.batch import HostBatch
from c2ftool.data.loader import TrainLoader
from c2ftool.data.order import local_places
from c2ftool.data.taught import Taught
from c2ftool.draws import Draw
from c2ftool.engine.averaging import Averager
from c2ftool.engine.boundary import cross
from c2ftool.engine.checkpoint import Checkpoints
from c2ftool.engine.clock import Clock
from c2ftool.engine.device import Device, wrapped
from c2ftool.engine.optimizer import Moments, build_optimizer, set_moments, set_rate
from c2ftool.engine.reporter import Reporter
from c2ftool.engine.schedule import learning_rate
from c2ftool.engine.scoring import Scoring, improves
from c2ftool.engine.selection import Selection
from c2ftool.engine.signals import BY_HAND, StopFlag
from c2ftool.engine.stopping import by_budget, by_metric
from c2ftool.errors import DataError, GuardError, InterruptedByHand, Preempted
from c2ftool.objectives.base import Objective
from c2ftool.spec.compression import words
from c2ftool.spec.mixing import mixing
from c2ftool.spec.resolved import Resolved, ResolvedEnsemble, ResolvedPhase

# Steps between asking all ranks whether one was told to stop; a rank alone asks itself every step.
_ASK_EVERY = 5


@dataclass
class Loop:
    """One training run on one rank. `run` trains to the end, or leaves by an exception after saving."""

    resolved: Resolved
    selection: Selection
    objective: Objective
    placed: nn.Module  # the objective, wrapped for data parallelism where there are several ranks
    device: Device
    checkpoints: Checkpoints
    reporter: Reporter
    scoring: Scoring | None
    record: dict[str, Any]  # what weights files say of themselves
    threads: int
    taken: frozenset[str] = frozenset()  # tensors that stay as the parent has them, and are not saved
    taught: Taught | None = None  # an ensemble's logits, where there is one to learn from
    clock: Clock = field(default_factory=Clock)
    restored: dict[str, Any] | None = None  # optimiser and scaler state, when resumed inside a phase
    averager: Averager = field(default_factory=Averager)
    _carried: Moments = field(default_factory=dict)
    _optimizer: torch.optim.Optimizer | None = None
    _scaler: GradScaler | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Train all phases that are left."""
        with StopFlag() as stop:
            for index in range(self.clock.phase, len(self.resolved.phases)):
                crossed = index > self.clock.phase
                if crossed:
                    self._cross(index)
                self._enter(index, self.resolved.phases[index])
                if crossed:
                    self.save()
                if not self.clock.finished:  # it is, where a finished run was resumed
                    self._phase(index, self.resolved.phases[index], stop)

    # --- a phase ---------------------------------------------------------------------------------------------------

    def _cross(self, index: int) -> None:
        """Leave the phase before: fit the weights to this one's token grid."""
        before, phase = self.resolved.phases[index - 1], self.resolved.phases[index]
        crossing = cross(self.objective, self._optimizer, before, phase, self.resolved.seed)
        self._carried, self._optimizer = crossing.moments, None
        self.device.forget_compiled()
        if crossing.replaced:
            self.placed = self.objective  # the former wrapper goes before a new one is made
            self.placed = wrapped(self.objective, self.device)
        self.averager = Averager()
        self.clock.best = None  # the best of the last phase is what is scored: a coarse one is not what was asked for
        self.clock.enter(index)
        self.reporter.crossed(self.clock, phase, crossing)

    def _enter(self, index: int, phase: ResolvedPhase) -> None:
        if not self.clock.steps:
            self.clock.enter(index)
        self.objective.begin_phase(phase, index)
        self.objective.train()
        self._optimizer = build_optimizer(self.objective.trainable(), phase.optimizer, *self.objective.layers())
        set_moments(self._optimizer, self._carried)
        self._carried = {}
        self._scaler = self.device.scaler()
        if self.restored is not None:
            self._optimizer.load_state_dict(self.restored["optimizer"])
            self._scaler.load_state_dict(self.restored["scaler"])
            self.objective.load_extra_state(
                {name: value.to(self.device.torch) for name, value in self.restored["extra"].items()}
            )
            self.averager = Averager.restore(self.restored["average"])
            self.restored = None
        self.reporter.phase_started(index, phase, self.clock)

    def begin(self, index: int, steps: int) -> Any:
        """Enter a phase; batches of its data for so many steps, which may be more than the phase has."""
        phase = self.resolved.phases[index]
        self._enter(index, phase)
        return self._loader(index, phase).steps(self.clock.step, steps)

    def _phase(self, index: int, phase: ResolvedPhase, stop: StopFlag) -> None:
        batches = self._loader(index, phase).steps(self.clock.step, phase.steps)
        try:
            why = None
            for step in range(self.clock.step, phase.steps):
                self.step(index, step, phase, batches)
                why = self._now_and_then(phase)
                if why is not None:
                    break
                self._heed(stop)
        finally:
            batches.close()  # type: ignore[attr-defined]
        self.clock.ended.append(why or "length")
        self.reporter.phase_ended(self.clock)
        if self.device.main:
            self.checkpoints.save_weights(phase.name, self._weights(), self._record())
            if self.averager.count:
                record = self._record() | {"averaged": self.averager.count}
                self.checkpoints.save_weights("average", self.averager.mean, record)
            elif phase.average is not None:
                self.reporter.warn(f"phase {phase.name} ended before the first of its weights could be averaged")
        if index + 1 == len(self.resolved.phases):
            self.save()

    def _loader(self, index: int, phase: ResolvedPhase) -> TrainLoader:
        data, seed = self.resolved.data, self.resolved.seed
        mixed = mixing(phase.augment)
        return TrainLoader(
            source=self.selection.source,
            stream=self.selection.stream(data, seed, index, phase.batch, phase.label_frames),
            batch=phase.batch,
            places=local_places(phase.batch, self.device.rank, self.device.world, mixed.unit),
            samples=phase.frontend.samples,
            random_crop=data.crop == "random",
            classes=self.selection.classes,
            threads=self.threads,
            pin=self.device.cuda,
            grid=self.selection.grid(data, phase.label_frames),
            taught=self.taught if isinstance(phase.teacher, ResolvedEnsemble) else None,
            partners=mixed.from_set,
        )

    # --- a step ----------------------------------------------------------------------------------------------------

    def step(self, index: int, step: int, phase: ResolvedPhase, batches: Any) -> None:
        """One optimiser step on the next batch."""
        assert self._optimizer is not None and self._scaler is not None
        started = time.perf_counter()
        host: HostBatch = next(batches)
        waited = time.perf_counter() - started
        batch = host.to(self.device.torch)
        draw = Draw(self.resolved.seed, index, step, batch.places)
        rate = learning_rate(phase.schedule, phase.optimizer.lr, step)
        set_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)

        prepared = self.objective.prepare_batch(batch, draw)
        names = list(prepared.norms)
        norms = self.device.sum_over_ranks(torch.stack([prepared.norms[n].double() for n in names]))
        norms = norms.clamp(min=1)  # reduction by labels, in a step whose clips have none
        sums = torch.zeros(len(names), dtype=torch.float64, device=self.device.torch)
        rows = len(batch.places)
        micro = min(self.resolved.micro_batch or rows, rows)
        for start in range(0, rows, micro):
            part = slice(start, min(start + micro, rows))
            last = part.stop == rows
            with self._without_exchange(last):
                with self.device.autocast():
                    targets = {name: target[part] for name, target in prepared.targets.items()}
                    terms: dict[str, Tensor] = self.placed(prepared.features[part], targets, draw.select(part))
                values = torch.stack([terms[name].double() for name in names])
                weights = torch.tensor([self.objective.weights[n] for n in names], device=self.device.torch)
                # data parallelism averages gradients over ranks; the norms are sums over ranks already
                loss = (values * weights / norms).sum() * self.device.world
                self._scaler.scale(loss).backward()
            sums += values.detach()

        self._scaler.unscale_(self._optimizer)
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        if phase.clip is None:  # clipping to infinity would still multiply every gradient
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(parameters, phase.clip)
        *means, gradient = torch.cat([self.device.sum_over_ranks(sums) / norms, norm.double()[None]]).tolist()
        losses = dict(zip(names, means, strict=True))
        finite = all(map(math.isfinite, [*means, gradient]))
        if finite:
            self._scaler.step(self._optimizer)
            self.objective.after_step(step + 1)
        if self._scaler.is_enabled():
            self._scaler.update()
        seconds = time.perf_counter() - started
        self.clock.skipped = 0 if finite else self.clock.skipped + 1
        self.clock.skipped_total += not finite
        self.clock.tick(phase.batch, seconds, waited, rate * phase.batch / phase.clips_per_epoch)
        total = sum(self.objective.weights[n] * v for n, v in losses.items())
        figures = {"loss": total, **({f"loss/{n}": v for n, v in losses.items()} if len(losses) > 1 else {})}
        self.reporter.step(self.clock, {**figures, "lr": rate, "gradient_norm": gradient}, phase.batch)
        if not finite:
            self._not_finite(losses, gradient)

    def _without_exchange(self, last: bool) -> Any:
        """Gradients are exchanged between ranks in the last micro-batch only."""
        if isinstance(self.placed, DistributedDataParallel) and not last:
            return self.placed.no_sync()
        return nullcontext()

    def _not_finite(self, losses: dict[str, float], gradient: float) -> None:
        """The rule for non-finite steps: skipped, weights untouched; after `train.non_finite` in a row the run stops.

        A loss scaler finds its scale by such steps; they count here only where the loss itself is not finite.
        """
        assert self._scaler is not None
        if self._scaler.is_enabled() and all(map(math.isfinite, losses.values())):
            self.clock.skipped = 0
            return
        what = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        where = f"phase {self.resolved.phases[self.clock.phase].name}, step {self.clock.step}"
        self.reporter.warn(f"{where}: not finite ({what}, gradient norm {gradient:g}); the step is skipped")
        if self.clock.skipped > self.resolved.non_finite:
            raise GuardError(
                f"{self.clock.skipped} steps in a row were not finite ({what}, gradient norm {gradient:g})",
                place=where,
                cure="The last checkpoint is whole. Lower train.optimizer.lr, set train.clip, or use "
                "train.precision=fp32; to allow more such steps raise train.non_finite.",
            )

    # --- between steps ---------------------------------------------------------------------------------------------

    def _now_and_then(self, phase: ResolvedPhase) -> str | None:
        """What is done beside steps. Why the phase ends here; None while it goes on."""
        clock = self.clock
        why = self._budget(phase) or ("length" if clock.step == phase.steps else None)
        if self.reporter.due(clock.total) or why:
            self.reporter.log(clock, self._watch(clock.step))
        if self.device.main and phase.average is not None and phase.average.due(clock.step):
            self.averager.add(self._weights())
        if self.scoring is not None and phase.evaluate_every and (why or clock.step % phase.evaluate_every == 0):
            values = self._evaluate(phase)
            why = why or by_metric(phase.stop, clock, values)
        if why:
            return why  # saved where the next phase begins, or the run ends
        now = phase.checkpoint_every and clock.step % phase.checkpoint_every == 0
        late = time.monotonic() - self._saved_at > self.resolved.checkpoints.minutes.seconds
        if now or (clock.step % _ASK_EVERY == 0 and self.device.max_over_ranks(int(late))):
            self.save()
        return None

    def _budget(self, phase: ResolvedPhase) -> str | None:
        """Why a budget ends the phase, on all ranks alike; their clocks differ."""
        if phase.stop is None or phase.stop.kind != "budget":
            return None
        why = by_budget(phase.stop, self.clock, self.reporter.spent(self.clock))
        return (why or "budget") if self.device.max_over_ranks(int(why is not None)) else None

    def _watch(self, step: int) -> dict[str, float]:
        """The objective's own figures; all ranks leave together where one sees a collapse."""
        fault: GuardError | None = None
        figures: dict[str, float] = {}
        try:
            figures = self.objective.watch(step)
        except GuardError as seen:
            fault = seen
        if self.device.max_over_ranks(int(fault is not None)):
            raise fault or GuardError("another rank saw the representations collapse")
        return figures

    def _evaluate(self, phase: ResolvedPhase) -> dict[str, float]:
        assert self.scoring is not None
        try:
            values = self.scoring.validate(self.objective.student, phase)
        except DataError as fault:  # scores that are not finite: the weights are not
            where = f"phase {phase.name}, step {self.clock.step}"
            cure = "The last checkpoint is whole. Lower train.optimizer.lr, or set train.clip."
            raise GuardError(f"evaluation failed: {fault.message}", place=where, cure=cure) from None
        select = self.resolved.select
        best = False
        if select is not None and improves(values.get(select), self.clock.best):
            best = True
            self.clock.best = {
                "metric": select,
                "value": values[select],
                "step": self.clock.total,
                "phase": phase.name,
            }
            if self.device.main:
                self.checkpoints.save_weights("best", self._weights(), self._record() | {"best": self.clock.best})
        self.reporter.evaluated(self.clock, values, best)
        return values

    def _heed(self, stop: StopFlag) -> None:
        """Save and leave where a signal asked for it; all ranks at the same step."""
        if self.device.world > 1 and self.clock.step % _ASK_EVERY:
            return
        asked = self.device.max_over_ranks(stop.asked)
        if not asked:
            return
        self.save()
        by_hand = asked == BY_HAND
        self.reporter.interrupted(self.clock, "by hand" if by_hand else "by a signal")
        where = f"phase {self.resolved.phases[self.clock.phase].name}, step {self.clock.step}"
        error = InterruptedByHand if by_hand else Preempted
        raise error("stopped; the state is saved", place=where, cure="Go on with the same command and --resume.")

    # --- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the exact state as the newest checkpoint; ranks wait for it."""
        assert self._optimizer is not None and self._scaler is not None
        if self.device.main:
            state = {
                "clock": self.clock.state(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "extra": self.objective.extra_state(),
                "average": self.averager.state(),
                "threads": torch.get_num_threads(),
                "parents": self.record["parents"],
                "on": self.record.get("on"),
            }
            self.reporter.sync()
            self.checkpoints.save(
                self.clock.total, self._weights(), self._record(), state, self.objective.teacher_weights()
            )
        self._saved_at = time.monotonic()
        self.device.barrier()

    def _weights(self) -> dict[str, Tensor]:
        """What is saved of the student."""
        state = self.objective.student.state_dict().items()
        return {name: value.detach().cpu().contiguous() for name, value in state if name not in self.taken}

    def _record(self) -> dict[str, Any]:
        """The weights' record at this moment."""
        phase = self.resolved.phases[self.clock.phase]
        return self.record | {
            "phase": phase.name,
            "step": self.clock.total,
            "frontend": phase.full_frontend.model_dump(),
            "compression": words(phase.compression),
            "tokens": phase.tokens.model_dump() | {"grid": [*phase.tokens.grid]},
        }
