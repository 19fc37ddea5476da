"""What the scores of clips mean: ties, missing classes, wrong requests."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from c2ftool.errors import DataError, UsageError
from c2ftool.metrics.accuracy import confusion_matrix, precision_per_class, recall_per_class, top_k_accuracy
from c2ftool.metrics.average_precision import average_precision, d_prime, mean_average_precision, roc_auc
from c2ftool.metrics.definitions import METRICS, check_metrics
from c2ftool.metrics.results import evaluate_clips
from c2ftool.metrics.spread import mean_and_spread


def test_average_precision_by_hand():
    # ranks: positive, negative, positive, negative -> (1/1 + 2/3) / 2
    targets = np.array([[1], [0], [1], [0]])
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    assert average_precision(targets, scores)[0] == pytest.approx((1 + 2 / 3) / 2)
    # all equal: one threshold, the share of positives
    assert average_precision(targets, np.zeros((4, 1)))[0] == 0.5
    assert roc_auc(targets, scores)[0] == 0.75
    assert roc_auc(targets, np.zeros((4, 1)))[0] == 0.5


def test_a_class_without_positives_is_nan_and_left_out_of_the_mean():
    targets = np.array([[1, 0], [0, 0]])
    scores = np.array([[0.1, 0.3], [0.2, 0.1]])
    assert np.isnan(average_precision(targets, scores)).tolist() == [False, True]
    assert mean_average_precision(targets, scores) == 0.5
    assert math.isnan(mean_average_precision(np.zeros((2, 2)), scores))


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (3, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ranking_leaves_its_arguments_as_they_are(shape, order):
    scores = np.asarray(-np.arange(np.prod(shape), dtype=np.float32).reshape(shape), order=order)
    targets = scores < -1
    before = scores.copy(), targets.copy()
    average_precision(targets, scores), roc_auc(targets, scores)
    assert np.array_equal(scores, before[0]) and np.array_equal(targets, before[1])


def test_scores_are_compared_in_their_own_precision():
    targets = np.array([[1], [0]])
    close = np.array([[1.0], [1.0 + 1e-12]])
    assert average_precision(targets, close)[0] == 0.5  # the negative is ahead
    assert average_precision(targets, close[::-1])[0] == 1.0
    assert average_precision(targets, close.astype(np.float32))[0] == 0.5  # a tie


@pytest.mark.parametrize(
    ("targets", "scores", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "both be"),
        (np.zeros(3), np.zeros(3), "both be"),
        (np.full((2, 1), 0.5), np.zeros((2, 1)), "0 or 1"),
        (np.ones((2, 1)), np.array([[0.0], [np.nan]]), "finite"),
    ],
)
def test_average_precision_refuses_what_is_no_ranking(targets, scores, message):
    with pytest.raises(ValueError, match=message):
        average_precision(targets, scores)


def test_d_prime():
    assert d_prime(0.5) == 0
    assert d_prime(0.97) == pytest.approx(2.660, abs=1e-3)
    assert d_prime(0.2) == pytest.approx(-d_prime(0.8))
    assert d_prime(1) == math.inf and d_prime(0) == -math.inf and math.isnan(d_prime(math.nan))


def test_among_equal_scores_the_first_class_wins():
    scores = np.array([[0.5, 0.5, 0.1]] * 2)
    assert top_k_accuracy(np.array([0, 0]), scores) == 1
    assert top_k_accuracy(np.array([1, 1]), scores) == 0
    assert top_k_accuracy(np.array([1, 2]), scores, 2) == 0.5
    assert top_k_accuracy(np.array([2, 2]), scores, 3) == 1
    with pytest.raises(ValueError, match="0 clips"):
        top_k_accuracy(np.zeros(0, np.int64), scores[:0])


@given(st.data())
def test_accuracies_agree_with_each_other_and_with_sorting(data):
    clips, classes = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 7))
    scores = data.draw(hnp.arrays(np.float32, (clips, classes), elements=st.sampled_from([0.0, 1.0, 2.0])))
    labels = data.draw(hnp.arrays(np.int64, clips, elements=st.integers(0, classes - 1)))
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in range(1, classes + 1):
        expected = np.mean([label in row[:k] for label, row in zip(labels, order, strict=True)])
        assert top_k_accuracy(labels, scores, k) == pytest.approx(expected)
    confusion = confusion_matrix(labels, scores)
    assert confusion.sum() == clips
    assert np.trace(confusion) / clips == pytest.approx(top_k_accuracy(labels, scores))
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(labels, minlength=classes))


def test_recall_and_precision_by_class():
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(recall_per_class(confusion), [0.75, 1, np.nan])
    np.testing.assert_allclose(precision_per_class(confusion), [1, 2 / 3, np.nan])


def test_evaluation_of_single_label_clips():
    targets = np.eye(3)[[0, 0, 1, 1]]
    scores = np.array([[3, 1, 0], [1, 2, 0], [0, 3, 1], [0, 1, 0]], np.float32)
    results = evaluate_clips(targets, scores, ["dog", "rain", "cow"], ["accuracy", "map"], multi_label=False)
    assert results.values()["accuracy"] == 0.75
    assert results.scores["map"].value == pytest.approx(np.mean([1.0, (1 + 2 / 4) / 2]))
    assert results.confusion is not None and results.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert results.without_positive == ("cow",)
    dog, rain, cow = results.per_class
    assert (dog.name, dog.clips, dog.recall, dog.precision, dog.ap) == ("dog", 2, 0.5, 1.0, 1.0)
    assert (rain.recall, rain.precision) == (1.0, 2 / 3)
    assert (cow.clips, cow.ap, cow.auc, cow.recall, cow.precision) == (0, None, None, None, None)
    assert results.scores["accuracy"].definition == METRICS["accuracy"]


def test_evaluation_of_multi_label_clips():
    rng = np.random.default_rng(0)
    targets = rng.random((60, 4)) < 0.3
    scores = rng.normal(size=(60, 4)) + targets
    names = ["map", "auc", "d_prime"]
    results = evaluate_clips(targets.astype(np.float32), scores, list("abcd"), names, multi_label=True)
    assert list(results.values()) == names
    assert results.values()["map"] == pytest.approx(average_precision(targets, scores).mean())
    assert results.values()["d_prime"] == d_prime(results.values()["auc"])
    assert results.confusion is None and results.per_class[0].recall is None


def test_top5_of_six_classes():
    targets, scores = np.eye(6), -np.arange(6.0)[None].repeat(6, 0)
    assert evaluate_clips(targets, scores, list("abcdef"), ["top5"], False).values() == {"top5": pytest.approx(5 / 6)}


@pytest.mark.parametrize(
    ("metrics", "multi_label", "message"),
    [
        (["map", "accuracy"], True, "exactly one label"),
        (["top5"], False, "always 1 with 3 classes"),
        (["mapp"], False, "no metric 'mapp'"),
    ],
)
def test_a_metric_that_does_not_fit_is_a_usage_error_that_names_the_others(metrics, multi_label, message):
    with pytest.raises(UsageError, match=message) as caught:
        evaluate_clips(np.eye(3), np.eye(3), list("abc"), metrics, multi_label)
    assert "map" in (caught.value.cure or "")
    check_metrics(["map"], multi_label=multi_label, classes=3)


def test_scores_that_are_not_finite_are_counted_and_refused():
    scores = np.eye(8)
    scores[1, 3], scores[6] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 8 clips have a score that is not finite \(rows 1, 6\)"):
        evaluate_clips(np.eye(8), scores, list("abcdefgh"), ["accuracy"], False)


@pytest.mark.parametrize(
    ("targets", "metrics", "message"),
    [
        (np.array([[1, 1, 0], [0, 1, 0]]), ["accuracy"], r"1 of 2 clips .* \(row 0 has 2\)"),
        (np.array([[1, 0, 0], [0, 0, 0]]), ["accuracy"], r"1 of 2 clips .* \(row 1 has 0\)"),
        (np.zeros((0, 3)), ["accuracy"], "no clips"),
        (np.array([[1, 0, 0], [1, 0, 0]]), ["auc"], "auc is not defined"),
    ],
)
def test_targets_that_no_metric_can_use_are_data_errors(targets, metrics, message):
    with pytest.raises(DataError, match=message):
        evaluate_clips(targets, np.zeros(targets.shape), list("abc"), metrics, False)


def test_mean_and_spread():
    assert mean_and_spread([0.5]) == (0.5, None, 1)
    mean, std, n = mean_and_spread([1, 2, 3, 4])
    assert (mean, n) == (2.5, 4) and std == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert str(mean_and_spread([0.9, 0.8])) == "0.8500 ± 0.0707 (n = 2)"
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


def test_definitions_import_nothing_heavy():
    code = (
        "import sys, c2ftool.metrics.definitions;"
        "print([m for m in ('numpy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_metrics_import_neither_torch_nor_pyplot():
    code = (
        "import sys, c2ftool.metrics.report;print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
