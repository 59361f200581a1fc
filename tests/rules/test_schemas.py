"""Schemas: nothing is fetched, errors name their place, and no value takes more work than there is time for."""

from collections.abc import AsyncIterator

import pytest

from tests.rules.dropping_server import DroppingServer, dropping_server
from tools import schemas

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


def test_a_value_that_is_too_large_for_its_schema_does_not_fit_and_says_so() -> None:
    branches = schemas.compile({"items": {"anyOf": [{"const": [number]} for number in range(100)]}})
    assert branches.errors([[1]] * 50) == []
    assert branches.errors([[1]] * 50_000) == ["/: is too large to be checked against this schema"]
    assert branches.errors([["x"]] * 2_000) == ["/: does not fit, and is too large to say where"]
    assert schemas.compile({"items": {"type": "string"}}).errors([1] * 300_000) == ['/0: 1 is not of type "string"']


def test_the_work_of_a_value_counts_its_texts_where_patterns_are_slow() -> None:
    pattern = schemas.compile({"items": {"pattern": "[ab]*a[ab]{500}c"}})
    assert pattern.errors(["ab" * 100]) == ['/0: "' + "ab" * 100 + '" does not match "[ab]*a[ab]{500}c"']
    assert pattern.errors(["ab" * 100_000]) == ["/: is too large to be checked against this schema"]
    assert schemas.compile({"items": {"pattern": "^[ab]{1,500}$"}}).errors(["ab" * 250] * 200) == []
