"""The median filter: scipy's values for all windows and lengths, what is refused, and its plain twin."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from c2ftool.errors import DataError
from c2ftool.metrics import median as module
from c2ftool.metrics.median import median_filter

TYPES = [np.float16, np.float32, np.float64]


def by_definition(row, window):
    """Sorts every window of a row that is continued by its mirror image."""
    line = np.pad(row, (window // 2, window - 1 - window // 2), mode="symmetric")
    return np.array([np.sort(line[k : k + window])[window // 2] for k in range(len(row))])


def scipys(values, window):
    size = (1,) * (values.ndim - 1) + (window,)
    return scipy.ndimage.median_filter(values.astype(np.float64), size, mode="reflect").astype(values.dtype)


@pytest.mark.parametrize("window", [*range(1, 34), 50, 51, 64, 101, 250])
def test_every_window_is_scipys(window):
    rng = np.random.default_rng(window)
    for frames in (window // 2 + 1, window, window + 1, 3 * window):  # scipy reads beyond the row where it is shorter
        values = np.round(rng.normal(size=(3, frames)), 1)
        for dtype in TYPES:
            result = median_filter(values.astype(dtype), window)
            assert result.dtype == dtype
            np.testing.assert_array_equal(result, scipys(values.astype(dtype), window))


@given(data=st.data())
def test_the_result_is_the_middle_of_each_window(data):
    dtype = data.draw(st.sampled_from(TYPES))
    few = st.sampled_from([-np.inf, -1e4, -1.0, -0.0, 0.0, 6e-8, 1.0, np.inf])
    values = data.draw(
        hnp.arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=few)
        | hnp.arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements={"allow_nan": False})
    )
    window = data.draw(st.integers(1, 45))  # far longer than some rows
    expected = np.stack([by_definition(row, window) for row in values])
    np.testing.assert_array_equal(median_filter(values, window), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [1, 4, 9, 30])
def test_padded_clips_are_filtered_as_if_cut(window, dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 3, 25)).astype(dtype)
    lengths = np.array([25, 7, 1, 0, 25, 12, 7, 24, 3])
    beyond = np.arange(25) >= lengths[:, None, None]
    values[np.broadcast_to(beyond, values.shape)] = np.nan
    result = median_filter(values, window, lengths=lengths)
    for row, length in enumerate(lengths):
        expected = scipys(values[row, :, :length], window) if length else values[row, :, :0]
        if length > window // 2:
            np.testing.assert_array_equal(result[row, :, :length], expected)
        twin = [by_definition(line, window) for line in values[row, :, :length]] if length else expected
        np.testing.assert_array_equal(result[row, :, :length], twin)
    np.testing.assert_array_equal(np.isnan(result), np.broadcast_to(beyond, values.shape))


@pytest.mark.parametrize("lengths", [None, np.array([20, 20, 13, 5, 20])])
def test_each_class_has_its_window(lengths):
    values = np.random.default_rng(1).normal(size=(5, 6, 20)).astype(np.float32)
    windows = np.array([3, 9, 1, 4, 9, 3])
    result = median_filter(values, windows, lengths=lengths)
    for label, window in enumerate(windows):
        alone = median_filter(values[:, label], int(window), lengths=lengths)
        np.testing.assert_array_equal(result[:, label], alone)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(40,), (7, 40), (3, 4, 2, 40), (2000, 40)])
def test_rows_are_filtered_alike_whatever_the_shape_and_the_blocks(shape, dtype, monkeypatch):
    values = np.random.default_rng(2).normal(size=shape).astype(dtype)
    expected = scipys(values, 7)
    np.testing.assert_array_equal(median_filter(values, 7), expected)
    np.testing.assert_array_equal(median_filter(values.T.copy().T, 7), expected)  # not contiguous
    monkeypatch.setattr(module, "_BLOCK", 100)
    np.testing.assert_array_equal(median_filter(values, 7), expected)


def test_values_are_kept_unless_they_are_the_place_for_the_result():
    values = np.random.default_rng(3).normal(size=(6, 5, 30)).astype(np.float32)
    before = values.copy()
    result = median_filter(values, 5)
    np.testing.assert_array_equal(values, before)
    for lengths in (None, np.full(6, 30)):
        again = before.copy()
        assert median_filter(again, 5, lengths=lengths, out=again) is again
        np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [1, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_that_are_not_numbers_are_refused(dtype, window, sign):
    values = np.zeros((3, 2, 20), dtype)
    values[2, 1, 19] = np.copysign(np.nan, sign)
    with pytest.raises(DataError, match="not numbers"):
        median_filter(values, window)
    with pytest.raises(DataError, match="not numbers"):
        median_filter(values, np.array([window, window]), lengths=np.full(3, 20))


def test_no_rows_and_no_frames_are_no_error():
    assert median_filter(np.zeros((0, 4, 10), np.float32), 3).shape == (0, 4, 10)
    assert median_filter(np.zeros((2, 4, 0), np.float32), 3).shape == (2, 4, 0)


@pytest.mark.parametrize(
    ("values", "window", "options"),
    [
        (np.zeros((2, 3, 4)), 0, {}),
        (np.zeros((2, 3, 4)), 2.5, {}),
        (np.zeros((2, 3, 4)), np.array([3, 3]), {}),
        (np.zeros((2, 3, 4), np.int64), 3, {}),
        (np.zeros((2, 3, 4)), 3, {"lengths": np.array([4, 5])}),
        (np.zeros((2, 3, 4)), 3, {"lengths": np.array([4])}),
        (np.zeros((2, 3, 4)), 3, {"out": np.zeros((2, 3, 4), np.float32)}),
    ],
)
def test_what_does_not_fit_is_refused(values, window, options):
    with pytest.raises(ValueError):
        median_filter(values, window, **options)
