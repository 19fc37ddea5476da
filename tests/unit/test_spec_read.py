"""Reading YAML: the scalars people mean, places, and what is refused."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.errors import MissingError, SpecError
from c2ftool.spec.describe import as_yaml
from c2ftool.spec.read import Faults, at, plain, read_file, read_text


def value(text: str):
    return plain(read_text(f"a: {text}", "x.yaml"))["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("5.", 5.0),
        (".5", 0.5),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("10:30", "10:30"),
        ("2026-11-21", "2026-11-21"),
        ("1_000", "1_000"),
        ("True", True),
        ("~", None),
        ("", None),
        ("Null", None),
        ('"3"', "3"),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, expected):
    found = value(text)
    assert found == expected and type(found) is type(expected)


def test_keys_are_words_whatever_they_look_like():
    assert plain(read_text("on: 1\n1: x\nnull: 3", "x")) == {"on": 1, "1": "x", "null": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1", "x.yaml:1:4: anchors are not part of the language"),
        ("b: 1\na: *x", "x.yaml:2:4: aliases are not part of the language"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1:4: tag !!python/object/apply:os.system: a spec is plain"),
        ("a: ! 1", "x.yaml:1:4: tag !: a spec is plain data"),
        ("a: 1\nb: 2\na: 3", 'x.yaml:3:1: key "a" is given twice'),
        ("a: {b: 1, b: 2}", 'x.yaml:1:11: key "b" is given twice'),
        ("? [1]\n: 2", "x.yaml:1:3: a key is a word"),
        ("a: .nan", "x.yaml:1:4: .nan is not a finite number"),
        ("a: 1e999", "x.yaml:1:4: 1e999 is not a finite number"),
        ("a: " + "9" * 5000, "x.yaml:1:4: a whole number of 5000 digits is too large"),
        ("a: [1,", "x.yaml:1:7: not YAML:"),
        ("a: 1\n---\na: 2", "x.yaml:2:1: not YAML: a second document begins"),
        ("\ta: 1", "x.yaml:1:1: not YAML: found character '\\t'"),
        ("a: \x01", "x.yaml: not YAML: unacceptable character #x0001"),
        ("[" * 65, "deeper than 64 levels"),
        ("a: [" + "1, " * 200_001 + "]", "more than 200000 values"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(text, message):
    with pytest.raises(SpecError) as caught:
        read_text(text, "x.yaml")
    assert message in str(caught.value)


def test_all_duplicate_keys_come_out_together():
    with pytest.raises(SpecError) as caught:
        read_text("a: {b: 1, b: 2}\nc: 1\nc: 3\n", "x.yaml")
    assert str(caught.value) == (
        'x.yaml:1:11: key "b" is given twice\n'
        "    1 | a: {b: 1, b: 2}\n"
        "      |           ^\n"
        "    first in line 1\n"
        "\n"
        'x.yaml:3:1: key "c" is given twice\n'
        "    3 | c: 3\n"
        "      | ^\n"
        "    first in line 2\n"
        "\n"
        "2 faults found; nothing was run."
    )


def test_a_bomb_of_depth_is_refused_at_once():
    start = time.perf_counter()
    with pytest.raises(SpecError, match="deeper than 64 levels"):
        read_text("[" * 100_000, "x.yaml")
    assert time.perf_counter() - start < 10


def test_a_long_line_is_shown_around_the_fault():
    text = "a: [" + "1, " * 300 + "&x 2]"
    with pytest.raises(SpecError) as caught:
        read_text(text, "x.yaml")
    place, line, marks = str(caught.value).splitlines()[:3]
    assert place == "x.yaml:1:905: anchors are not part of the language"
    assert len(line) < 180 and line[marks.index("^") :] == "&x 2]"


def test_every_value_knows_its_place():
    root = read_text("train:\n  optimizer: {kind: adamw, lr: fast}\nphases:\n  - name: fine\n", "x.yaml")
    rate, phase = at(root, ("train", "optimizer", "lr")), at(root, ("phases", 0, "name"))
    assert (rate.place.line, rate.place.column, rate.place.width) == (2, 32, 4)
    assert rate.key is not None and (rate.key.column, rate.key.width) == (28, 2)
    assert (phase.place.line, phase.place.column, phase.place.text) == (4, 11, "  - name: fine")


def test_paths_pass_over_what_the_node_does_not_have():
    root = read_text("objective: {kind: eat}", "x.yaml")
    assert at(root, ("objective", "eat", "kind")).value == "eat"  # a union reports its tag in the path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n", "a spec is a mapping of sections"),
        (b"", "a spec is a mapping of sections"),
        (b"a: \xff\xfe", "not UTF-8 text (byte 3)"),
        (b"#" * 1_000_001, "1000001 bytes; a spec has at most 1000000"),
    ],
)
def test_files_that_are_no_specs(tmp_path, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(Faults) as caught:
        read_file(tmp_path / "x.yaml")
    assert [fault.message for fault in caught.value.faults] == [message]


def test_a_folder_or_nothing_is_missing(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(MissingError):
            read_file(path)


def test_a_mark_of_byte_order_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfc2f: 1\n")
    assert plain(read_file(tmp_path / "x.yaml")) == {"c2f": 1}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20)
    | st.sampled_from(["1e4", "0o17", "no", "1_0", "null", "~", "10:30", "2026-11-21", ".5", "True", "0x1F", "="])
)
DATA = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner)
    ),
)


@settings(max_examples=50, deadline=None)
@given(DATA)
def test_what_is_written_is_read_back(data):
    assert plain(read_text(as_yaml(data), "x.yaml")) == data or not data
