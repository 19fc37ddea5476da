"""Public implementations, as numbers: every case under tests/fixtures/parity, and what the checker says of others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FIXTURES = sorted((HERE.parent / "fixtures" / "parity").glob("*.json"))
sys.path.insert(0, str(HERE))  # the checker is a program; its parts import each other by name

from cases import RUN, check  # noqa: E402
from tables import RUN_TABLES, Line, kind_of  # noqa: E402

CASES = {file.stem: json.loads(file.read_text()) for file in FIXTURES}
MODELS = [name for name, case in CASES.items() if kind_of(case) in RUN]


def too_large(lines: list[Line]) -> list[str]:
    return [f"{line.output}: {line.error:.2e} > {line.allowed:.0e}" for line in lines if not line.good]


def test_there_is_a_case_of_every_kind() -> None:
    assert {kind_of(case) for case in CASES.values()} == RUN.keys() | RUN_TABLES.keys()


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_the_public_implementation(name: str) -> None:
    lines = check(CASES[name])
    assert [line.output for line in lines] == list(CASES[name]["outputs"])
    assert too_large(lines) == []


def test_forward_and_backward_cost_what_the_public_code_costs() -> None:
    lines = check(CASES["forward_macs"])
    assert len(lines) == 8 and not any(line.skipped for line in lines)
    assert too_large(lines) == []


@pytest.mark.parametrize(("name", "count"), [("sed_augmentations", 9), ("sed_label_encoding", 9)])
def test_training_for_sound_events_changes_clips_as_the_public_code_does(name: str, count: int) -> None:
    lines = check(CASES[name])
    assert len(lines) == count and not any(line.skipped for line in lines)
    assert too_large(lines) == []


def test_every_published_saving_follows_from_our_costs_and_our_rule() -> None:
    lines = check(CASES["coarse_to_fine_savings"])
    assert len(lines) == 3 * 56
    assert too_large(lines) == []


def test_a_saving_that_is_not_the_published_one_is_told() -> None:
    rows = [dict(CASES["coarse_to_fine_savings"]["rows"][0]) for _ in range(4)]
    rows[1]["published_flops_saving"] += 0.03
    rows[2]["epochs"] = [6, 3]
    rows[3]["method"] = "shuffle"
    lines = check({"rows": rows})
    assert [line.good for line in lines] == [True] * 3 + [False, True, False] + [False] * 6
    assert [line.wrong for line in lines[9:]] == [False] * 3
    assert lines[-1].skipped == "no shuffle of ast yet"


def checker(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, HERE / "run.py", *files], capture_output=True, text=True, timeout=300)


def test_the_checker_ends_with_1_for_a_wrong_output_and_prints_every_error(tmp_path: Path) -> None:
    case = json.loads((FIXTURES[0].parent / "eat_frontend_10s.json").read_text())
    good = checker(FIXTURES[0].parent / "eat_frontend_10s.json")
    assert good.returncode == 0 and good.stdout.count(" ok") == len(case["outputs"])
    case["outputs"]["normalised"]["values"][3] += 0.1
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(case))
    done = checker(wrong)
    assert done.returncode == 1
    assert done.stdout.count("TOO LARGE") == 1 and done.stdout.count(" ok") == len(case["outputs"]) - 1


def test_the_checker_names_kinds_it_does_not_know(tmp_path: Path) -> None:
    unknown, broken = tmp_path / "unknown.json", tmp_path / "broken.json"
    unknown.write_text(json.dumps({"model": "vggish"}))
    broken.write_text("{")
    done = checker(unknown, broken)
    assert done.returncode == 2
    assert "unknown kind 'vggish'; known: eat_frontend" in done.stderr
    assert f"{broken}: not a parity case" in done.stderr
