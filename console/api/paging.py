"""Keyset pages: no OFFSET, no count. The cursor is the last item's id."""

from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import QueryDict

from tenants.errors import Refused
from tenants.ids import decode, encode

Row = TypeVar("Row", bound=Model)
DEFAULT, MOST = 50, 200


def page(rows: "QuerySet[Row]", query: QueryDict, prefix: str) -> tuple[list[Row], str | None]:
    """Newest first -> (rows, next_cursor). `rows` must have a sortable uuid `id`. Refuses bad_cursor, bad_limit 400."""
    limit = number(query.get("limit"), "limit", DEFAULT, 1, MOST)
    if cursor := query.get("cursor"):
        rows = rows.filter(id__lt=typed_id(prefix, cursor, "cursor"))
    found = list(rows.order_by("-id")[: limit + 1])
    more = encode(prefix, found[limit - 1].pk) if len(found) > limit else None
    return found[:limit], more


def number(text: str | None, name: str, default: int, low: int, high: int) -> int:
    """A whole number in [low, high]. Refuses bad_<name> 400."""
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        raise Refused(f"bad_{name}", f"{name} must be a whole number from {low} to {high}.", 400)
    return int(text)


def typed_id(prefix: str, text: str, name: str = "id") -> UUID:
    try:
        return decode(prefix, text)
    except ValueError:
        raise Refused(f"bad_{name}", f"{name} must look like {prefix}_…", 400) from None


def answer(items: list[dict[str, Any]], more: str | None) -> dict[str, Any]:
    return {"items": items, "next_cursor": more}
