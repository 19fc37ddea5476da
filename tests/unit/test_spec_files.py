"""The specs that come with c2ftool: each is sound, says how to run it, is found by name and can be copied."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from c2ftool.errors import MissingError
from c2ftool.spec.describe import as_yaml, described
from c2ftool.spec.find import find_spec, named_specs, require_spec
from c2ftool.spec.load import load_file, load_spec
from c2ftool.spec.relocate import relocated

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "specs").rglob("*.yaml"))
NAMES = [str(path.relative_to(ROOT / "specs").with_suffix("")) for path in FILES]
each = pytest.mark.parametrize("name", NAMES)


@each
def test_every_spec_checks_and_says_what_it_is_for(name):
    spec = load_file(ROOT / "specs" / f"{name}.yaml", []).spec
    assert spec.about and "\n" not in spec.about


@each
def test_every_head_says_what_is_needed_and_how_to_run_it(name):
    path = ROOT / "specs" / f"{name}.yaml"
    head = re.match(r"(?:#.*\n)+", path.read_text()).group()
    spec = load_file(path, []).spec
    assert re.search(r"Needs\b", head) and f"c2f {spec.task} specs/{name}.yaml" in head
    if name.startswith("papers/"):
        assert re.search(r"[Ee]xpect", head) and re.search("IJCAI 2024|ICASSP 202[45]|public", head)
    for other in re.findall(r"specs/[\w/]+\.yaml", head):
        assert (ROOT / other).is_file(), other


def test_names_of_runs_are_unique():
    names = [load_file(path, []).spec.name for path in FILES]
    assert len(set(names)) == len(names)


@each
def test_every_spec_written_whole_is_the_same_spec(name, tmp_path):
    loaded = load_spec(name)
    for text in (described(loaded.spec), as_yaml(loaded.data)):
        (tmp_path / "whole.yaml").write_text(text)
        assert load_file(tmp_path / "whole.yaml", []).spec == loaded.spec


def test_a_spec_written_whole_names_every_key():
    text = described(load_spec("eat").spec)
    for key in ("seeds", "micro_batch", "min_length", "utterance_reduction", "layers", "spec_augment", "uri"):
        assert re.search(rf"^ *(# )?{key}:", text, re.MULTILINE)
    assert "# Clips per optimiser step, over all devices.\n  batch:" in text


@each
def test_a_copy_elsewhere_is_the_same_spec(name, tmp_path, monkeypatch):
    source, target = ROOT / "specs" / f"{name}.yaml", tmp_path / "mine" / "copy.yaml"
    target.parent.mkdir()
    target.write_text(relocated(source, target))
    spec = load_file(source, []).spec
    monkeypatch.chdir(tmp_path)
    assert load_file(target, []).spec == spec


def test_a_copy_of_ones_own_spec_still_finds_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text((ROOT / "tests/specs/pretrain.yaml").read_text())
    (tmp_path / "top.yaml").write_text("# mine\nextends: 'base.yaml'   # the base\nname: top\n")
    target = tmp_path / "deep" / "er" / "copy.yaml"
    target.parent.mkdir(parents=True)
    target.write_text(relocated(tmp_path / "top.yaml", target))
    assert target.read_text() == "# mine\nextends: '../../base.yaml'   # the base\nname: top\n"
    assert load_file(target, []).spec.name == "top"


def test_specs_are_found_by_path_and_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(NAMES) <= set(named_specs())
    for reference in ("eat", "eat.yaml", "specs/eat.yaml", str(ROOT / "specs/eat.yaml")):
        assert find_spec(reference).samefile(ROOT / "specs/eat.yaml")
    assert find_spec("papers/eat_as2m_pretrain").samefile(ROOT / "specs/papers/eat_as2m_pretrain.yaml")
    assert find_spec("eat_as2m_pretrain") is None


def test_ones_own_folder_of_specs_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "eat.yaml").write_text("mine")
    assert find_spec("eat").samefile(tmp_path / "specs" / "eat.yaml")
    assert named_specs()["eat"].samefile(tmp_path / "specs" / "eat.yaml") and "eat_finetune" in named_specs()


def test_a_spec_that_is_not_there_names_the_nearest():
    with pytest.raises(MissingError, match="there is no spec 'papers/eat_finetune_esc5'") as caught:
        require_spec("papers/eat_finetune_esc5")
    assert "'papers/eat_finetune_esc50'" in caught.value.cure and caught.value.exit_code == 3


# The commands, as users run them


def test_check_says_ok_or_every_fault(c2f, tmp_path):
    good = c2f("specs", "check", "eat", "papers/eat_finetune_esc50", "train.workers=0")
    assert (good.returncode, good.stdout, good.stderr) == (0, "eat: ok\npapers/eat_finetune_esc50: ok\n", "")
    (tmp_path / "bad.yaml").write_text("extends: eat\nsed: 3\n")
    bad = c2f("specs", "check", "eat", tmp_path / "bad.yaml", "none", "train.batch=x")
    assert bad.returncode == 2 and bad.stdout == ""
    assert 'bad.yaml:2:1: unknown key "sed" in the spec' in bad.stderr and "there is no spec 'none'" in bad.stderr
    assert bad.stderr.count("argument 1: train.batch=x: train.batch must be a whole number") == 2
    assert c2f("specs", "check", "train.batch=4").returncode == 2


def test_show_prints_a_spec_that_can_be_used(c2f, tmp_path):
    for options in ([], ["--full"]):
        done = c2f("specs", "show", "eat_scratch", "train.batch=6", *options)
        assert done.returncode == 0, done.stderr
        (tmp_path / "shown.yaml").write_text(done.stdout)
        assert load_file(tmp_path / "shown.yaml", []).spec == load_spec("eat_scratch", ["train.batch=6"]).spec


def test_cp_never_overwrites_unasked(c2f, tmp_path):
    target = tmp_path / "new" / "mine.yaml"
    done = c2f("specs", "cp", "eat_scratch", target)
    assert (done.returncode, done.stdout) == (0, f"{target}\n") and load_file(target, []).spec.name == "eat-scratch"
    target.write_text("kept")
    refused = c2f("specs", "cp", "eat", target)
    assert refused.returncode == 2 and "is there already" in refused.stderr and target.read_text() == "kept"
    assert c2f("specs", "cp", "eat", target, "--force").returncode == 0
    assert target.read_text() == (ROOT / "specs/eat.yaml").read_text()
    assert c2f("specs", "cp", "eat", f"{tmp_path}/folder/").stdout == f"{tmp_path}/folder/eat.yaml\n"


def test_ls_names_every_spec_backbone_and_metric(c2f):
    done = c2f("specs", "ls")
    assert done.returncode == 0 and all(name in done.stdout for name in NAMES)
    assert "has faults" not in done.stdout
    assert "eat_base" in c2f("specs", "ls", "--backbones").stdout
    assert "d_prime" in c2f("specs", "ls", "--metrics").stdout
    assert "demo" in c2f("specs", "ls", "--datasets").stdout
    assert "public:" in c2f("specs", "ls", "--weights").stdout


@pytest.mark.parametrize("module", ["load", "resolve", "reference", "describe", "relocate"])
def test_specs_are_read_without_torch_or_numpy(module):
    code = (
        f"import sys; import c2ftool.spec.{module}; from c2ftool.spec.load import load_spec; load_spec('eat');"
        "print([x for x in ('torch', 'numpy', 'mlflow', 'pyarrow', 'timm') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
