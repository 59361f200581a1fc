"""Arguments as a form: which editor a field gets, what is locked and hidden, and that what nobody touched stays as it was."""

import json
from typing import Any

import pytest

from console import lookalikes
from console.argument_forms import PREFIX, collected, inputs, placed
from console.argument_rows import rows
from console.argument_schema import ABSENT, Hidden, fields, masked

TEXT: dict[str, Any] = {"type": "string"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def kind(schema: Any, value: Any = ABSENT) -> str:
    return fields(of(a=schema), {} if value is ABSENT else {"a": value})[0].kind


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (TEXT, "x", "text"), (TEXT, "a\nb", "long"), (TEXT | {"maxLength": 2000}, "x", "long"), (TEXT, ABSENT, "text"),
        ({"type": "integer"}, 1, "integer"), ({"type": "number"}, 1.5, "number"), ({"type": "boolean"}, True, "boolean"),
        ({"enum": ["a", 1, None]}, 1, "enum"), ({"enum": [{"b": 1}]}, {"b": 1}, "json"), (TEXT | {"format": "date"}, "2026-11-23", "date"),
        (TEXT | {"format": "date"}, "soon", "text"), ({"type": "array", "items": TEXT}, ["a", "b"], "lines"),
        ({"type": "array", "items": TEXT}, ["a\nb"], "json"), ({"type": "array", "items": {"type": "object"}}, [{}], "json"),
        ({"type": ["string", "null"]}, None, "json"), ({"anyOf": [TEXT]}, "x", "json"), ({"$ref": "#/$defs/x"}, "x", "json"),
        ({}, 1, "json"),
        (TEXT, "ad\u202enimda", "json"), (TEXT, "zero\u200bwidth", "json"), (TEXT, "p\u0430ypal", "json"), (TEXT, "\r", "json"),
        (TEXT | {"readOnly": True}, "x", "locked"), ({"const": 1}, 1, "locked"), (TEXT | {"writeOnly": True}, "x", "secret"),
        (TEXT | {"format": "password"}, "x", "secret"), (TEXT | {"x-sensitive": True}, "x", "secret"),
        ({"type": "integer", "x-sensitive": True}, 1, "hidden"), ({"anyOf": [TEXT | {"writeOnly": True}]}, "x", "hidden"),
        ({"type": "array", "items": of(b=TEXT | {"readOnly": True})}, [{"b": "x"}], "locked"),
    ],
)  # fmt: skip
def test_each_kind_of_value_has_its_editor_and_anything_else_is_json(schema: Any, value: Any, expected: str) -> None:
    assert kind(schema, value) == expected


def test_objects_have_fields_of_their_own_down_to_three_levels() -> None:
    schema = of(a=of(b=of(c=of(d=TEXT), e=TEXT)))
    found = fields(schema, {"a": {"b": {"c": {"d": "x"}, "e": "y"}, "more": 1}})
    assert [(one.name, one.kind) for one in found] == [("a.b.c", "json"), ("a.b.e", "text"), ("a.more", "json")]


@pytest.mark.parametrize("args", [["x"], "x", 3, None])
def test_arguments_that_are_no_object_are_one_field(args: Any) -> None:
    (found,) = fields({}, args)
    assert (found.path, found.kind) == ((), "json")


def test_a_reference_hides_what_it_may_lead_to() -> None:
    schema = of(a={"$ref": "#/$defs/login"}) | {"$defs": {"login": of(token=TEXT | {"writeOnly": True})}}
    (found,) = fields(schema, {"a": {"token": "hush"}})
    assert found.kind == "hidden" and isinstance(found.shown, Hidden)


SCHEMA = of(
    amount={"type": "number"}, note=TEXT, when=TEXT | {"format": "date"}, tags={"type": "array", "items": TEXT},
    key=TEXT | {"readOnly": True},
    token=TEXT | {"writeOnly": True}, address=of(city=TEXT, zip={"type": "integer"}), flag={"type": "boolean"}, any={},
)  # fmt: skip
ARGS = {
    "amount": 40.0, "note": "a\r\nb", "when": "2026-11-23", "tags": ["x", "y"], "key": "k", "token": "hush", "address": {"city": "Bern"},
    "flag": False, "any": {"deep": ["\u202e"]}, "unknown": 10**18,
}  # fmt: skip


def filled(**typed: str) -> dict[str, str]:
    """What a browser sends of the form as it was shown, but for these fields."""
    said = {one.name: one.typed.replace("\n", "\r\n") for one in inputs(SCHEMA, ARGS) if one.field.kind not in ("locked", "hidden")}
    return said | {f"{PREFIX}/{name.replace('__', '/')}": text for name, text in typed.items()}


