"""Metrics against the libraries whose values they equal, in one process: one JSON line.

`map`: average precision of 20,000 clips x 527 classes, about 1 % positives, scores of 16 bits in float32 (so that many
are equal), against scikit-learn class by class. `event_f1`: onset and offset F1 of piano-like clips of 120 s with 88
classes and a thousand notes, against sed_eval on the first of them. `pauroc`: the partial area under the ROC curve of
segments, against sed_scores_eval on the first clips of the set.

`ratio` is their time over ours for the same work: above 1, ours is quicker; both run in turn, and it is the median over
pairs, so that a busy machine slows both. `seconds` is ours for the whole set. `difference` is the largest between both.

    python tests/benchmarks/bench_metrics.py [--pairs 3] [--only map event_f1 pauroc]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from c2ftool.metrics.average_precision import average_precision
from c2ftool.metrics.events import event_based
from c2ftool.metrics.segments import partial_auroc
from c2ftool.metrics.tables import FrameScores, Truth

WANTED = {"map": 10.0, "event_f1": 10.0, "pauroc": 10.0}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what came of it)."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> dict[str, float]:
    """Times, ratio and largest difference of two ways to the same numbers; the first pair is to warm up."""
    ratios, fast, slow = [], [], []
    for pair in range(-1, pairs):
        both = [timed(work) for work in ((ours, theirs) if pair % 2 else (theirs, ours))]
        (quick, value), (long, other) = both if pair % 2 else both[::-1]
        difference = float(np.nanmax(np.abs(np.asarray(value) - np.asarray(other))))
        if pair >= 0:
            ratios.append(long / quick)
            fast.append(quick)
            slow.append(long)
    return {
        "difference": float(f"{difference:.2g}"),
        "ours_seconds": round(statistics.median(fast), 4),
        "theirs_seconds": round(statistics.median(slow), 4),
        "ratio": round(statistics.median(ratios), 1),
    }


def bench_map(pairs: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    targets = rng.random((20_000, 527)) < 0.01
    scores = (rng.normal(size=targets.shape) + 1.5 * targets).astype(np.float16).astype(np.float32)

    def theirs() -> Any:
        return average_precision_score(targets, scores, average=None)

    figures = compare(lambda: average_precision(targets, scores), theirs, pairs)
    return {"clips": 20_000, "classes": 527, **figures, "seconds": figures["ours_seconds"]}


def piano(clips: int, notes: int) -> tuple[Truth, Truth]:
    """Notes of 88 pitches, and detections of most of them, some off by more than the collar, some too many."""
    rng = np.random.default_rng(0)
    clip, label = np.sort(rng.integers(0, clips, notes)), rng.integers(0, 88, notes)
    onset = np.round(rng.uniform(0, 120, notes), 3)
    names = tuple(f"clip{n}" for n in range(clips)), tuple(f"pitch{n}" for n in range(88))
    truth = Truth(*names, np.full(clips, 120.0), clip, label, onset, onset + 0.4)
    told = np.append(np.flatnonzero(rng.random(notes) < 0.8), rng.integers(0, notes, notes // 5))
    moved = np.maximum(onset[told] + rng.normal(0, 0.04, len(told)), 0)
    wrong = np.where(rng.random(len(told)) < 0.1, rng.integers(0, 88, len(told)), label[told])
    return truth, Truth(*names, truth.durations, clip[told], wrong, moved, moved + 0.4)


def bench_event_f1(pairs: int) -> dict[str, Any]:
    from sed_eval.sound_event import EventBasedMetrics

    truth, found = piano(300, 300_000)
    few = np.arange(1)
    some, heard = truth.of_clips(few), found.of_clips(few)

    def listed(table: Truth, clip: int) -> list[dict[str, Any]]:
        rows = np.flatnonzero(table.clip == clip)
        columns = (table.label[rows].tolist(), table.onset[rows].tolist(), table.offset[rows].tolist())
        return [
            {"file": table.ids[clip], "event_label": table.classes[c], "event_onset": on, "event_offset": off}
            for c, on, off in zip(*columns, strict=True)
        ]

    def ours() -> list[float]:
        agreement = event_based(some, heard, 0.05, 0.2)
        return [agreement.overall().f1, agreement.macro().f1, agreement.overall().error_rate]

    lists = [(listed(some, clip), listed(heard, clip)) for clip in range(len(few))]

    def theirs() -> list[float]:
        metrics = EventBasedMetrics(list(truth.classes), t_collar=0.05, percentage_of_length=0.2)
        for reference, estimated in lists:
            metrics.evaluate(reference, estimated)
        overall, mean = metrics.results_overall_metrics(), metrics.results_class_wise_average_metrics()
        f1 = [part["f_measure"]["f_measure"] for part in (overall, mean)]
        return [*f1, overall["error_rate"]["error_rate"]]

    whole = statistics.median(timed(lambda: event_based(truth, found, 0.05, 0.2))[0] for _ in range(3))
    figures = compare(ours, theirs, pairs)
    return {"clips": 300, "notes": 300_000, "compared_clips": len(few), **figures, "seconds": round(whole, 4)}


def bench_pauroc(pairs: int) -> dict[str, Any]:
    from sed_scores_eval.base_modules.scores import create_score_dataframe
    from sed_scores_eval.segment_based import auroc

    clips, classes, few = 1000, 100, 60
    rng = np.random.default_rng(0)
    names = tuple(f"clip{n:04}" for n in range(clips)), tuple(f"class{n}" for n in range(classes))
    values = rng.normal(size=(clips, classes, 250)).astype(np.float32)
    scores = FrameScores(*names, values, np.full(clips, 250), 0.04)
    clip = np.concatenate([np.arange(classes) % few, rng.integers(0, clips, 4000)])
    label = np.concatenate([np.arange(classes), rng.integers(0, classes, 4000)])
    onset = np.concatenate([np.zeros(classes), rng.uniform(1, 9, 4000)])
    where = np.unique(clip * classes + label, return_index=True)[1]  # one event of a class in a clip: none touch
    truth = Truth(*names, np.full(clips, 10.0), clip[where], label[where], onset[where], onset[where] + 0.8)
    some = truth.of_clips(np.arange(few))
    part = FrameScores(some.ids, scores.classes, values[:few], scores.frames[:few], 0.04)
    borders = np.round(np.arange(251) * 0.04, 6)
    frames = {
        name: create_score_dataframe(table.T.astype(np.float64), borders, list(scores.classes))
        for name, table in zip(part.ids, part.values, strict=True)
    }
    events: dict[str, list[tuple[float, float, str]]] = {name: [] for name in some.ids}
    for number, kind, on, off in zip(some.clip, some.label, some.onset, some.offset, strict=True):
        events[some.ids[number]].append((float(on), float(off), some.classes[kind]))
    durations = dict.fromkeys(some.ids, 10.0)

    def theirs() -> list[float]:
        areas = auroc(frames, events, durations, segment_length=1.0, max_fpr=0.1)[0]
        return [areas[name] for name in scores.classes]

    whole = statistics.median(timed(lambda: partial_auroc(scores, truth))[0] for _ in range(3))
    figures = compare(lambda: partial_auroc(part, some), theirs, pairs)
    return {"clips": clips, "classes": classes, "compared_clips": few, **figures, "seconds": round(whole, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=sorted(WANTED), default=sorted(WANTED))
    options = parser.parse_args()
    benches = {"map": bench_map, "event_f1": bench_event_f1, "pauroc": bench_pauroc}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        results = {name: benches[name](options.pairs) | {"wanted": WANTED[name]} for name in options.only}
    print(json.dumps({"benchmark": "metrics", "metrics": results}))


if __name__ == "__main__":
    main()
