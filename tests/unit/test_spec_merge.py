"""`extends`, phases by name, kinds, `null`, and `KEY=VALUE` arguments: what ends up in the spec."""

from pathlib import Path

import pytest

from c2ftool.errors import MissingError, SpecError
from c2ftool.spec.load import load_file

BASE = """\
c2f: 1
name: base
task: pretrain
data: {dataset: sounds, train: [train, more], min_length: 0.5 s}
model: {backbone: eat_tiny}
objective: {kind: eat, decoder: {layers: 2, groups: 8}}
masks: {kind: inverse_block, ratio: 0.7, clones: 4}
teachers: [{kind: ema, decay: 0.99}]
augment: {roll: {gain: false}, noise: {strength: 0.2}}
train:
  batch: 6
  optimizer: {kind: adamw, lr: 5e-4, weight_decay: 0.1}
  schedule: {kind: cosine, warmup: 20 %, min_lr: 1e-6}
  clip: 4.0
phases:
  - {name: coarse, length: 2 epochs, compression: {method: fshift, factor: 2}, batch: 12}
  - {name: fine, length: 8 steps}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    return tmp_path


def spec(text: str = "", *overrides: str):
    Path("top.yaml").write_text(f"extends: base.yaml\n{text}")
    return load_file(Path("top.yaml"), list(overrides)).spec


def test_mappings_merge_and_lists_replace(folder):
    merged = spec("name: top\ndata: {train: [train]}\ntrain: {optimizer: {lr: 1e-3}}\n")
    assert (merged.name, merged.data.dataset, merged.data.train) == ("top", "sounds", ["train"])
    optimizer = merged.train.optimizer
    assert (optimizer.lr, optimizer.weight_decay, merged.train.batch) == (1e-3, 0.1, 6)


def test_phases_merge_by_name_and_new_ones_come_after(folder):
    merged = spec("phases:\n  - {name: extra, length: 1 steps}\n  - {name: coarse, length: 5 steps}\n")
    assert [(p.name, str(p.length)) for p in merged.phases] == [
        ("coarse", "5 steps"),
        ("fine", "8 steps"),
        ("extra", "1 steps"),
    ]
    assert merged.phases[0].batch == 12 and merged.phases[0].compression.factor == 2


def test_phases_without_a_usable_name_are_told_not_merged(folder):
    with pytest.raises(SpecError) as caught:
        spec("phases: [{name: [fine], length: 1 steps}, {length: 2 steps}, 3]\n")
    text = str(caught.value)
    assert "phases[2].name must be text, not a list" in text and 'phases[3] needs the key "name"' in text
    assert "phases[4] must be a mapping" in text


def test_another_kind_replaces_the_mapping(folder):
    schedule = spec("train: {schedule: {kind: constant}}\n").train.schedule
    assert (schedule.kind, str(schedule.warmup)) == ("constant", "0 steps")


def test_the_same_kind_merges(folder):
    schedule = spec("train: {schedule: {kind: cosine, min_lr: 1e-5}}\n").train.schedule
    assert (schedule.min_lr, str(schedule.warmup)) == (1e-5, "20 %")


def test_null_undoes_what_was_inherited(folder):
    merged = spec(
        "data: {min_length: null}\naugment: {noise: null}\ntrain: {clip: null, batch: null, schedule: null}\n"
    )
    assert merged.data.min_length is None and merged.augment.noise is None and merged.augment.roll is not None
    assert (merged.train.clip, merged.train.batch, merged.train.schedule.kind) == (None, 32, "cosine")
    assert str(merged.train.schedule.warmup) == "0 steps"
    assert spec("augment: null\n").augment.roll is None


def test_null_where_a_value_is_needed_is_a_fault(folder):
    with pytest.raises(SpecError, match="name must be text, not nothing"):
        spec("name: null\n")


def test_chains_of_extends(folder):
    Path("middle.yaml").write_text("extends: base.yaml\nname: middle\nseed: 3\n")
    Path("end.yaml").write_text("extends: middle.yaml\nseed: 4\n")
    merged = load_file(Path("end.yaml"), []).spec
    assert (merged.name, merged.seed, merged.train.batch) == ("middle", 4, 6)


def test_extends_is_relative_to_the_file_not_to_where_one_stands(folder, monkeypatch):
    (folder / "deep").mkdir()
    (folder / "deep" / "top.yaml").write_text("extends: ../base.yaml\nname: deep\n")
    monkeypatch.chdir("/")
    assert load_file(folder / "deep" / "top.yaml", []).spec.name == "deep"


def test_extends_takes_a_known_name(folder):
    Path("top.yaml").write_text("extends: papers/eat_finetune_esc50\nname: mine\n")
    loaded = load_file(Path("top.yaml"), [])
    assert loaded.spec.name == "mine" and loaded.spec.data.folds == [1, 2, 3, 4, 5]


def test_a_circle_is_refused(folder):
    Path("a.yaml").write_text("extends: b.yaml\n")
    Path("b.yaml").write_text("c2f: 1\nextends: a.yaml\n")
    with pytest.raises(SpecError, match=r"b\.yaml:2:10: 'a\.yaml' extends this file: a circle"):
        load_file(Path("a.yaml"), [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("extends: bas.yaml", "top.yaml:1:10: no spec 'bas.yaml' beside this file or among the known ones"),
        ("extends: eat_fintune", 'did you mean "eat_finetune"?'),
        ("extends: [base.yaml]", "top.yaml:1:10: `extends` is the path or the name of one spec"),
    ],
)
def test_extends_of_nothing(folder, line, message):
    Path("top.yaml").write_text(line + "\n")
    with pytest.raises(SpecError) as caught:
        load_file(Path("top.yaml"), [])
    assert message in str(caught.value)


def test_a_missing_file_is_missing(folder):
    with pytest.raises(MissingError):
        load_file(Path("none.yaml"), [])


def test_a_phase_repeats_only_what_it_changes(folder):
    merged = spec("phases: [{name: fine, optimizer: {lr: 1e-4}, masks: {clones: 2}, augment: {noise: null}}]\n")
    fine = merged.phases[1]
    assert (fine.optimizer.lr, fine.optimizer.weight_decay) == (1e-4, 0.1)
    assert (fine.masks.clones, fine.masks.ratio) == (2, 0.7)
    assert fine.augment.noise is None and fine.augment.roll.gain is False
    assert merged.masks.clones == 4  # the section itself is untouched


# Arguments


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("train.optimizer.lr=1e-3", lambda s: s.train.optimizer.lr == 1e-3),
        ("phases.fine.length=3 epochs", lambda s: str(s.phases[1].length) == "3 epochs"),
        ("phases.1.length=3 epochs", lambda s: str(s.phases[1].length) == "3 epochs"),
        ("teachers.0.decay=0.5", lambda s: s.teachers[0].decay == 0.5),
        ("augment.noise=null", lambda s: s.augment.noise is None),
        ("augment.noise=", lambda s: s.augment.noise is None),
        ("augment.spec_augment.time=0.3", lambda s: s.augment.spec_augment.time == 0.3),
        ("augment.noise={shift: 3}", lambda s: (s.augment.noise.strength, s.augment.noise.shift) == (0.2, 3)),
        ("train.schedule={kind: constant}", lambda s: s.train.schedule.kind == "constant"),
        ("train.schedule.kind=constant", lambda s: s.train.schedule.kind == "constant"),
        ("data.train=[a, b]", lambda s: s.data.train == ["a", "b"]),
        ("phases=[{name: only, length: 1 steps}]", lambda s: [p.name for p in s.phases] == ["only"]),
        ("model.weights=file:a=b.pt", lambda s: s.model.weights == "file:a=b.pt"),
        ("data.dataset=no", lambda s: s.data.dataset == "no"),
        ("seed=017", lambda s: s.seed == 17),
        ("name=eat-2", lambda s: s.name == "eat-2"),
        ("seeds=[0, 1]", lambda s: s.seeds == [0, 1]),
    ],
)
def test_an_argument_sets_a_value(folder, argument, read):
    assert read(spec("", argument))


def test_later_arguments_win(folder):
    assert spec("", "seed=1", "train.batch=4", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        ("seed", "argument 1: seed: not KEY=VALUE\n    for example: train.batch=48"),
        ("=3", "argument 1: =3: not KEY=VALUE\n    for example: train.batch=48"),
        (
            "train..lr=3",
            "argument 1: train..lr=3: a part of the key is empty\n    for example: train.optimizer.lr=1e-4",
        ),
        ("train.batch.deep=3", 'argument 1: train.batch.deep=3: there is nothing below a value: "deep"'),
        ("phases.fin.batch=3", 'argument 1: phases.fin.batch=3: the list has no item "fin"\n    known: coarse, fine'),
        (
            "teachers.1.decay=0.5",
            'argument 1: teachers.1.decay=0.5: the list has no item "1"\n    it has 1 items, numbered from 0',
        ),
        (
            "seeds=[1,",
            "argument 1: seeds=[1,: not YAML: expected the node content, but found '<stream end>'\n"
            "    check brackets, quotes, colons and indents",
        ),
        (
            "train.optimiser.lr=1",
            'argument 1: train.optimiser.lr=1: unknown key "optimiser" in train\n    did you mean "optimizer"?  '
            "(known: average, batch, clip, compile, micro_batch, non_finite, optimizer, precision, schedule, workers)",
        ),
        (
            "train.lr=1",
            'argument 1: train.lr=1: unknown key "lr" in train\n    "lr" stands in train.optimizer  '
            "(known: average, batch, clip, compile, micro_batch, non_finite, optimizer, precision, schedule, workers)",
        ),
        ("seed=null", None),
    ],
)
def test_a_wrong_argument_is_its_own_place(folder, argument, fault):
    if fault is None:
        assert spec("", argument).seed == 0
        return
    with pytest.raises(SpecError) as caught:
        spec("", argument)
    assert str(caught.value) == f"{fault}\n\n1 fault found; nothing was run."


def test_arguments_are_told_in_their_order(folder):
    arguments = [f"train.batch=0{n}.5" if n in (2, 10) else f"seed={n}" for n in range(1, 11)]
    with pytest.raises(SpecError) as caught:
        spec("", *arguments, "nonsense=1")
    heads = [line.split(":")[0] for line in str(caught.value).splitlines() if line.startswith("argument")]
    assert heads == ["argument 10", "argument 11"]  # a value replaced by a later argument is nobody's fault


def test_what_was_merged_is_kept_as_written(folder):
    Path("top.yaml").write_text("# mine\nextends: base.yaml\nseed: 1\n")
    loaded = load_file(Path("top.yaml"), ["seed=2"])
    assert loaded.text == "# mine\nextends: base.yaml\nseed: 1\n"
    assert loaded.data["seed"] == 2 and loaded.data["train"]["optimizer"]["lr"] == 5e-4
    assert loaded.with_overrides(["seed=3", "train.batch=2"]).spec.seed == 3
    assert loaded.with_overrides(["train.batch=2"]).spec.seed == 2
