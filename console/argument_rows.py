"""What the model proposed beside what will be sent, one row for each argument. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from . import lookalikes
from .argument_schema import ABSENT, Field, Hidden, fields
from .sentences import KINDS

TWINS = "has letters that pass for others"


@dataclass(frozen=True, slots=True)
class Row:
    """`state`: same, changed, added or removed. `guard`: locked or secret. The texts are foreign, and whole."""

    name: str
    kind: str
    proposed: str
    now: str
    state: str
    guard: str = ""
    note: str = ""

    @property
    def empty(self) -> bool:
        return not (self.now if self.state != "removed" else self.proposed)


def rows(schema: Any, proposed: Any, now: Any) -> list[Row]:
    """Every argument, none of it cut; the order is that of what will be sent."""
    was, will = given(schema, proposed), given(schema, now)
    return [row(was.get(path), will.get(path)) for path in dict.fromkeys([*will, *was])]


def given(schema: Any, args: Any) -> dict[tuple[str, ...], Field]:
    return {field.path: field for field in fields(schema, args) if field.value is not ABSENT}


def row(was: Field | None, will: Field | None) -> Row:
    known = will or was
    assert known is not None
    before, after = (text(field.shown) if field else "" for field in (was, will))
    state = "added" if was is None else "removed" if will is None else "same" if same(was.value, will.value) else "changed"
    note = TWINS if lookalikes.has_any(f"{known.name} {before} {after}") else ""
    return Row(known.name, word(known), before, after, state, guard(known), note)


def same(one: Any, other: Any) -> bool:
    """As JSON has it: 1 and true are two values, 1 and 1.0 are one."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True) or (
        one == other and not isinstance(one, bool | dict | list) and not isinstance(other, bool)
    )


def guard(field: Field) -> str:
    if isinstance(field.shown, Hidden):
        return "secret"
    return "locked" if field.kind == "locked" else ""


def word(field: Field) -> str:
    return "hidden" if isinstance(field.shown, Hidden) else KINDS.get(type(field.value), "value")


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def changes(schema: Any, before: Any, after: Any) -> list[Row]:
    """Only what differs."""
    return [one for one in rows(schema, before, after) if one.state != "same"]
