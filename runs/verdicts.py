"""What a critique's reply says. Pure."""

import json
from collections.abc import Mapping
from typing import Any

REASONS_MAX = 5


def verdict_of(reply: Mapping[str, Any] | None) -> tuple[str, list[str]]:
    """-> (`pass`, `fail`, `unreadable` or `unavailable`, reasons). Only `pass` is one."""
    if reply is None:
        return "unavailable", []
    text = str(reply.get("text") or "")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError):
        return "unreadable", []
    said = value.get("verdict") if isinstance(value, dict) else None
    if said not in ("pass", "fail"):
        return "unreadable", []
    reasons = value.get("reasons")
    return said, [str(r)[:300] for r in reasons[:REASONS_MAX]] if isinstance(reasons, list) else []
