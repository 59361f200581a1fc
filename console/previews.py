"""What a call would change, as its tool said when people were asked: rows of before and after."""

import json
from dataclasses import dataclass
from typing import Any

from django.utils.dateparse import parse_datetime

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """`after` None: it stays as it is, or (`Preview.partial`) nobody knows."""

    name: str
    before: str
    after: str | None


def shown(preview: JSON | None) -> JSON | None:
    """{rows, error, at, partial}. None: the tool has no preview. `partial`: the arguments were edited after it was read."""
    if not preview:
        return None
    before, after = preview.get("before") or {}, preview.get("after")
    rows = [Row(name, text(value), becomes(name, value, after or {})) for name, value in before.items()]
    at = parse_datetime(str(preview.get("at", "")))
    return {"rows": rows, "error": preview.get("error", ""), "at": at, "partial": bool(rows) and after is None}


def becomes(name: str, before: Any, after: JSON) -> str | None:
    return text(after[name]) if name in after and after[name] != before else None


def text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
