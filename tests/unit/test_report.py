"""The report folder: whole files, honest tables, a page that needs nothing but itself."""

import csv
import errno
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from c2ftool.errors import RunError
from c2ftool.metrics.cost_figure import CostCurve, cost_figure
from c2ftool.metrics.curve_figure import _panels, curve_figure
from c2ftool.metrics.figures import _ticks, class_figure, confusion_figure
from c2ftool.metrics.report import write_report
from c2ftool.metrics.report_page import flops_text, seconds_text
from c2ftool.metrics.results import evaluate_clips

PHASES = [
    {"name": "coarse", "first_step": 1, "last_step": 10, "flops": 2.5e12, "seconds": 4.0, "clips": 120},
    {"name": "fine <b>", "first_step": 11, "last_step": 30, "flops": 7.5e12, "seconds": 66.0, "clips": 240},
]
CURVES = {
    "train/loss": [(step, 2.0 / step) for step in range(1, 31)],
    "valid/accuracy": [(10, 0.5), (30, 0.75)],
    "train/lr": [(1, 0.1), (30, 0.0)],
    "never": [],
}
NAMES = ["<script>alert(1)</script>", 'a "quoted", name', "cost $x_1$ & more"]


def single_label(names=NAMES, clips=40):
    rng = np.random.default_rng(1)
    targets = np.eye(len(names))[rng.integers(0, len(names), clips)]
    return evaluate_clips(targets, 2 * targets + rng.normal(size=targets.shape), names, ["accuracy", "map"], False)


def multi_label(classes=7):
    rng = np.random.default_rng(2)
    targets = rng.random((50, classes)) < 0.3
    targets[:, 2] = False
    names = [f"class {number}" for number in range(classes)]
    return evaluate_clips(targets, rng.normal(size=targets.shape), names, ["map", "auc"], True)


