"""The EMA teacher: its decay, its arithmetic, and that nothing else takes it for a part of the student."""

import pytest
import torch
from torch import nn

from c2ftool.objectives.ema import EmaTeacher, decay_at
from c2ftool.spec.resolved import ResolvedTeacher


def teacher_spec(**changes) -> ResolvedTeacher:
    return ResolvedTeacher(
        **{"kind": "ema", "decay": 0.9998, "final_decay": 0.99999, "over": 100_000, "layers": [0]} | changes
    )


def test_decay_rises_linearly_from_the_first_update_and_then_stays():
    spec = teacher_spec()
    assert decay_at(spec, 1) == pytest.approx(0.9998 + 0.00019 / 100_000, abs=1e-12)
    assert decay_at(spec, 50_000) == pytest.approx(0.999895, abs=1e-12)
    assert decay_at(spec, 100_000) == decay_at(spec, 399_999) == 0.99999


def test_no_rise_means_the_final_decay():
    assert decay_at(teacher_spec(over=0), 1) == 0.99999


def test_many_updates_are_the_moving_average_computed_in_float64():
    student = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))
    teacher = EmaTeacher(student)
    expected = {name: value.double() for name, value in student.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 51):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        decay = decay_at(teacher_spec(decay=0.9, final_decay=0.999, over=40), step)
        teacher.update(student, decay)
        expected = {n: decay * expected[n] + (1 - decay) * v.double() for n, v in student.state_dict().items()}
    for name, value in teacher.state().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_bfloat16_student_has_a_float32_teacher_that_keeps_small_changes():
    student = nn.Linear(3, 3).bfloat16()
    nn.init.ones_(student.weight)
    teacher = EmaTeacher(student)
    nn.init.zeros_(student.weight)
    teacher.update(student, 0.9998)
    assert teacher.module.weight.dtype == torch.float32
    torch.testing.assert_close(teacher.module.weight, torch.full((3, 3), 0.9998))


def test_buffers_are_copied_and_evaluation_mode_stays():
    student = nn.Sequential(nn.BatchNorm1d(3)).train()
    teacher = EmaTeacher(student)
    student(torch.randn(8, 3) + 5)
    teacher.update(student, 0.99)
    torch.testing.assert_close(teacher.module[0].running_mean, student[0].running_mean)
    assert teacher.module[0].num_batches_tracked.item() == 1
    assert not teacher.module.training and student.training


def test_the_teacher_is_apart_from_the_student():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = nn.Linear(2, 2)
            self.teacher = EmaTeacher(self.student)

    owner = Owner()
    assert [name for name, _ in owner.named_parameters()] == ["student.weight", "student.bias"]
    assert set(owner.state_dict()) == {"student.weight", "student.bias"}
    assert not any(p.requires_grad for p in owner.teacher.module.parameters())
    before = owner.teacher.module.weight.clone()
    with torch.no_grad():
        owner.student.weight += 1
    torch.testing.assert_close(owner.teacher.module.weight, before)


def test_state_is_taken_up_whole_or_refused():
    teacher, other = EmaTeacher(nn.Linear(2, 2)), EmaTeacher(nn.Linear(2, 2))
    other.load({name: value.clone() for name, value in teacher.state().items()})
    torch.testing.assert_close(other.module.weight, teacher.module.weight, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="bias"):
        other.load({"weight": torch.zeros(2, 2)})
