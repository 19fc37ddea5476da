"""The exponential moving average of a student (Chen et al., EAT, section 3.2; fairseq's EMAModule)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from c2ftool.spec.resolved import ResolvedTeacher

Student = TypeVar("Student", bound=nn.Module)


def decay_at(spec: ResolvedTeacher, step: int) -> float:
    """The decay of update number `step` (the first is 1): linear from `decay` to `final_decay` over `over` updates."""
    if step >= spec.over:
        return spec.final_decay
    return spec.decay + (spec.final_decay - spec.decay) * step / spec.over


class EmaTeacher(Generic[Student]):
    """A float32 copy that follows the student. Not a module: optimisers and data parallelism must never see it."""

    def __init__(self, student: Student) -> None:
        self.module: Student = copy.deepcopy(student).float().requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, student: Student, decay: float) -> None:
        """Set teacher = decay * teacher + (1 - decay) * student; buffers are copied."""
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = [p.detach().float() for p in student.parameters()]
        torch._foreach_lerp_(mine, theirs, 1.0 - decay)
        for copied, buffer in zip(self.module.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)

    def state(self) -> dict[str, Tensor]:
        """The teacher's tensors, under the student's names; they change with the next update."""
        return self.module.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up `state` again, whole."""
        self.module.load_state_dict(state)
