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


def test_there_is_a_case_of_every_kind():
    assert {json.loads(file.read_text())["model"] for file in FIXTURES} == set(RUN)


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_outputs_equal_the_public_implementation(file):
    case = json.loads(file.read_text())
    lines = check(case)
    assert [line.output for line in lines] == list(case["outputs"])
    assert [f"{line.output}: {line.error:.2e} > {line.allowed:.0e}" for line in lines if not line.good] == []


def checker(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, HERE / "run.py", *files], capture_output=True, text=True, timeout=300)


def test_the_checker_ends_with_1_for_a_wrong_output_and_prints_every_error(tmp_path):
    case = json.loads((FIXTURES[0].parent / "eat_frontend_10s.json").read_text())
    good = checker(FIXTURES[0].parent / "eat_frontend_10s.json")
    assert good.returncode == 0 and good.stdout.count(" ok") == len(case["outputs"])
    case["outputs"]["normalised"]["values"][3] += 0.1
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(case))
    done = checker(wrong)
    assert done.returncode == 1
    assert done.stdout.count("TOO LARGE") == 1 and done.stdout.count(" ok") == len(case["outputs"]) - 1


def test_the_checker_names_kinds_it_does_not_know(tmp_path):
    unknown, broken = tmp_path / "unknown.json", tmp_path / "broken.json"
    unknown.write_text(json.dumps({"model": "cnn14"}))
    broken.write_text("{")
    done = checker(unknown, broken)
    assert done.returncode == 2
    assert "unknown kind 'cnn14'; known: eat_frontend" in done.stderr
    assert f"{broken}: not a parity case" in done.stderr
