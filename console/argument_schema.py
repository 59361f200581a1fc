"""The arguments of a call under its tool's schema: which fields there are, what may be edited, what is never shown. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from . import lookalikes
from .templatetags.signalbox import is_hidden

DEEPEST: Final = 3  # levels of objects that have fields of their own
CHOICES: Final = 50  # of an enum; a longer one is typed
COMBINED: Final = frozenset({"$ref", "$dynamicRef", "oneOf", "anyOf", "allOf", "not", "if", "patternProperties", "dependentSchemas"})
PLAIN: Final[dict[str, Any]] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
CONTROLS: Final = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f]")
Path = tuple[str, ...]


class Absent:
    """Not among the arguments. (null is a value.)"""

    def __bool__(self) -> bool:
        return False


class Hidden(str):
    """Stands for a value that no page is sent."""

    __slots__ = ()


ABSENT: Final = Absent()
HIDDEN: Final = Hidden("hidden")


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: text, long, number, integer, boolean, enum, date, lines, json are editors; locked, secret (only ever replaced) and
    hidden (not even that) are not. `value` is the whole value, also of what is hidden: `shown` is what may leave the server."""

    path: Path
    kind: str
    value: Any
    schema: Mapping[str, Any]
    required: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path) or "(all of it)"

    @property
    def pointer(self) -> str:
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.path)

    @property
    def shown(self) -> Any:
        return self.value if self.value is ABSENT else masked(self.schema, self.value)


def fields(schema: Any, value: Any) -> list[Field]:
    """The fields of the arguments in their order, behind them those that the schema names and that are not given."""
    root = schema if isinstance(schema, Mapping) else {}
    if not has_fields(root, value):
        return [Field((), kind_of(root, value, root), value, with_defs(root, root))]
    return list(inside(root, value, (), root))


def inside(schema: Mapping[str, Any], value: Any, path: Path, root: Mapping[str, Any]) -> Iterator[Field]:
    given = value if isinstance(value, dict) else {}
    named, required = schema.get("properties") or {}, schema.get("required") or ()
    for name in [*given, *(name for name in named if name not in given)]:
        under, part = named.get(name, {}), given.get(name, ABSENT)
        under = under if isinstance(under, Mapping) else {}
        place = (*path, name)
        if "properties" in under and len(place) < DEEPEST and not guard(under) and has_fields(under, part):
            yield from inside(under, part, place, root)
        else:
            yield Field(place, kind_of(under, part, root), part, with_defs(under, root), name in required)


def has_fields(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether each of its members can have a field of its own."""
    plain = not COMBINED & schema.keys() and schema.get("type", "object") == "object"
    return plain and (value is ABSENT or isinstance(value, dict))


def kind_of(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> str:
    whole = with_defs(schema, root)
    if is_secret(schema):
        return "secret" if schema.get("type") == "string" and not is_locked(schema) else "hidden"
    if mentions(whole, is_secret):
        return "hidden"
    if mentions(whole, is_locked) or "const" in schema:
        return "locked"
    if COMBINED & schema.keys():
        return "json"
    return editor(schema, value)


def editor(schema: Mapping[str, Any], value: Any) -> str:
    choices, type_ = schema.get("enum"), schema.get("type")
    if choices is not None:
        simple = len(choices) <= CHOICES and not any(isinstance(one, dict | list) for one in choices)
        return "enum" if simple and (value is ABSENT or value in choices) else "json"
    if type_ == "array":
        return "lines" if as_lines(schema.get("items"), value) else "json"
    if not isinstance(type_, str) or type_ not in PLAIN or (value is not ABSENT and not fits(value, type_)):
        return "json"
    if type_ != "string":
        return str(type_)
    return of_text(schema, "" if value is ABSENT else value)


def of_text(schema: Mapping[str, Any], text: str) -> str:
    if not is_plain(text):
        return "json"
    if schema.get("format") == "date" and (not text or is_date(text)):
        return "date"
    return "long" if "\n" in text or len(text) > 80 or (schema.get("maxLength") or 0) > 200 else "text"


def as_lines(items: Any, value: Any) -> bool:
    """A list that can be written as one scalar a line."""
    type_ = items.get("type") if isinstance(items, Mapping) and not COMBINED & items.keys() else None
    if type_ not in ("string", "integer", "number"):
        return False
    given = [] if value is ABSENT else value
    if not isinstance(given, list) or not all(fits(one, type_) for one in given):
        return False
    return type_ != "string" or all(one and one == one.strip() and "\n" not in one and is_plain(one) for one in given)


def fits(value: Any, type_: str) -> bool:
    return isinstance(value, PLAIN[type_]) and (type_ == "boolean" or not isinstance(value, bool))


def is_plain(text: str) -> bool:
    """A text field shows all of it, and nothing in it as something else."""
    if text.isascii():
        return not CONTROLS.search(text)
    return not any(map(is_hidden, text)) and not lookalikes.has_any(text)


def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


# what is kept from people -----------------------------------------------------------------------------------------------------


def is_secret(schema: Mapping[str, Any]) -> bool:
    return schema.get("writeOnly") is True or schema.get("x-sensitive") is True or schema.get("format") == "password"


def is_locked(schema: Mapping[str, Any]) -> bool:
    return schema.get("readOnly") is True


def guard(schema: Mapping[str, Any]) -> bool:
    return is_secret(schema) or is_locked(schema)


def mentions(schema: Any, what: Any) -> bool:
    """Whether it, or any schema inside it, is such a one."""
    if isinstance(schema, Mapping):
        return what(schema) or any(mentions(inner, what) for inner in schema.values())
    return isinstance(schema, list | tuple) and any(mentions(inner, what) for inner in schema)


def with_defs(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference may lead to counts as a part of it."""
    if schema is root or not mentions(schema, lambda one: bool({"$ref", "$dynamicRef"} & one.keys())):
        return schema
    return {**schema, "$defs": {"root": dict(root)}}


def masked(schema: Any, value: Any) -> Any:
    """The value without what its schema keeps from people; where that cannot be told apart, nothing of it."""
    if not isinstance(schema, Mapping) or not mentions(schema, is_secret):
        return value
    beside = {name: inner for name, inner in schema.items() if name not in ("properties", "items")}
    if is_secret(schema) or mentions(beside, is_secret):
        return HIDDEN
    named, items = schema.get("properties") or {}, schema.get("items")
    if isinstance(value, dict):
        return {name: masked(named.get(name), part) for name, part in value.items()}
    return [masked(items, part) for part in value] if isinstance(value, list) else value
