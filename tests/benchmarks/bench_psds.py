"""What the detection metrics cost: PSDS of a set as large as AudioSet Strong's, PSDS and median filter against others.

JSON lines. `psds_full` (each in a process of its own): processor seconds of PSDS1, of the median filter of 9 frames in
place and of PSDS1 after it, and the peak memory of the process with the scores in it. `psds` and `median`: the same
work by sed_scores_eval (one job) and by scipy in the same run, the faster of two calls each, of ours of five.
Scores are random walks with the truth's events lifted out of them, made on the fly.

    python tests/benchmarks/bench_psds.py [--clips 16935] [--classes 407] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from c2ftool.metrics.median import median_filter
from c2ftool.metrics.psds import PSDS1, PSDS2, psds
from c2ftool.metrics.tables import FrameScores, Truth

FRAMES, FRAME = 250, 0.04


def make_truth(clips: int, classes: int, rng: np.random.Generator) -> Truth:
    """About 6 events per clip, of classes whose frequencies fall as 1 / rank, of 0.1 to 10 s, none touching another."""
    share = 1 / (np.arange(classes) + 3.0)
    count = 7 * clips
    clip = rng.integers(0, clips, count)
    label = rng.choice(classes, count, p=share / share.sum())
    label[:classes] = np.arange(classes)
    length = 10 ** rng.uniform(-1, 1, count)
    onset = np.round(rng.uniform(0, 10 - length * 0.999), 3)
    offset = np.round(np.minimum(onset + length, 10.0), 3)
    order = np.lexsort((onset, label, clip))
    clip, label, onset, offset = clip[order], label[order], onset[order], offset[order]
    key = (clip * classes + label) * 100.0
    before = np.concatenate(([-1.0], np.maximum.accumulate(key + offset)[:-1]))
    kept = key + onset > before + 1e-6
    durations = np.where(rng.random(clips) < 0.1, rng.uniform(1, 10, clips), 10.0)
    ids, names = tuple(f"clip{i}" for i in range(clips)), tuple(f"class{i}" for i in range(classes))
    return Truth(ids, names, durations, clip[kept], label[kept], onset[kept], offset[kept])


def make_scores(truth: Truth, dtype: str, rng: np.random.Generator) -> FrameScores:
    """Logits: a random walk per clip and class, 8 higher where there is an event."""
    clips, classes = len(truth.ids), len(truth.classes)
    values = np.empty((clips, classes, FRAMES), dtype)
    for start in range(0, clips, 32):
        block = rng.standard_normal((min(32, clips - start), classes, FRAMES), dtype=np.float32)
        block *= 0.25
        block[..., 0] *= 4
        np.cumsum(block, axis=2, out=block)
        values[start : start + 32] = block - 6
    for clip, label, onset, offset in zip(truth.clip, truth.label, truth.onset, truth.offset, strict=True):
        values[clip, label, int(onset / FRAME) : int(np.ceil(offset / FRAME))] += 8
    return FrameScores(truth.ids, truth.classes, values, np.full(clips, FRAMES), FRAME)


def processor_seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Processor time of the fastest of some calls, all threads together."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def full(clips: int, classes: int, dtype: str) -> None:
    """PSDS1 of the whole set, before and after the median filter."""
    rng = np.random.default_rng(0)
    truth = make_truth(clips, classes, rng)
    scores = make_scores(truth, dtype, rng)
    result = []
    seconds = processor_seconds(lambda: result.append(psds(scores, truth, PSDS1)))
    filtering = processor_seconds(lambda: median_filter(scores.values, 9, out=scores.values))
    after = processor_seconds(lambda: result.append(psds(scores, truth, PSDS1)))
    line = {
        "benchmark": "psds_full",
        "dtype": dtype,
        "clips": clips,
        "classes": classes,
        "events": len(truth.label),
        "cpu_s": round(seconds, 1),
        "wanted_cpu_s": 60,
        "median_cpu_s": round(filtering, 1),
        "cpu_s_filtered": round(after, 1),
        "scores_gb": round(scores.values.nbytes / 1e9, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "wanted_peak_gb": 10,
        "psds1": [round(each.macro, 4) for each in result],
    }
    print(json.dumps(line), flush=True)


def against_library(clips: int, classes: int) -> None:
    """PSDS1 and PSDS2 against sed_scores_eval on the same scores."""
    from sed_scores_eval import intersection_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    rng = np.random.default_rng(1)
    truth = make_truth(clips, classes, rng)
    scores = make_scores(truth, "float32", rng)
    borders = np.arange(FRAMES + 1) * FRAME
    names = list(truth.classes)
    tables = {name: create_score_dataframe(scores.values[row].T, borders, names) for row, name in enumerate(truth.ids)}
    events: dict[str, list[tuple[float, float, str]]] = {name: [] for name in truth.ids}
    for clip, label, onset, offset in zip(truth.clip, truth.label, truth.onset, truth.offset, strict=True):
        events[truth.ids[clip]].append((float(onset), float(offset), names[label]))
    durations = dict(zip(truth.ids, truth.durations.tolist(), strict=True))
    for name, setting in (("psds1", PSDS1.penalised(1)), ("psds2", PSDS2.penalised(1))):
        if name == "psds2" and classes > 50:
            continue  # the library compares every detection with every class
        ours, theirs = [], []
        seconds = processor_seconds(lambda s=setting, o=ours: o.append(psds(scores, truth, s)), 5)
        library = processor_seconds(
            lambda s=setting, o=theirs: o.append(
                intersection_based.psds(
                    tables, events, durations, dtc_threshold=s.dtc, gtc_threshold=s.gtc, cttc_threshold=s.cttc,
                    alpha_ct=s.alpha_ct, alpha_st=s.alpha_st, max_efpr=s.max_efpr,
                )
            ),
            2,
        )  # fmt: skip
        line = {
            "benchmark": "psds",
            "metric": name,
            "clips": clips,
            "classes": classes,
            "cpu_s": round(seconds, 3),
            "sed_scores_eval_cpu_s": round(library, 1),
            "times_faster": round(library / seconds, 1),
            "wanted": 20,
            "difference": abs(ours[0].value - theirs[0][0]),
        }
        print(json.dumps(line), flush=True)


def median(clips: int, classes: int) -> None:
    """The median filter against scipy's."""
    import scipy.ndimage

    rng = np.random.default_rng(2)
    values = make_scores(make_truth(clips, classes, rng), "float32", rng).values
    half = values.astype(np.float16)
    place, half_place = np.zeros_like(values), np.zeros_like(half)  # both write into memory that is there
    for window in (9, 7, 12):
        seconds = processor_seconds(lambda w=window: median_filter(values, w, out=place), 5)
        seconds_half = processor_seconds(lambda w=window: median_filter(half, w, out=half_place), 5)
        scipys = processor_seconds(
            lambda w=window: scipy.ndimage.median_filter(values, (1, 1, w), mode="reflect", output=place), 2
        )
        line = {
            "benchmark": "median",
            "window": window,
            "shape": list(values.shape),
            "cpu_s": round(seconds, 3),
            "float16_cpu_s": round(seconds_half, 3),
            "scipy_cpu_s": round(scipys, 2),
            "times_faster": round(scipys / seconds, 1),
            "wanted": 20,
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=16_935)
    parser.add_argument("--classes", type=int, default=407)
    parser.add_argument("--only", choices=["float32", "float16", "library", "median"])
    options = parser.parse_args()
    if options.only in ("float32", "float16"):
        full(options.clips, options.classes, options.only)
    if options.only in (None, "library"):
        against_library(min(400, options.clips), options.classes)
        against_library(min(1168, options.clips), min(10, options.classes))  # as large as DESED's validation set
    if options.only in (None, "median"):
        median(min(400, options.clips), options.classes)
    if options.only is None:
        size = ["--clips", str(options.clips), "--classes", str(options.classes)]
        for dtype in ("float32", "float16"):
            subprocess.run([sys.executable, __file__, *size, "--only", dtype], check=True)


if __name__ == "__main__":
    main()
