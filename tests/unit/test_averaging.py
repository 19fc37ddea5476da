"""The mean of a phase's weights: exact, whatever is in them, and the same after a resume."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.engine.averaging import Averager
from c2ftool.spec.amounts import Length
from c2ftool.spec.resolved import ResolvedAverage


def weights(moment: int, size: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(moment)
    return {
        "backbone.pos_embed": size * torch.randn(1, 7, 4, generator=generator),
        "head.fc.bias": size * torch.randn(3, generator=generator) + 1000,  # far from 0, where sums lose digits
        "seen": torch.tensor(moment),
        "mask": torch.tensor([moment % 2 == 0, True]),
    }


def averaged(moments: list[dict[str, Tensor]]) -> Averager:
    averager = Averager()
    for moment in moments:
        averager.add(moment)
    return averager


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_mean_is_that_of_all_weights_given(count: int, size: float) -> None:
    moments = [weights(n, size) for n in range(count)]
    averager = averaged(moments)
    assert averager.count == count and list(averager.mean) == list(moments[0])
    for name in ("backbone.pos_embed", "head.fc.bias"):
        exact = torch.stack([moment[name].double() for moment in moments]).mean(0)
        scale = float(torch.stack([moment[name] for moment in moments]).abs().max())
        assert averager.mean[name].dtype == torch.float32
        torch.testing.assert_close(averager.mean[name].double(), exact, rtol=0, atol=1e-6 * scale)


def test_one_moment_is_its_own_mean_to_the_bit() -> None:
    assert all(torch.equal(averaged([weights(3)]).mean[name], value) for name, value in weights(3).items())


def test_what_is_no_float_is_the_last_one_given() -> None:
    mean = averaged([weights(1), weights(2), weights(5)]).mean
    assert mean["seen"] == 5 and mean["seen"].dtype == torch.int64
    assert mean["mask"].tolist() == [False, True]


def test_the_mean_holds_no_part_of_the_weights_that_train_on() -> None:
    live = weights(0)
    averager = averaged([live])
    for moment in (1, 2):
        for name, value in weights(moment).items():
            live[name].copy_(value)
        averager.add(live)
    expected = averaged([weights(n) for n in range(3)]).mean
    assert all(torch.equal(averager.mean[name], expected[name]) for name in expected)
    assert torch.equal(live["head.fc.bias"], weights(2)["head.fc.bias"])  # and averaging changes nothing of them


def test_a_resumed_mean_goes_on_to_the_bit() -> None:
    whole = averaged([weights(n) for n in range(6)])
    held = io.BytesIO()
    torch.save(averaged([weights(n) for n in range(4)]).state(), held)
    held.seek(0)
    resumed = Averager.restore(torch.load(held, weights_only=True))
    assert resumed.count == 4
    for n in (4, 5):
        resumed.add(weights(n))
    assert resumed.count == 6 and all(torch.equal(resumed.mean[name], whole.mean[name]) for name in whole.mean)
    assert Averager.restore(None).count == 0 and Averager.restore(Averager().state()).mean == {}


@pytest.mark.parametrize(
    ("start", "every", "steps"), [(1, 1, [1, 2, 3, 4, 5, 6, 7]), (2, 2, [2, 4, 6]), (3, 10, [3]), (9, 1, [])]
)
def test_moments_come_at_the_start_and_regularly_after_it(start: int, every: int, steps: list[int]) -> None:
    average = ResolvedAverage(start=str(start), every=str(every))
    assert [step for step in range(1, 8) if average.due(step)] == steps


@pytest.mark.parametrize(("clips", "batch"), [(2_063_949, 12), (183_730, 12), (320, 12), (36, 8), (7, 3)])
def test_the_end_of_every_epoch_is_a_moment_the_last_one_too(clips: int, batch: int) -> None:
    epoch = Length.parse("1 epochs").exact_steps(batch=batch, clips=clips)
    average = ResolvedAverage(start=str(epoch), every=str(epoch))
    ends = [Length.parse(f"{n} epochs").steps(batch=batch, clips=clips) for n in range(1, 6)]
    near = {end + d for end in ends for d in range(-3, 4) if 0 < end + d <= ends[-1]}
    assert sorted(step for step in near if average.due(step)) == ends
