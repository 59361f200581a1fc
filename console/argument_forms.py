"""A form for the arguments of a call: what its fields show, and the arguments that a filled-in one says. Pure.

A field that comes back as it was shown leaves its value as it was, to the bit. What is locked or hidden is never read from the form.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.canonical import loads_limited

from .argument_schema import ABSENT, Field, fields

PREFIX = "arg"  # before the pointer: the name of an input
NUMBER = re.compile(r"-?(0|[1-9]\d{0,30})(\.\d{1,30})?([eE][+-]?\d{1,3})?\Z")
INTEGER = re.compile(r"-?(0|[1-9]\d{0,30})\Z")
MISSING = re.compile(r'"(?P<name>.+)" is a required property')


@dataclass(frozen=True, slots=True)
class Input:
    """One editor. `typed` is what it shows; `options`: (value, label, chosen) of a select."""

    field: Field
    typed: str
    proposed: str
    options: tuple[tuple[str, str, bool], ...]
    errors: list[str]

    @property
    def name(self) -> str:
        return PREFIX + self.field.pointer

    @property
    def help(self) -> str:
        return str(self.field.schema.get("description") or "")

    @property
    def rows(self) -> int:
        return min(max(self.typed.count("\n") + 1, 3), 16)


class Unreadable(Exception):
    """What was typed is no value of this kind."""


def inputs(schema: Any, args: Any, said: Mapping[str, str] | None = None, told: Mapping[str, list[str]] | None = None) -> list[Input]:
    """`said`: what was typed before; `told`: what was wrong with it, by pointer."""
    return [made(one, said, (told or {}).get(one.pointer, [])) for one in fields(schema, args)]


def made(one: Field, said: Mapping[str, str] | None, errors: list[str]) -> Input:
    typed = plain(said[PREFIX + one.pointer]) if said and PREFIX + one.pointer in said and one.kind != "secret" else shown(one)
    proposed = "" if one.value is ABSENT else text(one.shown)
    return Input(one, typed, proposed, options(one, typed), errors)


def shown(one: Field) -> str:
    """What an untouched editor holds."""
    if one.value is ABSENT or one.kind in ("secret", "hidden"):
        return ""
    if one.kind in ("enum", "boolean"):
        return json.dumps(one.value)
    if one.kind == "json":
        return json.dumps(one.value, indent=2, ensure_ascii=True)
    return "\n".join(text(each) for each in one.value) if one.kind == "lines" else text(one.shown)


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)


def plain(typed: str) -> str:
    """Browsers send each end of a line as two characters."""
    return typed.replace("\r\n", "\n").replace("\r", "\n")


def options(one: Field, typed: str) -> tuple[tuple[str, str, bool], ...]:
    if one.kind not in ("enum", "boolean"):
        return ()
    choices = [True, False] if one.kind == "boolean" else one.schema["enum"]
    words = {"true": "yes", "false": "no"} if one.kind == "boolean" else {}
    listed = [(json.dumps(each), words.get(json.dumps(each), text(each))) for each in choices]
    if not one.required or one.value is ABSENT:
        listed.insert(0, ("", "not given"))
    return tuple((value, label, value == typed) for value, label in listed)


def collected(schema: Any, args: Any, said: Mapping[str, str]) -> tuple[Any, dict[str, list[str]]]:
    """-> (the arguments that the form says, what could not be read, by pointer)."""
    result: Any = copy.deepcopy(args)
    errors: dict[str, list[str]] = {}
    for one in fields(schema, args):
        try:
            value = read(one, said)
        except Unreadable as error:
            errors[one.pointer] = [str(error)]
            continue
        if not one.path:
            return value, errors
        put(result, one.path, value)
    return result, errors


def read(one: Field, said: Mapping[str, str]) -> Any:
    typed = plain(said.get(PREFIX + one.pointer, ""))
    absent = PREFIX + one.pointer not in said
    if absent or one.kind in ("locked", "hidden") or (one.kind == "secret" and not typed) or typed == shown(one):
        return one.value
    if not typed.strip() and not (one.required and one.kind in ("text", "long", "secret")):
        return ABSENT
    return parsed(one, typed)


def parsed(one: Field, typed: str) -> Any:
    if one.kind in ("text", "long", "secret"):
        return typed
    if one.kind == "date":
        return typed.strip()
    if one.kind == "lines":
        return [scalar(line.strip(), one.schema["items"]["type"]) for line in typed.split("\n") if line.strip()]
    if one.kind in ("integer", "number"):
        return scalar(typed.strip(), one.kind)
    return from_json(typed)


def scalar(typed: str, type_: str) -> Any:
    if type_ == "string":
        return typed
    if not (INTEGER if type_ == "integer" else NUMBER).match(typed):
        raise Unreadable("Type a whole number, such as 20." if type_ == "integer" else "Type a number, such as 20 or 20.50.")
    return json.loads(typed)


def from_json(typed: str) -> Any:
    try:
        value = loads_limited(typed.encode())
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(f"This is not JSON{where}: texts stand in double quotes, and no comma stands before a closing bracket.") from None
    return value


def put(args: Any, path: tuple[str, ...], value: Any) -> None:
    """Objects on the way are made when something is put into them, and go when nothing is left in one that was made."""
    at = args
    for name in path[:-1]:
        if name not in at:
            if value is ABSENT:
                return
            at[name] = {}
        at = at[name]
    if value is ABSENT:
        at.pop(path[-1], None)
    else:
        at[path[-1]] = value


def placed(found: Iterable[str], given: list[Field]) -> tuple[dict[str, list[str]], list[str]]:
    """Errors `/path: what` of a schema -> those of each field, and those of no field."""
    at: dict[str, list[str]] = {}
    left: list[str] = []
    known = sorted((one.pointer for one in given), key=len, reverse=True)
    for line in found:
        path, _, what = line.partition(": ")
        missing = MISSING.match(what)
        place = (f"{path.rstrip('/')}/{missing['name']}" if missing else path.rstrip("/")) or "/"
        pointer = next((one for one in known if place == one or place.startswith(one + "/")), None)
        if pointer is None:
            left.append(what if path == "/" else line)
        else:
            at.setdefault(pointer, []).append("This is needed." if missing and place == pointer else what)
    return at, left
