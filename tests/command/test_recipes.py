"""The shell recipes ask for specs, arguments and names that exist: run with a stand-in for c2f that writes down."""

import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.spec.adapters import per_rank
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import load_spec

ROOT = Path(__file__).parents[2]
WRITER = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


def calls(recipe: str, tmp_path: Path, **settings: str) -> list[list[str]]:
    """The arguments of every c2f that the recipe calls."""
    stand_in = tmp_path / "bin" / "c2f"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(WRITER.format(python=sys.executable))
    stand_in.chmod(0o755)
    log = tmp_path / "calls"
    log.unlink(missing_ok=True)
    env = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "CALLS": str(log), **settings}
    env |= {"C2F_DATA": str(tmp_path / "data"), "C2F_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(["bash", ROOT / "recipes" / recipe], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


def loaded(call: list[str]) -> tuple[str, object]:
    """(name of the run, spec) of a training call; the spec must check."""
    words = [word for word in call[2:] if "=" in word]
    spec = load_spec(str(ROOT / call[1]), words).spec
    assert spec.task == call[0]
    return (call[call.index("--run") + 1] if "--run" in call else spec.name), spec


@pytest.mark.parametrize(("name", "rows"), [("vggsound", 15), ("audioset", 10)])
def test_a_paper_table_trains_the_baseline_every_row_and_the_control(name, rows, tmp_path):
    made = calls("coarse_to_fine.sh", tmp_path, SET=name, FROM="raw")
    assert made[0] == ["prepare", name, "--from", "raw"]
    trained = [loaded(call) for call in made if call[0] == "finetune"]
    names = [run for run, _ in trained]
    assert names[0] == f"{name}-baseline" and len(set(names)) == len(names)
    controls = [spec for _, spec in trained if spec.control == "restart"]
    assert len(trained) == 1 + rows + len(controls) and len(controls) == (2 if rows == 15 else 1)
    assert all(phase.stop is None for spec in controls for phase in spec.phases)
    assert {spec.savings.control for _, spec in trained[1:] if spec.control == "none"} <= set(names)
    assert made[-1] == ["evaluate", *names]


def test_one_array_task_trains_one_row(tmp_path):
    made = calls("coarse_to_fine.sh", tmp_path, SET="voxceleb1", FROM="raw", ROW="3")
    assert [call[0] for call in made] == ["prepare", "flops", "finetune"]
    assert loaded(made[-1])[0] == "voxceleb1-avg-pool-4-1"


def test_convergence_takes_the_stop_rule_away(tmp_path):
    made = calls("coarse_to_fine.sh", tmp_path, SET="vggsound", FROM="raw", ROW="1", TABLE="convergence")
    assert loaded(made[-1])[1].phases[-1].stop is None


def test_the_small_study_is_whole(tmp_path):
    made = calls("coarse_to_fine_small.sh", tmp_path, ESC10="a", FSDD="b", SEEDS="1 2 3")
    assert [call[:2] for call in made if call[0] == "prepare"] == [["prepare", "esc50"], ["prepare", "speech_commands"]]
    for set_, evaluation in zip(("esc10", "digits"), [c for c in made if c[0] == "evaluate"], strict=True):
        trained = dict(loaded(call) for call in made if call[0] == "finetune" and f"c2f_{set_}" in call[1])
        assert len(trained) == 12 * 3
        groups = {run.partition("/")[0] for run in trained}
        assert groups == set(evaluation[1:-2]) and len(groups) == 12
        methods = {
            "-".join(f"{c.method}{c.factor}" for c in (p.compression or spec.compression for p in spec.phases))
            for spec in trained.values()
            if spec.control == "none"
        }
        assert len(methods) == 10
        assert {spec.savings.control for spec in trained.values() if spec.savings and spec.savings.control} <= groups
        if set_ == "esc10":
            assert all(spec.data.fold == spec.seed for spec in trained.values())


def test_every_family_is_fine_tuned_in_its_smallest_size(tmp_path):
    made = calls("backbones_small.sh", tmp_path, ESC10="a")
    trained = dict(loaded(call) for call in made if call[0] == "finetune")
    assert {BACKBONES[name].family for name in trained} == {size.family for size in BACKBONES.values()}
    assert all(spec.model.backbone == name and spec.data.folds == [1, 2, 3] for name, spec in trained.items())
    assert made[-1] == ["evaluate", *trained, "--metric", "accuracy"]


def test_detection_goes_from_teachers_to_students(tmp_path):
    made = calls("sed.sh", tmp_path, ESC10="a", PYTHON="true")
    assert [call[:2] for call in made if call[0] == "prepare"] == [["prepare", "esc50"], ["prepare", "events"]]
    trained = dict(loaded(call) for call in made if call[0] in ("finetune", "distill"))
    assert list(trained) == ["sed-scenes-weak", "sed-scenes-teacher", "sed-scenes-student", "sed-scenes-alone"]
    teacher, student, alone = (trained[f"sed-scenes-{name}"] for name in ("teacher", "student", "alone"))
    assert len(teacher.backbones) == 3 and student.task == "distill" and not alone.teachers
    assert fnmatch(teacher.name, student.teachers[0].members[0].removeprefix("run:"))
    assert (student.phases, student.train, student.model) == (alone.phases, alone.train, alone.model)
    assert made[-2:] == [
        ["evaluate", "sed-scenes-teacher", "--ensemble"],
        ["evaluate", "sed-scenes-student", "sed-scenes-alone"],
    ]


def test_published_detection_trains_fifteen_teachers(tmp_path):
    made = calls("sed.sh", tmp_path, SET="audioset_strong", FROM="raw")
    trained = dict(loaded(call) for call in made if call[0] in ("finetune", "distill"))
    teachers = {name: spec for name, spec in trained.items() if name.startswith("sed-teacher-")}
    assert len(teachers) == 15 and len({spec.model.weights for spec in teachers.values()}) == 5
    assert all(require_known(spec.model.weights) for spec in trained.values())
    assert sum(spec.task == "distill" for spec in trained.values()) == 5
    one = calls("sed.sh", tmp_path, SET="audioset_strong", FROM="raw", TEACHER="7")
    assert [loaded(call)[0] for call in one if call[0] == "finetune"] == ["sed-teacher-fpasst-1"]
    assert loaded(one[-1])[1].model.head.recurrent.width == 1024


def test_ways_to_adapt_have_one_budget(tmp_path):
    made = calls("adapters_small.sh", tmp_path, ESC10="a", FSDD="b")
    assert made[2][:2] == ["pretrain", "specs/adapters_body.yaml"]
    trained = dict(loaded(call) for call in made if call[0] == "finetune")
    assert len(trained) == 2 * 6 * 3 and made[-1] == ["evaluate", *trained, "--metric", "accuracy"]
    for set_ in ("esc10", "digits"):
        runs = {
            name.split("-")[1]: spec for name, spec in trained.items() if name.startswith(set_) and name.endswith("-2")
        }
        assert len(runs) == 6 and len({str(spec.phases) for spec in runs.values()}) == 1
        assert {spec.model.weights for spec in runs.values()} == {"run:adapters-body"}
        assert {spec.seed for spec in runs.values()} == {2}
        widths = BACKBONES[runs["both"].model.backbone].block_widths
        sizes = {
            way: sum(per_rank(item, widths)[0] * item.rank for item in spec.adapters) for way, spec in runs.items()
        }
        assert {way: n for way, n in sizes.items() if n} == dict.fromkeys(
            ("parallel", "time", "frequency", "both"), 55_296
        )
        assert [way for way, spec in runs.items() if not spec.adapters and spec.model.freeze == "body"] == ["probe"]


def require_known(weights: str) -> bool:
    return weights.removeprefix("public:") in PUBLIC_WEIGHTS
