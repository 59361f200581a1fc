"""What each desk tool accepts. Written apart from the schemas in demo.yaml on purpose: the desk is the other side of
the wire and trusts no caller."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], str | None]


def _text(longest: int, pattern: str | None = None) -> Check:
    form = re.compile(pattern) if pattern else None

    def check(value: Any) -> str | None:
        if not isinstance(value, str) or not value.strip():
            return "must be a text that is not empty"
        if len(value) > longest:
            return f"too long ({len(value)} of at most {longest} characters)"
        return "does not have the right form" if form and not form.fullmatch(value) else None

    return check


def _one_of(*names: str) -> Check:
    return lambda value: None if value in names else f"must be one of {', '.join(names)}"


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> str | None:
        return None if type(value) is int and least <= value <= most else f"must be a whole number {least} to {most}"

    return check


def _money(most: float) -> Check:
    def check(value: Any) -> str | None:
        if type(value) not in (int, float) or not 0 < value <= most:
            return f"must be a number above 0 and at most {most}"
        return None if abs(value * 100 - round(value * 100)) < 1e-6 else "has more than two decimals"

    return check


_ACCOUNT = _text(9, r"acct_[0-9]{4}")
REFUND_REASONS = ("duplicate", "returned", "not_received", "outage", "goodwill")

#: tool -> field -> check; a field whose name ends in "?" may be absent.
FIELDS: dict[str, dict[str, Check]] = {
    "search_docs": {"query": _text(200), "limit?": _whole(1, 5)},
    "fetch_account": {"account_id": _ACCOUNT},
    "list_charges": {"account_id": _ACCOUNT},
    "create_ticket": {"account_id": _ACCOUNT, "priority": _one_of("low", "normal", "urgent"), "summary": _text(280)},
    "close_ticket": {"ticket_id": _text(12, r"tkt_[0-9a-f]{8}")},
    "issue_refund": {
        "account_id": _ACCOUNT,
        "charge_id": _text(15, r"ch_[0-9a-z]{6,12}"),
        "amount": _money(2000),
        "currency": _one_of("USD"),
        "reason": _one_of(*REFUND_REASONS),
    },
    "send_email": {"to": _text(254, r"[^@\s]+@[^@\s]+"), "subject": _text(120), "body": _text(2000)},
    "delete_account": {"account_id": _ACCOUNT},
    "lookup": {"idem_key": _text(200)},
}


def find_error(tool: str, args: Any) -> str | None:
    """What is wrong with the arguments, in one sentence naming the field; None when they are good."""
    if not isinstance(args, Mapping):
        return "the body must be a JSON object"
    fields = FIELDS[tool]
    known = {name.rstrip("?"): (check, name.endswith("?")) for name, check in fields.items()}
    for name in args:
        if name not in known:
            return f"{str(name)[:40]} is not a field of {tool}"
    for name, (check, optional) in known.items():
        if name not in args:
            if optional:
                continue
            return f"{name} is missing"
        if error := check(args[name]):
            return f"{name} {error}"
    return None
