"""From a resolved spec to its objective, with first weights set from the seed."""

from __future__ import annotations

from c2ftool.models.build import build_classifier
from c2ftool.models.initialise import initialise
from c2ftool.objectives.base import Objective
from c2ftool.objectives.classify import ClassifyObjective
from c2ftool.objectives.eat import EatObjective, EatStudent
from c2ftool.spec.objective import Classify, Eat
from c2ftool.spec.resolved import Resolved


def build_objective(resolved: Resolved) -> Objective:
    """The objective that the spec names. Starting weights (`model.weights`) are loaded by the engine afterwards."""
    frontend = resolved.phases[0].frontend
    objective: Objective
    match resolved.objective:
        case Eat() as spec:
            objective = EatObjective(EatStudent(resolved.model, frontend, spec), spec)
        case Classify() as spec:
            classifier = build_classifier(resolved.model, frontend, len(resolved.classes))
            objective = ClassifyObjective(classifier, spec)
            if resolved.model.freeze == "body":
                classifier.backbone.requires_grad_(False)
    initialise(objective.student, resolved.seed)
    return objective
