"""Our validator beside a second one: over thousands of arguments and results, made to fit and made to break, they agree."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators

from tests.rules.schema_values import broken, fitting
from tools import schemas

DEMO = Path(__file__).resolve().parent.parent.parent / "console" / "sandbox" / "demo.yaml"
EXAMPLES = 120  # of each schema
FEW = 40
AT_LEAST = 2000
OTHERS: dict[str, dict[str, Any]] = {
    "choices": {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}, {"const": None}, {"enum": [[], {}, "1", 1.5]}]},
    "conditions": {
        "type": "object",
        "properties": {"kind": {"enum": ["card", "iban"]}, "number": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "card"}}},
        "then": {"required": ["number"]},
        "else": {"not": {"required": ["number"]}},
        "dependentRequired": {"n": ["number"]},
    },
    "references": {
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/place"}, "to": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]}},
        "required": ["from"],
        "additionalProperties": False,
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}, "required": ["x"]}},
    },
    "parts of a whole": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"]},
            {"properties": {"b": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 5}}},
        ],
        "unevaluatedProperties": False,
    },
    "lists": {
        "type": "array",
        "prefixItems": [{"type": "string"}],
        "items": {"type": ["integer", "null"]},
        "contains": {"const": 1},
        "maxContains": 2,
        "minItems": 1,
        "maxItems": 5,
        "uniqueItems": True,
    },
    "names": {
        "type": "object",
        "patternProperties": {"^n_": {"type": "integer", "multipleOf": 3}},
        "properties": {"n_a": {"type": "integer", "minimum": 0}, "b": {"type": "boolean"}},
        "propertyNames": {"maxLength": 4, "pattern": "^[a-z_]+$"},
        "minProperties": 1,
        "maxProperties": 3,
        "additionalProperties": {"type": "string"},
    },
}


def demo() -> dict[str, dict[str, Any]]:
    tools = yaml.safe_load(DEMO.read_text())["tools"]
    return {f"{tool['name']} {part}": tool[part] for tool in tools for part in ("input_schema", "output_schema")}


SCHEMAS = demo() | OTHERS


@pytest.mark.mission("P2.2")
def test_no_value_is_judged_differently_by_a_second_validator() -> None:
    judged: Counter[str] = Counter()
    for name, schema in SCHEMAS.items():
        judged += compared(name, schema)
    print(f"\n{judged.total()} values over {len(SCHEMAS)} schemas: {judged['fits']} fit, {judged['does not']} do not, 0 disagreements")
    assert judged.total() >= AT_LEAST
    assert min(judged.values()) >= AT_LEAST / 4


def compared(name: str, schema: dict[str, Any], second: Any = Draft202012Validator, examples: int = EXAMPLES) -> Counter[str]:
    """How many values were judged each way. Fails with the smallest one on which the two differ."""
    ours, theirs, judged = schemas.compile(schema), second(schema), Counter[str]()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(fitting(schema, schema), broken(schema, schema)))
    def agree(value: Any) -> None:
        fits = not ours.errors(value)
        assert fits == theirs.is_valid(value), f"{name}: {value!r}"
        judged["fits" if fits else "does not"] += 1

    agree()
    return judged


@pytest.mark.parametrize("name", demo())
def test_of_the_demo_s_schemas_values_that_fit_and_values_that_do_not_are_made(name: str) -> None:
    assert min(compared(name, SCHEMAS[name], examples=FEW).values()) > FEW / 10


def test_the_one_known_difference_is_theirs_the_end_of_a_line_is_not_the_end_of_a_text() -> None:
    schema = {"type": "string", "pattern": "^acct_[0-9]{4}$"}
    assert schemas.compile(schema).errors("acct_1001\n")
    assert Draft202012Validator(schema).is_valid("acct_1001\n")


def test_a_second_validator_that_differs_is_noticed() -> None:
    lax = validators.extend(Draft202012Validator, dict.fromkeys(["required", "additionalProperties", "pattern"], lambda *_: None))
    with pytest.raises(AssertionError, match="create_ticket"):
        compared("create_ticket", SCHEMAS["create_ticket input_schema"], lax)
