"""What a resolved spec costs: FLOPs per clip of each phase, counted once, on the meta device, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from c2ftool.adapters.insert import item_of
from c2ftool.costs.flops import Flops, clip_flops
from c2ftool.costs.frontend_flops import frontend_flops
from c2ftool.costs.memory import TrainingMemory, training_memory
from c2ftool.models.build import build_classifier, build_detector
from c2ftool.objectives.build import build_objective
from c2ftool.objectives.eat import EatStudent
from c2ftool.objectives.ssast import SsastStudent
from c2ftool.spec.masks import InverseBlock
from c2ftool.spec.objective import Classify, Detect, Eat, Ssast
from c2ftool.spec.resolved import Resolved, ResolvedFrontend, ResolvedPhase, ResolvedTeacher


@dataclass(frozen=True)
class PhaseCost:
    """The cost of one phase. FLOPs are 2 x multiply-adds."""

    name: str
    clip: Flops  # of one clip: forward, and forward and backward; an EMA teacher and clones included
    frontend: int  # of one clip's log-mel, not part of `clip`
    clips: int  # trained on in the phase

    @property
    def training(self) -> int:
        """Training FLOPs of the phase, front end not included."""
        return self.clip.training * self.clips


@dataclass(frozen=True)
class Parameters:
    """How many parameters a network has. plain: without adapters."""

    trained: int
    total: int
    plain: int

    def words(self) -> str:
        """Both shares that are in use: of all (as peft prints it), and over the network without adapters (LoAA)."""
        shares = f"{100 * self.trained / self.total:.3g} %"
        if self.plain != self.total:
            shares += f" of all, {100 * self.trained / self.plain:.3g} % of the network without adapters"
        return f"{self.trained:,} of {self.total:,} ({shares})"


def count_parameters(resolved: Resolved) -> Parameters:
    """Of the run's student, as its first phase builds it."""
    with torch.device("meta"):  # the objective's: detection without weak clips does not train its layer for them
        student = build_objective(resolved).student
    sizes = [(name, p.numel(), p.requires_grad) for name, p in student.named_parameters()]
    total = sum(n for _, n, _ in sizes)
    added = sum(n for name, n, _ in sizes if item_of(name))
    return Parameters(sum(n for _, n, learns in sizes if learns), total, total - added)


def trained_whole(resolved: Resolved) -> Resolved:
    """The same run without adapters and with nothing frozen: what a step of it would cost."""
    model = resolved.model.model_copy(update={"freeze": "none", "unfreeze": None})
    return resolved.model_copy(update={"model": model, "adapters": []})


def against_whole(resolved: Resolved) -> tuple[float, float] | None:
    """(FLOPs, memory) of the dearest phase's step, over those of training the whole network; None where it is."""
    if resolved.model.freeze != "body":
        return None
    whole = trained_whole(resolved)
    costs = [_clip(whole, phase).training for phase in whole.phases]
    dearest = max(range(len(costs)), key=costs.__getitem__)
    flops = _clip(resolved, resolved.phases[dearest]).training / costs[dearest]
    ours, theirs = (memory(run, run.phases[dearest]).total for run in (resolved, whole))
    return flops, ours / theirs


def phase_costs(resolved: Resolved) -> list[PhaseCost]:
    """The cost of every phase."""
    return [
        PhaseCost(phase.name, _clip(resolved, phase), _frontend(phase.frontend), phase.steps * phase.batch)
        for phase in resolved.phases
    ]


def memory(resolved: Resolved, phase: ResolvedPhase) -> TrainingMemory:
    """What a device holds in a step of the phase with the micro-batch of the run, in float32."""
    clips = min(resolved.micro_batch or phase.batch, phase.batch)
    student, step = _student_and_step(resolved, phase, clips)
    return training_memory(student, step)


def _clip(resolved: Resolved, phase: ResolvedPhase) -> Flops:
    student, step = _student_and_step(resolved, phase, 1)
    return clip_flops(student, step)


def _student_and_step(resolved: Resolved, phase: ResolvedPhase, clips: int):  # type: ignore[no-untyped-def]
    """(builds the student, runs one step of it on made-up features of `clips` clips)."""
    shape = (clips, phase.tokens.frames, phase.tokens.mels)
    match resolved.objective:
        case Detect():
            frames = phase.label_frames

            def detector() -> nn.Module:
                return build_detector(resolved.model, phase.tokens, len(resolved.classes), frames, resolved.adapters)

            def detecting(module: nn.Module) -> Tensor:
                strong, weak = module(torch.empty(shape))
                loss: Tensor = strong.float().sum()
                return loss + weak.float().sum() if resolved.data.weak else loss

            return detector, detecting
        case Classify():

            def classifier() -> nn.Module:
                return build_classifier(resolved.model, phase.tokens, len(resolved.classes), resolved.adapters)

            return classifier, lambda module: module(torch.empty(shape)).float().sum()
        case Eat():
            masks, visible = phase.masks, phase.visible
            assert isinstance(masks, InverseBlock) and visible is not None
            assert isinstance(phase.teacher, ResolvedTeacher)
            teacher = phase.teacher

            def pretraining(module: EatStudent) -> Tensor:
                features = torch.empty(shape)
                with torch.no_grad():
                    module.backbone.targets(features, teacher.layers)
                index = torch.zeros(clips * masks.clones, visible, dtype=torch.int64)
                cls, decoded = module(features, index, torch.zeros(clips * masks.clones, 1, 1))
                return cls.float().sum() + decoded.float().sum()

            return lambda: EatStudent(resolved.model, phase.tokens, resolved.objective), pretraining
        case Ssast() as spec:
            assert phase.visible is not None
            count = phase.tokens.count - phase.visible

            def predicting(module: SsastStudent) -> Tensor:
                masked = torch.zeros(clips, count, dtype=torch.int64)
                discriminative, generative = module(torch.empty(shape), masked)
                # targets x predictions, of which InfoNCE is made
                scores = discriminative.detach() @ discriminative.transpose(1, 2)
                return scores.float().sum() + generative.float().sum()

            return lambda: SsastStudent(resolved.model, phase.tokens, spec), predicting


def _frontend(frontend: ResolvedFrontend) -> int:
    return frontend_flops(frontend.frames, frontend.transform, frontend.mels, frame_length=frontend.frame_length).total
