"""Schemas: nothing is fetched, errors name their place, the lint sees what a model could abuse."""

from collections.abc import AsyncIterator

import pytest

from tests.rules.dropping_server import DroppingServer, dropping_server
from tools import schemas
from tools.definitions import Effect

TICKET = {
    "type": "object",
    "required": ["title"],
    "additionalProperties": False,
    "properties": {"title": {"type": "string", "maxLength": 10}, "tags": {"type": "array", "items": {"type": "string"}}},
}


@pytest.fixture
async def server() -> AsyncIterator[DroppingServer]:
    async with dropping_server() as running:
        yield running


def test_a_value_that_fits_has_no_errors() -> None:
    assert schemas.compile(TICKET).errors({"title": "x", "tags": ["a"]}) == []


def test_errors_name_their_place() -> None:
    errors = schemas.compile(TICKET).errors({"title": "x" * 11, "tags": ["a", 1], "more": 1})
    assert sorted(line.split(":")[0] for line in errors) == ["/", "/tags/1", "/title"]


def test_at_most_five_errors_are_told_and_long_values_are_clipped() -> None:
    errors = schemas.compile({"type": "array", "items": {"type": "integer"}}).errors(["x" * 5000] * 50)
    assert len(errors) == 5
    assert all(len(line) < 400 for line in errors)


def test_the_same_content_is_compiled_once() -> None:
    other = dict(reversed(TICKET.items()))
    assert schemas.compile(TICKET) is schemas.compile(other)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "/properties/a/type"),
        ({"properties": {"a/b": {"pattern": "("}}}, "/properties/a~1b/pattern"),
        ({"$ref": "#/$defs/missing"}, ""),
        ({"$schema": "https://schemas.example/own"}, ""),
        ({"const": float("nan")}, ""),
    ],
)
def test_a_broken_schema_is_refused_with_its_path(schema: dict[str, object], path: str) -> None:
    with pytest.raises(schemas.SchemaError) as raised:
        schemas.compile(schema)
    assert raised.value.path == path
    assert raised.value.message


@pytest.mark.mission("P10.1")
async def test_a_reference_to_the_network_is_never_fetched(server: DroppingServer) -> None:
    with pytest.raises(schemas.SchemaError, match="not fetched"):
        schemas.compile({"$ref": f"{server.origin}/schema.json"})
    assert server.connections == 0


def test_patterns_that_need_backtracking_are_refused_and_the_others_are_linear() -> None:
    with pytest.raises(schemas.SchemaError):
        schemas.compile({"pattern": r"(a+)+(?=b)"})
    validator = schemas.compile({"type": "string", "pattern": "^(a|aa)+$"})
    assert validator.errors("a" * 50_000 + "b")  # exponential where patterns backtrack


def test_a_schema_that_is_too_large_or_too_deep_is_refused() -> None:
    with pytest.raises(schemas.SchemaError, match="larger"):
        schemas.compile({"enum": ["x" * 1000 + str(number) for number in range(400)]})
    deep: dict[str, object] = {}
    for _ in range(80):
        deep = {"not": deep}
    with pytest.raises(schemas.SchemaError, match="deep"):
        schemas.compile(deep)


def test_formats_are_asserted() -> None:
    assert schemas.compile({"format": "email"}).errors("nobody")


@pytest.mark.parametrize("value", ["\ud800", object()])
def test_a_value_that_is_not_json_does_not_fit_and_does_not_raise(value: object) -> None:
    assert schemas.compile({"type": ["string", "object"]}).errors(value)


def codes(schema: dict[str, object], effect: Effect = Effect.WRITE) -> set[str]:
    return {finding.code for finding in schemas.lint(schema, effect)}


def closed(**properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "array"}, "not_an_object"),
        ({"type": "nonsense"}, "does_not_compile"),
        ({"type": "object"}, "open_object"),
        ({"type": "object", "additionalProperties": False, "properties": {"a": {"enum": [1]}}}, "nothing_required"),
        (closed(note={"type": "string"}), "unbounded"),
        (closed(amount={"type": "number", "minimum": 0}), "unbounded"),
        (closed(ids={"type": "array"}), "unbounded"),
        (closed(anything={}), "untyped"),
        (closed(url={"type": "string", "maxLength": 100}), "free_form"),
        (closed(api_key={"type": "string", "maxLength": 100}), "secret_argument"),
        (closed(order=closed(note={"type": "string"})), "unbounded"),
        (closed(lines={"type": "array", "maxItems": 2, "items": closed(sql={"type": "string"})}), "free_form"),
    ],
)
def test_the_lint_finds(schema: dict[str, object], code: str) -> None:
    assert code in codes(schema)


def test_a_read_is_held_to_less_and_a_good_write_to_nothing() -> None:
    assert codes(closed(note={"type": "string"}), Effect.READ) == set()
    good = closed(title={"type": "string", "maxLength": 80}, amount={"type": "number", "maximum": 50})
    assert codes(good) == set()


def test_findings_point_into_the_schema_and_errors_come_first() -> None:
    found = schemas.lint(closed(order=closed(url={"type": "string"})), Effect.WRITE)
    assert {finding.path for finding in found} == {"/properties/order/properties/url"}
    assert schemas.lint({"type": "array", "additionalProperties": True}, Effect.READ)[0].severity == "error"