def test_a_form_that_nobody_touched_says_exactly_the_same() -> None:
    args, errors = collected(SCHEMA, ARGS, filled())
    assert json.dumps(args) == json.dumps(ARGS) and not errors


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        ({"amount": "20"}, {"amount": 20}), ({"amount": " 20.50 "}, {"amount": 20.5}), ({"tags": "x\r\n\r\n z "}, {"tags": ["x", "z"]}),
        ({"address__zip": "3000"}, {"address": {"city": "Bern", "zip": 3000}}), ({"flag": "true"}, {"flag": True}),
        ({"token": "new"}, {"token": "new"}), ({"token": ""}, {}), ({"key": "other"}, {}), ({"any": "[1, null]"}, {"any": [1, None]}),
        ({"when": "2026-12-01"}, {"when": "2026-12-01"}),
    ],
)  # fmt: skip
def test_what_is_typed_replaces_the_value_and_nothing_else(typed: dict[str, str], changed: dict[str, Any]) -> None:
    args, errors = collected(SCHEMA, ARGS, filled(**typed))
    assert args == ARGS | changed and not errors


def test_an_emptied_optional_field_is_left_out() -> None:
    assert collected(SCHEMA, ARGS, filled(amount=""))[0] == {name: value for name, value in ARGS.items() if name != "amount"}


@pytest.mark.parametrize(
    ("typed", "pointer", "words"),
    [
        ({"amount": "much"}, "/amount", "a number"), ({"amount": "NaN"}, "/amount", "a number"),
        ({"amount": "0x10"}, "/amount", "a number"),
        ({"address__zip": "3.5"}, "/address/zip", "whole number"), ({"any": "{'a': 1}"}, "/any", "not JSON (line 1)"),
        ({"any": "[" * 100 + "]" * 100}, "/any", "not JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_at_its_field(typed: dict[str, str], pointer: str, words: str) -> None:
    errors = collected(SCHEMA, ARGS, filled(**typed))[1]
    assert list(errors) == [pointer] and words in errors[pointer][0]
    shown = {one.field.pointer: one for one in inputs(SCHEMA, ARGS, filled(**typed), errors)}[pointer]
    assert shown.errors == errors[pointer] and shown.typed == next(iter(typed.values()))


def test_errors_of_the_schema_stand_at_their_fields() -> None:
    lines = [
        "/amount: 3000 is more than 2000",
        '/address: "zip" is a required property',
        "/any/deep/0: no",
        '/: "x" is a required property',
    ]
    at, left = placed(lines, fields(SCHEMA, ARGS))
    assert at == {"/amount": ["3000 is more than 2000"], "/address/zip": ["This is needed."], "/any": ["no"]}
    assert left == ['"x" is a required property']


def test_no_secret_is_in_anything_that_is_shown() -> None:
    schema = of(login=of(name=TEXT, token=TEXT | {"writeOnly": True}), list={"type": "array", "items": of(pin={"x-sensitive": True})})
    args = {"login": {"name": "otto", "token": "hush"}, "list": [{"pin": 1234, "open": "seen"}]}
    said = repr([inputs(schema, args)[0].typed, [(one.typed, one.proposed) for one in inputs(schema, args)], rows(schema, args, args)])
    assert "otto" in said and "hush" not in said and "1234" not in said
    assert masked(schema, args)["list"] == [{"pin": "hidden", "open": "seen"}]


def test_rows_say_what_changed_was_added_and_left_out() -> None:
    schema = of(token=TEXT | {"writeOnly": True}, key={"const": "k"})
    was = {"amount": 40, "note": "x", "token": "a", "key": "k", "flag": True}
    found = {one.name: one for one in rows(schema, was, {"amount": 20, "new": 1, "token": "b", "key": "k", "flag": 1})}
    assert {name: one.state for name, one in found.items()} == {
        "amount": "changed", "new": "added", "token": "changed", "key": "same", "note": "removed", "flag": "changed",
    }  # fmt: skip
    assert (found["amount"].proposed, found["amount"].now) == ("40", "20")
    assert (found["token"].guard, found["token"].proposed, found["key"].guard) == ("secret", "hidden", "locked")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("plain", ""), ("caf\u00e9", ""), ("\u043f\u0440\u0438\u0432\u0435\u0442", ""), ("\u4f60\u597d", ""), ("p\u0430ypal", "\u0430"),
        ("\u0440\u0430\u0443", "\u0440\u0430\u0443"), ("\uff21dmin", "\uff21"), ("\U0001d5ee", "\U0001d5ee"), ("100\u03bf", "\u03bf"),
    ],
)  # fmt: skip
def test_letters_that_pass_for_others_are_found(text: str, marked: str) -> None:
    assert "".join(piece for piece, twin in lookalikes.marked(text) if twin) == marked
    assert "".join(piece for piece, _ in lookalikes.marked(text)) == text
