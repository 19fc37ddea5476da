"""Pooling against a plain twin that goes kernel by kernel, and against torch's layers."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.compression.pool import Reduce, pool

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BOTH = pytest.mark.parametrize("reduce", ["avg", "max"])


def plain_pool(features: Tensor, reduce: Reduce, time: int, mel: int) -> Tensor:
    """(B, T // time, M // mel) in the features' type: float64 arithmetic, rounded once."""
    clips, frames, mels = features.shape
    out = torch.empty(clips, frames // time, mels // mel, dtype=torch.float64)
    values = features.double().tolist()
    for clip in range(clips):
        for t in range(frames // time):
            for m in range(mels // mel):
                kernel = [
                    values[clip][t * time + i][m * mel + j]  # what does not fill a kernel is never reached
                    for i in range(time)
                    for j in range(mel)
                ]
                out[clip, t, m] = statistics.fmean(kernel) if reduce == "avg" else max(kernel)
    return out.to(features.dtype)


def features_of(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Like a log-mel: mean -4, standard deviation 4."""
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) - 4).to(dtype)


def check(features: Tensor, reduce: Reduce, time: int, mel: int) -> None:
    before = features.clone()
    made, expected = pool(features, reduce, time, mel), plain_pool(features, reduce, time, mel)
    assert made.dtype == features.dtype and made.shape == expected.shape
    if reduce == "max":
        assert torch.equal(made, expected)
    else:
        # one rounding to the type; sums in float32 or float64 add what is below it
        error = {torch.float64: 1e-14, torch.float32: 5e-6}.get(features.dtype, torch.finfo(features.dtype).eps)
        torch.testing.assert_close(made, expected, rtol=error, atol=error)
    assert torch.equal(features, before), "the input was written to"


@settings(deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(["avg", "max"]),
    st.sampled_from(DTYPES),
)
def test_pooling_equals_the_plain_twin(
    clips: int, frames: int, mels: int, time: int, mel: int, reduce: Any, dtype: torch.dtype
) -> None:
    features = features_of(clips, frames, mels, dtype=dtype)
    if frames < time or mels < mel:
        with pytest.raises(ValueError, match=f"{frames} frames x {mels} mel bands by {time} x {mel} leaves nothing"):
            pool(features, reduce, time, mel)
        return
    check(features, reduce, time, mel)


@BOTH
@pytest.mark.parametrize("time, mel", [(2, 1), (4, 1), (1, 2), (4, 2), (3, 5)])
def test_views_that_are_not_contiguous_are_pooled_alike(reduce: Reduce, time: int, mel: int) -> None:
    whole = features_of(3, 26, 31)
    check(whole.transpose(1, 2), reduce, time, mel)
    check(whole[:, 1::2, 2:-1], reduce, time, mel)
    check(whole[:1].expand(4, -1, -1), reduce, time, mel)


@BOTH
def test_ten_seconds_lose_their_last_two_frames_at_factor_4(reduce: Reduce) -> None:
    features = features_of(1, 998, 16)
    check(features, reduce, 4, 1)
    changed = features.clone()
    changed[:, 996:] = 1e6
    assert torch.equal(pool(features, reduce, 4, 1), pool(changed, reduce, 4, 1))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_equals_torchs_layers(reduce: Reduce, dtype: torch.dtype) -> None:
    features = features_of(2, 103, 37, dtype=dtype)
    layer = F.avg_pool2d if reduce == "avg" else F.max_pool2d
    for time, mel in ((2, 1), (4, 1), (8, 4), (1, 3)):
        expected = layer(features[:, None], (time, mel))[:, 0]
        error = 16 * torch.finfo(dtype).eps  # sums in another order
        torch.testing.assert_close(pool(features, reduce, time, mel), expected, rtol=error, atol=error)


def test_means_of_bfloat16_are_summed_in_float32() -> None:
    """Summed in bfloat16, ones would come no further than 256."""
    ones = torch.ones(1, 512, 1, dtype=torch.bfloat16)
    assert pool(ones, "avg", 512, 1).item() == 1


@BOTH
def test_what_is_not_a_number_stays_in_its_kernel(reduce: Reduce) -> None:
    features = features_of(1, 8, 4)
    features[0, 5, 3] = math.nan
    made = pool(features, reduce, 4, 2)
    assert made[0, 1, 1].isnan() and made.isnan().sum() == 1


@BOTH
def test_a_kernel_of_one_is_the_input(reduce: Reduce) -> None:
    features = features_of(2, 5, 3)
    assert pool(features, reduce, 1, 1) is features


@BOTH
def test_pooling_has_a_gradient(reduce: Reduce) -> None:
    features = features_of(1, 9, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pool(x, reduce, 4, 2), features)


def test_nonsense_is_refused() -> None:
    unknown: Any = "median"
    with pytest.raises(ValueError, match="unknown pooling 'median': avg or max"):
        pool(features_of(1, 4, 4), unknown, 2, 1)
    for time, mel in ((0, 1), (1, 0), (-2, 1)):
        with pytest.raises(ValueError, match=f"by {time} x {mel} leaves nothing"):
            pool(features_of(1, 4, 4), "avg", time, mel)
    for wrong in (torch.zeros(4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"features must be \(clips, frames, mels\) floats"):
            pool(wrong, "max", 2, 1)


@pytest.mark.gpu
@BOTH
def test_a_gpu_pools_alike(reduce: Reduce) -> None:
    features = features_of(4, 998, 128)
    for time, mel in ((2, 1), (4, 1), (4, 2)):
        made = pool(features.cuda(), reduce, time, mel).cpu()
        torch.testing.assert_close(made, pool(features, reduce, time, mel), rtol=1e-6, atol=1e-6)
