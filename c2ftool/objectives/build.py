"""From a resolved spec to its objective, with first weights set from the seed."""

from __future__ import annotations

from c2ftool.models.build import build_classifier, build_detector
from c2ftool.models.initialise import initialise
from c2ftool.objectives.base import Objective
from c2ftool.objectives.classify import ClassifyObjective
from c2ftool.objectives.detect import DetectObjective
from c2ftool.objectives.eat import EatObjective, EatStudent
from c2ftool.objectives.ssast import SsastObjective, SsastStudent
from c2ftool.spec.objective import Classify, Detect, Eat, Ssast
from c2ftool.spec.resolved import Resolved


def build_objective(resolved: Resolved, phase: int = 0) -> Objective:
    """The objective that the spec names, its student laid out for the phase with this index.

    Starting weights (`model.weights`) are loaded by the engine afterwards.
    """
    tokens = resolved.phases[phase].tokens
    objective: Objective
    match resolved.objective:
        case Eat() as spec:
            objective = EatObjective(EatStudent(resolved.model, tokens, spec), spec)
        case Ssast() as spec:
            objective = SsastObjective(SsastStudent(resolved.model, tokens, spec), spec)
        case Classify() as spec:
            classifier = build_classifier(resolved.model, tokens, len(resolved.classes), resolved.adapters)
            objective = ClassifyObjective(classifier, spec)
        case Detect() as spec:
            frames = resolved.phases[phase].label_frames
            detector = build_detector(resolved.model, tokens, len(resolved.classes), frames, resolved.adapters)
            objective = DetectObjective(detector, spec, weak=bool(resolved.data.weak))
    initialise(objective.student, resolved.seed)
    return objective
