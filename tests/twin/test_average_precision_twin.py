"""Fast ranking metrics against scikit-learn and against their definitions, written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from c2ftool.metrics import average_precision as module
from c2ftool.metrics.average_precision import average_precision, roc_auc


@st.composite
def ranked(draw):
    """Targets and scores of up to 40 clips and 4 classes; few distinct scores, so that most are tied."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 4)))
    targets = draw(hnp.arrays(np.bool_, shape))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    levels = draw(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=6)
        | st.just([0.0, -0.0, 1e-45, np.nextafter(np.float32(1), np.float32(2)).item(), 1.0])
    )
    places = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, len(levels) - 1)))
    return targets, np.array(levels, dtype)[places]


def by_definition(targets, scores):
    """One class: precision times gain in recall at every distinct threshold, from the highest."""
    total, recall, area = targets.sum(), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = targets[scores >= threshold]
        area += found.mean() * (found.sum() / total - recall)
        recall = found.sum() / total
    return area


def pairs_in_order(targets, scores):
    """One class: share of (positive, negative) pairs in the right order, ties half."""
    difference = scores[targets][:, None].astype(np.float64) - scores[~targets][None, :]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


@given(ranked())
def test_average_precision_is_scikit_learns_with_heavy_ties(case):
    targets, scores = case
    result = average_precision(targets, scores)
    for column in range(targets.shape[1]):
        if targets[:, column].any():
            expected = average_precision_score(targets[:, column], scores[:, column])
            assert result[column] == pytest.approx(expected, abs=1e-12)
            assert result[column] == pytest.approx(by_definition(targets[:, column], scores[:, column]), abs=1e-12)
        else:
            assert np.isnan(result[column])


@given(ranked())
def test_auc_is_scikit_learns_with_heavy_ties(case):
    targets, scores = case
    result = roc_auc(targets, scores)
    for column in range(targets.shape[1]):
        if targets[:, column].any() and not targets[:, column].all():
            expected = roc_auc_score(targets[:, column], scores[:, column])
            assert result[column] == pytest.approx(expected, abs=1e-12)
            assert result[column] == pytest.approx(pairs_in_order(targets[:, column], scores[:, column]), abs=1e-12)
        else:
            assert np.isnan(result[column])


@pytest.mark.parametrize("levels", [None, 50])
def test_many_clips_and_classes_agree_with_scikit_learn(levels):
    rng = np.random.default_rng(3)
    targets = rng.random((4000, 25)) < rng.uniform(0.002, 0.7, 25)
    scores = rng.normal(size=targets.shape).astype(np.float32) + targets
    if levels:
        scores = np.round(scores * levels / 8).astype(np.float16)
    np.testing.assert_allclose(
        average_precision(targets, scores),
        average_precision_score(targets, scores.astype(np.float32), average=None),
        rtol=0,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        roc_auc(targets, scores), roc_auc_score(targets, scores.astype(np.float32), average=None), rtol=0, atol=1e-12
    )


@given(case=ranked(), block=st.integers(1, 90))
def test_results_do_not_depend_on_how_many_classes_are_sorted_at_once(case, block):
    targets, scores = case
    whole = average_precision(targets, scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        np.testing.assert_array_equal(average_precision(targets, scores), whole)
