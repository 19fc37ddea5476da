"""Event-based figures against sed_eval, and what they say of silence, ties and order."""

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.metrics.events import Agreement, _largest_matching, event_based
from c2ftool.metrics.tables import Truth

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


def events(rows, clips=1, classes=1, duration=10.0):
    """A table of (clip, class, onset, offset) rows."""
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Truth(
        tuple(f"clip{number}" for number in range(clips)),
        tuple(f"class{number}" for number in range(classes)),
        np.full(clips, duration),
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        columns[2],
        columns[3],
    )


def listed(table, clip):
    """A clip's events as sed_eval reads them, in the table's order."""
    return [
        {
            "file": table.ids[clip],
            "event_label": table.classes[table.label[number]],
            "event_onset": float(table.onset[number]),
            "event_offset": float(table.offset[number]),
        }
        for number in np.flatnonzero(table.clip == clip)
    ]


def by_sed_eval(truth, found, collar, share, zero=False):
    """sed_eval's results, accumulated file by file."""
    from sed_eval.sound_event import EventBasedMetrics

    metrics = EventBasedMetrics(
        list(truth.classes),
        evaluate_offset=share is not None,
        t_collar=collar,
        percentage_of_length=share or 0.0,
        empty_system_output_handling="zero_score" if zero else None,
    )
    for clip in range(len(truth.ids)):
        metrics.evaluate(listed(truth, clip), listed(found, clip))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means over classes of which none is known
        return metrics.results()


def random_pairs(about):
    """Sorted pairs of a random graph of so many events on each side, and so many pairs for each."""
    seed, count, degree = about
    chosen = np.random.default_rng(seed).random((count, count)) < degree / count
    return [(int(ours), int(other)) for ours, other in np.argwhere(chosen)]


def assert_same(agreement: Agreement, expected, classes):
    def check(figures, theirs):
        ours = [figures.f1, figures.precision, figures.recall]
        wanted = [theirs["f_measure"][name] for name in ("f_measure", "precision", "recall")]
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-9)
        # a class without events has an error rate of some 1e15
        np.testing.assert_allclose(figures.error_rate, theirs["error_rate"]["error_rate"], rtol=1e-12, atol=1e-9)

    check(agreement.overall(), expected["overall"])
    check(agreement.macro(), expected["class_wise_average"])
    by_class = agreement.per_class()
    for number, name in enumerate(classes):
        theirs = expected["class_wise"][name]
        rows = type(by_class)(*(getattr(by_class, field)[number] for field in by_class.__dataclass_fields__))
        check(rows, theirs)
        assert (agreement.reference[number], agreement.detected[number]) == tuple(theirs["count"].values())


@st.composite
def two_tables(draw, most=10):
    """Truth and detections of up to 3 clips and 3 classes, on a coarse grid: many are exactly a collar apart."""
    clips, classes = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    step = draw(st.sampled_from([0.05, 0.1, 0.04]))
    row = st.tuples(st.integers(0, clips - 1), st.integers(0, classes - 1), st.integers(0, 12), st.integers(0, 8)).map(
        lambda r: (r[0], r[1], round(r[2] * step, 6), round((r[2] + r[3]) * step, 6))
    )
    tables = [events(draw(st.lists(row, max_size=most)), clips, classes) for _ in range(2)]
    return tables[0], tables[1]


@settings(max_examples=80, deadline=None)
@given(two_tables(), st.sampled_from([0.02, 0.05, 0.1, 0.2]), st.sampled_from([None, 0.0, 0.2, 0.5]), st.booleans())
def test_event_figures_are_sed_evals(tables, collar, share, zero):
    truth, found = tables
    expected = by_sed_eval(truth, found, collar, share, zero)
    assert_same(event_based(truth, found, collar, share, zero), expected, truth.classes)


@pytest.mark.parametrize("share", [None, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_crowded_clips_take_the_matching_that_sed_eval_takes(seed, share):
    # dozens compete for each event: which are left over, and so how many are substituted, depends on the search
    rng = np.random.default_rng(seed)

    def crowd(count):
        onset = np.round(rng.uniform(0, 3, count), 3)
        length = np.round(rng.uniform(0, 1, count), 3)
        return events(np.stack([rng.integers(0, 2, count), rng.integers(0, 3, count), onset, onset + length], 1), 2, 3)

    truth, found = crowd(90), crowd(110)
    agreement = event_based(truth, found, 0.2, share)
    assert agreement.substitutions > 5 and 20 < agreement.correct.sum() < 90
    assert_same(agreement, by_sed_eval(truth, found, 0.2, share), truth.classes)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40, unique=True).map(sorted)
    | st.tuples(st.integers(0, 1000), st.integers(2, 60), st.floats(1, 4)).map(random_pairs)
)
def test_the_matching_is_the_very_one_of_sed_eval(pairs):
    from sed_eval.util import bipartite_match

    graph = {}
    for ours, other in pairs:
        graph.setdefault(other, []).append(ours)
    assert _largest_matching([pair[0] for pair in pairs], [pair[1] for pair in pairs]) == bipartite_match(graph)


