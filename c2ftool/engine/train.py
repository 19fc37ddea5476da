"""A training run from spec to report: select the clips, resolve, build, restore, loop, score, write down."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from c2ftool import __version__
from c2ftool.adapters.insert import item_of
from c2ftool.data.taught import Taught
from c2ftool.engine.adapters import load_adapters
from c2ftool.engine.attention_report import attention_pictures
from c2ftool.engine.baseline import Baseline, best_of_run, child_of, find_baseline, require_same_data
from c2ftool.engine.checkpoint import Checkpoints
from c2ftool.engine.clock import Clock
from c2ftool.engine.cost import PhaseCost, phase_costs
from c2ftool.engine.device import Device, close_device, open_device, place
from c2ftool.engine.ensemble import find_ensemble, open_teachers
from c2ftool.engine.loop import Loop
from c2ftool.engine.metrics_log import MetricsLog, read_metrics
from c2ftool.engine.progress import Progress
from c2ftool.engine.reporter import Outlets, Reporter
from c2ftool.engine.result import Outcome, final_score, phase_rows, report
from c2ftool.engine.run_folder import RunFolder, machine, open_run
from c2ftool.engine.savings import saved
from c2ftool.engine.scoring import Scoring
from c2ftool.engine.selection import Selection, facts, select
from c2ftool.engine.start import load_start, require_reference
from c2ftool.engine.tracking import Tracker
from c2ftool.errors import DataError, InterruptedByHand, MissingError, Preempted, UsageError
from c2ftool.models.weights import load_into, resolve_weights, whole
from c2ftool.objectives.base import Objective
from c2ftool.objectives.build import build_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import Loaded
from c2ftool.spec.resolve import as_data, read_resolved, resolve, resolved_hash
from c2ftool.spec.resolved import Resolved
from c2ftool.spec.root import Spec


@dataclass(frozen=True)
class Options:
    """What the command line says beside the spec."""

    data_root: Path
    runs_root: Path
    run: str | None = None
    resume: bool = False
    micro_batch: int | None = None
    device: str | None = None
    command: list[str] = field(default_factory=list)
    quiet: bool = False


def run_name(spec: Spec, options: Options) -> str:
    """The name of the run's folder: as asked for, else the spec's, of a control with `-restart` behind it."""
    return options.run or (f"{spec.name}-restart" if spec.control == "restart" else spec.name)


def prepare(loaded: Loaded, options: Options) -> tuple[Resolved, Selection]:
    """The resolved spec and its clips."""
    selection = select(loaded.spec.data, options.data_root)
    ensemble = find_ensemble(loaded.spec, options.runs_root, options.data_root)
    name = run_name(loaded.spec, options)
    baseline = baseline_of(loaded, options.runs_root, name)
    found = {} if baseline is None or baseline.run is None else best_of_run(baseline.run)
    if options.resume:  # what a run set out to surpass stays, whatever became of the baseline since
        found |= _targets_of(options.runs_root / name)
    known = facts(selection, loaded.spec.data)
    teachers = ensemble.fingerprint if ensemble is not None else ""
    resolved = resolve(loaded.spec, replace(known, baseline_best=found, teachers=teachers))
    if baseline is not None and baseline.loaded is not None and resolved.savings is not None:
        # the run is scored from other folders than the one that its spec lies in
        place = resolved.savings.model_copy(update={"baseline": baseline.lasting})
        resolved = resolved.model_copy(update={"savings": place})
    size = BACKBONES[resolved.model.backbone]
    require_reference(resolved.model.weights, size)
    if options.micro_batch is not None:
        if size.batch_norm and resolved.model.freeze == "none":
            raise UsageError(
                f"{size.name} has batch norm, whose statistics would be those of a micro-batch",
                cure="Leave --micro-batch out: losses must not depend on it.",
            )
        resolved = resolved.model_copy(update={"micro_batch": options.micro_batch})
    return resolved, selection


def baseline_of(loaded: Loaded, runs_root: Path, run: str) -> Baseline | None:
    """What `savings` compares the run with. Raises MissingError where it is not known, UsageError for other data."""
    spec = loaded.spec
    if spec.savings is None:
        return None
    baseline = find_baseline(spec.savings.baseline, runs_root, child_of(run), loaded.path.parent)
    require_same_data(spec.data, baseline)
    return baseline


def train(loaded: Loaded, options: Options) -> Outcome | None:
    """Train the spec, or each child of a study; None on ranks beside the first."""
    from c2ftool.engine.study import is_study, run_study

    settings = loaded.spec.train
    device = open_device(options.device, settings.precision, settings.compile)
    outcome = run_study(loaded, options, device) if is_study(loaded.spec) else train_one(loaded, options, device)
    close_device(device)
    return outcome


def train_one(loaded: Loaded, options: Options, device: Device) -> Outcome | None:
    """Train a single run, or go on with it."""
    resolved, selection = prepare(loaded, options)
    _require_targets(resolved, loaded, options)
    path = options.runs_root / run_name(loaded.spec, options)
    reference = resolved.model.weights
    if reference is not None and not path.exists():
        resolve_weights(reference, options.runs_root)  # before there is a folder that a wrong name would leave behind
    costs = phase_costs(resolved)
    fresh = not path.exists()
    folder, progress = None, None
    try:
        with ExitStack() as stack:
            if device.main:
                info = {"command": options.command, "device": device.name(), "precision": device.precision, **machine()}
                folder = stack.enter_context(
                    open_run(path, resume=options.resume, spec_text=loaded.text, resolved=resolved, info=info)
                )
                progress = Progress(folder.log, options.quiet)
                stack.callback(progress.close)
            device.barrier()
            run = _Run(loaded.spec, resolved, selection, device, options, costs, path, folder, progress)
            return run.go()
    except (DataError, MissingError, UsageError):
        # weights or teachers that cannot be used: the next try has the name again
        if folder is not None and fresh and not _begun(folder):
            shutil.rmtree(path, ignore_errors=True)
        raise


def _begun(folder: RunFolder) -> bool:
    """Whether a run has come to anything."""
    measured = folder.metrics.exists() and folder.metrics.stat().st_size > 0
    return measured or any(folder.checkpoints.glob("*"))


def _targets_of(run: Path) -> dict[str, float]:
    """Metric -> value that the phases of a begun run are to surpass."""
    if not (run / "resolved.yaml").exists():
        return {}
    stops = [phase.stop for phase in read_resolved(run / "resolved.yaml").phases]
    return {str(stop.metric): stop.value for stop in stops if stop is not None and stop.value is not None}


def _require_targets(resolved: Resolved, loaded: Loaded, options: Options) -> None:
    """Raises MissingError where a phase is to surpass a baseline that has not been run."""
    for phase in resolved.phases:
        if phase.stop is not None and phase.stop.kind == "surpasses" and phase.stop.value is None:
            assert loaded.spec.savings is not None
            baseline = find_baseline(loaded.spec.savings.baseline, options.runs_root, beside=loaded.path.parent)
            raise MissingError(
                f"phase {phase.name} ends when it surpasses the best {phase.stop.metric} of {baseline.name}, and in "
                f"{options.runs_root} there is no finished run of that name with this metric",
                cure=f"Train it first: {baseline.train_it}; or give phases.{phase.name}.stop.value.",
            )


@dataclass
class _Run:
    """The parts of one run on one rank, put together."""

    spec: Spec
    resolved: Resolved
    selection: Selection
    device: Device
    options: Options
    costs: list[PhaseCost]
    path: Path
    folder: RunFolder | None  # on the first rank
    progress: Progress | None

    def go(self) -> Outcome | None:
        """Build, restore, train, score."""
        resolved, device = self.resolved, self.device
        checkpoints = Checkpoints(self.path / "checkpoints", resolved.checkpoints.keep)
        found = checkpoints.newest(self._say) if self.options.resume else None
        clock = Clock() if found is None else Clock.restore(found[1]["clock"])
        objective = build_objective(resolved, clock.phase)
        record, taken = self._record(objective, found)
        if found is not None:
            weights, state, _ = found
            weights = whole(weights, state, resolved.model.backbone, self.options.runs_root, where=str(self.path))
            load_into(objective.student, weights, where=str(self.path))
            if state["threads"] != torch.get_num_threads() and not device.cuda:
                self._say(
                    f"warning: {torch.get_num_threads()} threads now, {state['threads']} before: losses will not be "
                    "identical to the last bit"
                )
        threads = loader_threads(resolved, device)
        taught = self._taught(threads)  # before anything is written that a wrong teacher would leave behind
        outlets, tracker = self._outlets(clock.total if found else None)
        reporter = Reporter(resolved, self.costs, outlets)
        scores = resolved.supervised and len(self.selection.valid) > 0
        scoring = Scoring(self.selection, resolved, device, threads)
        loop = Loop(
            resolved=resolved,
            selection=self.selection,
            objective=objective,
            placed=place(objective, device),
            device=device,
            checkpoints=checkpoints,
            reporter=reporter,
            scoring=scoring if scores else None,
            record=record,
            taken=taken,
            threads=threads,
            taught=taught,
            clock=clock,
            restored=found[1] if found is not None else None,
        )
        if found is not None:
            self._say(f"resumed at step {clock.total}")
        status = "FAILED"
        try:
            loop.run()
            outcome = self._finish(objective.student, loop, scoring, reporter, tracker)
            status = "FINISHED"
            return outcome
        except (Preempted, InterruptedByHand):
            status = "KILLED"
            raise
        finally:
            if outlets is not None:
                outlets.metrics.close()
            if tracker is not None:
                tracker.finish(status)

    def _taught(self, threads: int) -> Taught | None:
        """The teachers' logits, where the run learns from any."""
        ensemble = find_ensemble(self.spec, self.options.runs_root, self.options.data_root)
        if ensemble is None:
            return None
        return open_teachers(
            ensemble, self.resolved, self.selection, self.device, self.options.data_root, threads, self._say
        )

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.say(text)

    def _record(self, objective: Objective, found: Any) -> tuple[dict[str, Any], frozenset[str]]:
        """(what weights files say of themselves, tensors that they leave out); loads a new run's starting weights."""
        if found is not None:
            weights, state, _ = found
            parents, on = state.get("parents", []), state.get("on")
            taken = frozenset(name for name in objective.student.state_dict() if on and name not in weights)
        else:
            parent = load_start(objective.student, self.resolved, self.options.runs_root, self._say)
            parents = [] if parent is None else [{"weights": parent.reference, "sha256": parent.sha256}]
            taken = frozenset() if parent is None else parent.taken
            on = parents[0] if taken else None
            if self.resolved.adapters:
                parents += load_adapters(objective.student, self.resolved, self.options.runs_root, parent, self._say)
        own: dict[str, Any] = {"on": on} if on else {}
        if self.resolved.adapters:
            own["alone"] = bool(on) and _adapters_alone(objective, taken)
            own["adapters"] = [item.model_dump(mode="json") for item in self.resolved.adapters]
        return own | {
            "c2f": __version__,
            "backbone": self.resolved.model.backbone,
            "task": self.resolved.task,
            "classes": self.resolved.classes if self.resolved.supervised else [],
            "parents": parents,
            "spec_hash": resolved_hash(self.resolved),
        }, taken

    def _outlets(self, resumed_at: int | None) -> tuple[Outlets | None, Tracker | None]:
        """Where the first rank reports to; nothing on the others."""
        if self.folder is None or self.progress is None:
            return None, None
        metrics = MetricsLog(self.folder.metrics, keep_to=resumed_at)
        tracker = None
        if self.resolved.tracking.kind == "mlflow":
            tags = {
                "c2f.version": __version__,
                "c2f.spec_hash": resolved_hash(self.resolved),
                "c2f.data_fingerprint": self.resolved.data_fingerprint,
                "c2f.command": " ".join(self.options.command),
                "c2f.device": self.device.name(),
            }
            tracker = Tracker(
                settings=self.resolved.tracking,
                folder=self.folder.path,
                runs_root=self.options.runs_root,
                name=str(self.path.relative_to(self.options.runs_root)),
                params=_flat(as_data(self.resolved)),
                tags=tags,
                warn=self._say,
            ).start()
            tracker.artifacts([self.folder.path / "resolved.yaml", self.folder.path / "spec.yaml"])
        return Outlets(self.folder, metrics, self.progress, tracker), tracker

    def _finish(
        self, student: nn.Module, loop: Loop, scoring: Scoring, reporter: Reporter, tracker: Tracker | None
    ) -> Outcome | None:
        """Score the test clips with the chosen weights, write the report, say how it went."""
        which, phase, results, scored = final_score(
            student, self.path, self.resolved, self.selection, scoring, loop.taken
        )
        if results is not None:
            reporter.tested(loop.clock, phase, results.values())
        if self.folder is None:
            return None
        phases = phase_rows(self.resolved, self.costs, loop.clock)
        entries = read_metrics(self.folder.metrics)
        compared = saved(self.path, self.resolved, self.options.runs_root)
        if compared is not None:
            reporter.saved(loop.clock, compared.values())
        scored_in = next((p for p in self.resolved.phases if p.name == phase), self.resolved.phases[-1])
        files = report(
            self.folder,
            self.resolved,
            entries,
            phases,
            results,
            scored,
            self.selection,
            self.device.name(),
            compared,
            pictures=attention_pictures(student, self.resolved, scored_in, self.selection),
        )
        if tracker is not None:
            tracker.artifacts(files)
        outcome = Outcome(
            run=self.path,
            task=self.resolved.task,
            device=self.device.name(),
            scores=results.values() if results is not None else {},
            weights=which,
            weights_phase=phase,
            phases=phases,
            losses=[e["values"]["loss"] for e in entries if e["kind"] == "train"],
            tracking=tracker.uri if tracker is not None else None,
            savings=compared.rows() if compared is not None else [],
            saved=compared.summary() if compared is not None else None,
        )
        self.folder.update(state="finished", outcome=outcome.summary())
        return outcome


def _adapters_alone(objective: Objective, taken: frozenset[str]) -> bool:
    """Whether the body beside the adapters is the parent's, but for what is fitted to the token grid."""
    backbone = objective.backbone
    names = {name for name in backbone.state_dict() if item_of(name) is None and name not in backbone.sized}
    return not any(p.requires_grad for n, p in backbone.named_parameters() if item_of(n) is None) and taken >= {
        f"backbone.{name}" for name in names
    }


def loader_threads(resolved: Resolved, device: Device) -> int:
    """Loader threads of a rank: what the spec says, else up to 4 of the cores that are this rank's share."""
    if resolved.workers is not None:
        return resolved.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores // device.world))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested data as dotted keys, for MLflow's parameters; lists of plain values stay whole, long ones are left out."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key == "classes" and isinstance(value, list):
            out[f"{prefix}{key}"] = len(value)
        elif isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                out |= _flat(item, f"{prefix}{key}.{item.get('name', value.index(item))}.")
        elif value is not None:
            out[f"{prefix}{key}"] = value
    return out