class Page(HTMLParser):
    """Checks that tags close in order; collects what is shown and what is referred to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "img", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "h1"):
            self.cells.append(data)


def png_size(content):
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_report_of_single_label_clips_holds_tables_figures_and_page(tmp_path):
    results = single_label()
    written = write_report(tmp_path / "report", "A <title>", results, CURVES, PHASES, {"seed": 20260101, "lr": 1e-4})
    assert sorted(p.name for p in written) == files_of(tmp_path / "report")
    assert {p.name for p in written} == {
        "index.html", "per_class.csv", "confusion.csv", "curves.png", "per_class.png", "confusion.png",
    }  # fmt: skip
    for path in written:
        if path.suffix == ".png":
            width, height = png_size(path.read_bytes())
            assert 300 < width < 2500 and 200 < height < 2500


def test_the_page_is_self_contained_and_escapes_every_name(tmp_path):
    folder = tmp_path / "report"
    write_report(folder, "A <title>", single_label(), CURVES, PHASES, {"<i>note</i>": "<u>text</u>", "seed": 20260101})
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert {"script", "b", "i", "u", "link", "iframe"}.isdisjoint(page.tags)
    assert page.references and all((folder / name).is_file() for name in page.references)
    assert not re.search(r"https?:|url\(|@import", text)
    assert {"A <title>", *NAMES, "fine <b>", "<i>note</i>", "<u>text</u>", "20260101"} <= set(page.cells)


def test_the_cost_table_says_steps_clips_flops_seconds_and_pace(tmp_path):
    write_report(tmp_path, "t", None, {}, PHASES, {})
    cells = Page((tmp_path / "index.html").read_text()).cells
    assert " | ".join(cells) == (
        "t | 1 | coarse | 10 | 120 | 2.5 TFLOP | 4 s | 30.0"
        " | 2 | fine <b> | 20 | 240 | 7.5 TFLOP | 1 min 06 s | 3.6"
        " | all | 30 | 360 | 10 TFLOP | 1 min 10 s | 5.1"
    )


def test_costs_that_were_not_counted_are_dashes_and_the_front_end_stands_apart(tmp_path):
    first = {**PHASES[0], "flops": None, "seconds": 0.0, "frontend_flops": 1e9}
    write_report(tmp_path, "t", None, {}, [first, PHASES[1]], {})
    cells = Page((tmp_path / "index.html").read_text()).cells
    assert " | ".join(cells) == (
        "t | 1 | coarse | 10 | 120 | - | 1 GFLOP | 0 s | -"
        " | 2 | fine <b> | 20 | 240 | 7.5 TFLOP | - | 1 min 06 s | 3.6"
        " | all | 30 | 360 | - | 1 GFLOP | 1 min 06 s | 5.5"
    )


def test_why_phases_ended_is_a_column_where_some_phase_says_so(tmp_path):
    said = [PHASES[0], {**PHASES[1], "ended": "surpasses <accuracy> 0.81"}]
    write_report(tmp_path, "t", None, {}, said, {})
    text = (tmp_path / "index.html").read_text()
    assert '<th class="note">ended by</th>' in text
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in text.split("<tr")]
    assert [row[-1] for row in rows if row] == ["", "surpasses &lt;accuracy&gt; 0.81", ""]
    write_report(tmp_path, "t", None, {}, [{**PHASES[0], "ended": None}, PHASES[1]], {})
    assert "ended by" not in (tmp_path / "index.html").read_text()


def test_savings_and_the_figure_of_costs_stand_under_the_costs(tmp_path):
    picture = cost_figure([CostCurve("c2f", [(1e12, 0.5)], "run")], "map", [("coarse", 0, 1e12)])
    rows = [("baseline", "run <base>, best 0.812 after 10 epochs"), ("saved FLOPs, first beat", "58.3 %")]
    written = write_report(tmp_path, "t", None, CURVES, PHASES, {"seed": 1}, cost=picture, savings=rows)
    assert {path.name for path in written} == {"index.html", "curves.png", "cost.png"}
    assert (tmp_path / "cost.png").read_bytes() == picture
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert {"run <base>, best 0.812 after 10 epochs", "58.3 %"} <= set(page.cells) and "cost.png" in page.references
    order = [text.index(part) for part in ("<h2>Cost", "FLOPs are", "<h3>Savings", 'src="cost.png"', "<h2>Run")]
    assert order == sorted(order)


def test_savings_are_shown_without_phases_and_neither_without_being_given(tmp_path):
    write_report(tmp_path / "a", "t", None, {}, [], {}, savings=[("control", "not run")])
    assert Page((tmp_path / "a" / "index.html").read_text()).cells == ["t", "control", "not run"]
    write_report(tmp_path / "b", "t", None, {}, PHASES, {})
    text = (tmp_path / "b" / "index.html").read_text()
    assert "Savings" not in text and "cost.png" not in text


def test_tables_hold_the_numbers_in_full(tmp_path):
    results = single_label()
    write_report(tmp_path, "t", results, {}, [], {})
    head, *rows = read_csv(tmp_path / "per_class.csv")
    assert head == ["class", "clips", "recall", "precision", "ap", "auc"]
    assert [row[0] for row in rows] == NAMES
    assert [float(row[4]) for row in rows] == [row.ap for row in results.per_class]
    head, *rows = read_csv(tmp_path / "confusion.csv")
    assert head == ["label", *NAMES]
    assert results.confusion is not None
    assert [[int(cell) for cell in row[1:]] for row in rows] == results.confusion.tolist()


def test_a_multi_label_report_has_no_confusion_and_names_classes_without_clips(tmp_path):
    write_report(tmp_path, "t", multi_label(), {}, [], {})
    assert files_of(tmp_path) == ["index.html", "per_class.csv", "per_class.png"]
    assert read_csv(tmp_path / "per_class.csv")[3] == ["class 2", "0", "", ""]
    assert "No clip has the label of class 2:" in (tmp_path / "index.html").read_text()


def test_a_report_of_a_run_without_evaluation_has_curves_and_costs_only(tmp_path):
    write_report(tmp_path, "t", None, CURVES, PHASES, {})
    assert files_of(tmp_path) == ["curves.png", "index.html"]


def test_the_same_results_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / name, "t", single_label(), CURVES, PHASES, {})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_full_disk_leaves_the_old_report_whole_and_no_temporary_file(tmp_path, monkeypatch):
    write_report(tmp_path, "old", None, {}, PHASES, {})
    old = (tmp_path / "index.html").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        write_report(tmp_path, "new", None, {}, PHASES, {})
    assert (caught.value.place or "").startswith(str(tmp_path)) and caught.value.cure
    assert files_of(tmp_path) == ["index.html"] and (tmp_path / "index.html").read_bytes() == old


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="report: cannot be written"):
        write_report(tmp_path / "file" / "report", "t", None, {}, [], {})


@pytest.mark.parametrize("classes", [2, 35, 150])
def test_figures_of_few_and_many_classes_stay_within_a_page(classes):
    names = [f"a rather long name of a class, number {number}" for number in range(classes)]
    confusion = np.diag(np.arange(classes)) + 1
    assert max(png_size(confusion_figure(confusion, names))) < 2200
    values = [(name, number / classes if number % 7 else None) for number, name in enumerate(names)]
    assert max(png_size(class_figure(values, "recall"))) < 2200


def test_figures_cope_with_nothing_to_show():
    png_size(class_figure([("a", None)], "recall"))
    png_size(confusion_figure(np.zeros((2, 2), np.int64), ["a", "b"]))
    png_size(curve_figure({"loss": [(5, float("nan"))]}, []))
    png_size(curve_figure({"loss": [(step, float("nan")) for step in range(1000)]}, [("p", 1, 0)]))
    with pytest.raises(ValueError, match="no curve"):
        curve_figure({"loss": []}, [])


def test_long_curves_are_drawn_in_stretches():
    curve = [(step, 1 + step % 7) for step in range(100_000)]
    assert max(png_size(curve_figure({"train/loss": curve, "_x$": curve[:5]}, [("coarse", 0, 99_999)]))) < 2200


def test_losses_share_a_panel_scores_another_and_the_rest_have_their_own():
    names = ["train/loss", "valid/accuracy", "train/lr", "loss_frame", "valid.map", "d_prime", "fine/lr"]
    assert _panels({name: [(1, 1.0)] for name in names}) == {
        "loss": ["train/loss", "loss_frame"],
        "score": ["valid/accuracy", "valid.map"],
        "lr": ["train/lr", "fine/lr"],
        "d_prime": ["d_prime"],
    }


@pytest.mark.parametrize("count", [61, 99, 100, 309, 527, 1000, 1251])
def test_class_numbers_at_an_axis_are_round_and_few(count):
    ticks = _ticks(count)
    assert 5 <= len(ticks) <= 13 and ticks[0] == 1 and ticks[-1] <= count


def test_amounts_are_written_as_people_read_them():
    assert [flops_text(f) for f in (None, 0, 999, 1234, 2.91e11, 1e15)] == [
        "-", "0 FLOP", "999 FLOP", "1.234 kFLOP", "291 GFLOP", "1 PFLOP",
    ]  # fmt: skip
    assert [seconds_text(s) for s in (0.5, 4.25, 59.99, 185, 7620)] == [
        "0.5 s", "4.25 s", "1 min 00 s", "3 min 05 s", "2 h 07 min",
    ]  # fmt: skip