def test_the_largest_matching_is_found_where_the_nearest_would_not_do():
    # both detections fit the second event; only the later one must take it
    truth, found = events([(0, 0, 1.0, 2.0), (0, 0, 1.15, 2.0)]), events([(0, 0, 1.1, 2.0), (0, 0, 0.95, 2.0)])
    assert event_based(truth, found, 0.1).correct.tolist() == [2]
    # a chain: each fits two, and the first choices must all be given up again
    onsets = np.arange(30) * 0.2
    truth = events([(0, 0, onset, 20.0) for onset in onsets])
    found = events([(0, 0, onset + 0.15, 20.0) for onset in onsets[::-1]])
    assert event_based(truth, found, 0.16).correct.tolist() == [30]


def test_long_chains_do_not_exhaust_the_stack():
    # detection k fits events k and k + 1; the last fits the last only, so that a path goes through all
    count = 5000
    onsets = np.arange(count) * 1.0
    found = events([(0, 0, onset + 0.5, 0.0) for onset in onsets[:-1]] + [(0, 0, 0.0, 0.0)])
    assert event_based(events([(0, 0, onset, 0.0) for onset in onsets]), found, 0.6).correct.tolist() == [count]


def test_a_collar_is_inclusive_and_offsets_have_the_wider_of_two():
    truth = events([(0, 0, 1.0, 3.0)])
    assert event_based(truth, events([(0, 0, 1.25, 3.0)]), 0.25).correct.tolist() == [1]
    assert event_based(truth, events([(0, 0, 1.2500001, 3.0)]), 0.25).correct.tolist() == [0]
    late = events([(0, 0, 1.0, 3.5)])
    assert [event_based(truth, late, 0.25, share).correct.item() for share in (None, 0.25, 0.2)] == [1, 1, 0]
    # the length is the true event's, not the detection's
    assert event_based(late, truth, 0.25, 0.2).correct.item() == 1


def test_classes_with_no_events_are_left_out_and_silent_ones_as_asked():
    truth = events([(0, 0, 1, 2), (0, 1, 1, 2)], classes=4)
    found = events([(0, 0, 1, 2), (0, 2, 5, 6)], classes=4)
    agreement = event_based(truth, found)
    np.testing.assert_array_equal(agreement.per_class().f1, [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(agreement.per_class().precision, [1, np.nan, 0, np.nan])
    assert agreement.macro().f1 == 1
    zero = event_based(truth, found, silent_is_zero=True)
    np.testing.assert_array_equal(zero.per_class().f1, [1, 0, np.nan, np.nan])
    assert zero.macro().f1 == 0.5
    nothing = event_based(events([], classes=2), events([], classes=2))
    assert math.isnan(nothing.overall().f1) and math.isnan(nothing.macro().f1) and nothing.overall().error_rate == 0


def test_error_rate_counts_a_wrong_class_once():
    truth = events([(0, 0, 1, 2), (0, 0, 4, 5), (0, 1, 7, 8)], classes=2)
    found = events([(0, 1, 1, 2), (0, 1, 7, 8), (0, 0, 9, 10)], classes=2)
    agreement = event_based(truth, found)
    assert (agreement.substitutions, agreement.deletions, agreement.insertions) == (1, 1, 1)
    assert agreement.overall().error_rate == pytest.approx(1.0)
    assert agreement.overall().f1 == pytest.approx(1 / 3)


@settings(max_examples=50, deadline=None)
@given(two_tables(), st.randoms(use_true_random=False))
def test_f1_does_not_depend_on_the_order_of_events(tables, random):
    truth, found = tables

    def shuffled(table):
        order = list(range(len(table.clip)))
        random.shuffle(order)
        rows = np.stack([table.clip, table.label, table.onset, table.offset], 1)[order]
        return events(rows, len(table.ids), len(table.classes))

    before, after = event_based(truth, found, 0.1, 0.2), event_based(shuffled(truth), shuffled(found), 0.1, 0.2)
    np.testing.assert_array_equal(before.correct, after.correct)
    np.testing.assert_array_equal(before.per_class().f1, after.per_class().f1)


def test_a_fold_of_piano_music_takes_seconds():
    rng = np.random.default_rng(0)
    count, clips, classes = 30_000, 1000, 88
    rows = np.stack(
        [rng.integers(0, clips, count), rng.integers(0, classes, count), np.round(rng.uniform(0, 120, count), 3)], 1
    )
    truth = events(np.column_stack([rows, rows[:, 2] + 0.3]), clips, classes, 120.0)
    moved = rows + [0, 0, 1] * rng.normal(0, 0.04, (count, 1))
    found = events(np.column_stack([moved, moved[:, 2] + 0.3]), clips, classes, 120.0)
    started = time.process_time()
    agreement = event_based(truth, found, 0.05, 0.2)
    assert time.process_time() - started < 5
    within = np.abs(found.onset - truth.onset) <= 0.05
    assert within.sum() <= agreement.correct.sum() <= 1.02 * within.sum()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (events([], clips=2), "ids of the truth"),
        (events([], classes=2), "classes of the truth .* differ in class1"),
    ],
)
def test_event_figures_refuse_tables_of_other_clips_or_classes(found, message):
    with pytest.raises(ValueError, match=message):
        event_based(events([]), found)
    with pytest.raises(ValueError, match="must not be negative"):
        event_based(events([]), events([]), -0.1)
