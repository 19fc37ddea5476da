"""The language as published: the schema and the reference page follow from the sections and are current."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2ftool.spec import reference
from c2ftool.spec.base import Section
from c2ftool.spec.describe import meaning_of
from c2ftool.spec.load import load_file
from c2ftool.spec.root import Spec
from c2ftool.spec.shape import sections_of

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "specs").rglob("*.yaml"), *(ROOT / "tests/specs").glob("*.yaml")])
ORDER = (
    "c2f name about task seed seeds backbones data frontend model adapters objective masks teachers augment train "
    "compression enter phases control evaluate checkpoints savings tracking"
)


def sections(section: type[Section] = Spec) -> set[type[Section]]:
    found = {section}
    for field in section.model_fields.values():
        for child in sections_of(field.annotation):
            found |= sections(child)
    return found


def fits(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether a value fits the parts of JSON Schema that the language uses."""
    if "$ref" in schema:
        return fits(value, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema and not any(fits(value, option, whole) for option in schema["anyOf"]):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    types = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
    kind = schema.get("type")
    if kind == "null":
        return value is None
    if kind is not None and (not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return all(name in known and fits(child, known[name], whole) for name, child in value.items())
    if isinstance(value, list):
        return all(fits(child, schema.get("items", {}), whole) for child in value)
    return True


def test_the_page_is_current():
    page = (ROOT / "docs" / "specs.md").read_text()
    assert page == reference.markdown(), "run `make docs`"


def test_sections_stand_in_the_order_in_which_users_write_them():
    assert list(Spec.model_fields) == ORDER.split()
    assert list(reference.schema()["properties"]) == ["c2f", "extends", *ORDER.split()[1:]]


@pytest.mark.parametrize("section", sorted(sections(), key=lambda s: s.__name__), ids=lambda s: s.__name__)
def test_every_section_and_key_is_explained(section):
    assert (section.__doc__ or "").strip()
    for key in section.model_fields:
        assert len(meaning_of(section, key)) > 4, f"{section.__name__}.{key} has no description"


def test_every_key_is_on_the_page():
    page = reference.markdown()
    for section in sections():
        for key in section.model_fields:
            assert f"| `{key}` |" in page


def test_the_schema_is_plain_json_and_the_same_each_time():
    text = json.dumps(reference.schema(), sort_keys=False)
    assert json.loads(text) == reference.schema() and text == json.dumps(reference.schema())
    assert reference.markdown() == reference.markdown()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_spec_fits_the_schema(path):
    schema = reference.schema()
    assert fits(load_file(path, []).data, schema, schema)


@pytest.mark.parametrize(
    "part",
    [
        {"train": {"optimiser": {}}},
        {"train": {"batch": "12"}},
        {"phases": [{"compresion": {}}]},
        {"objective": {"kind": "eta"}},
        {"train": {"schedule": {"kind": "cosin"}}},
        {"frontend": {"normalize": "mesured"}},
    ],
)
def test_the_schema_finds_slips_of_the_pen(part):
    schema = reference.schema()
    assert not fits(part, schema, schema)


@pytest.mark.parametrize(
    "part",
    [
        {"extends": "eat", "train": {"optimizer": {"lr": 1e-3}}},
        {"augment": {"mixup": None}, "data": None},
        {"frontend": {"normalize": "measured"}},
        {"phases": [{"name": "fine", "schedule": {"warmup": "5 %"}}]},
    ],
)
def test_the_schema_allows_parts_that_extend(part):
    schema = reference.schema()
    assert fits(part, schema, schema)
