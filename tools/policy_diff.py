"""What differs between two versions of a policy, row by row. Pure: documents of `tools.versions.document` in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

JSON = dict[str, Any]
EMPTY = ("", False, None)


@dataclass(frozen=True, slots=True)
class Difference:
    """`fields`: (name, before, after) of a row that changed; of one that is new or gone, what it says."""

    kind: Literal["permission", "rule"]
    name: str
    action: Literal["added", "removed", "changed"]
    fields: tuple[tuple[str, Any, Any], ...]


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    return [
        *between("permission", {place(row): row for row in before["permissions"]}, {place(row): row for row in after["permissions"]}),
        *between("rule", {row["name"]: row for row in before["rules"]}, {row["name"]: row for row in after["rules"]}),
    ]


def between(kind: Literal["permission", "rule"], before: dict[str, JSON], after: dict[str, JSON]) -> list[Difference]:
    found = []
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        bare = was is None or now is None  # of a row that is new or gone, what it does not say is nothing to show
        pairs = [(key, (was or {}).get(key), (now or {}).get(key)) for key in now or was or {}]
        fields = tuple(each for each in pairs if each[1] != each[2] and not (bare and (each[1] or each[2]) in EMPTY))
        if fields:
            found.append(Difference(kind, name, "changed" if was and now else "added" if now else "removed", fields))
    return found


def place(row: Mapping[str, Any]) -> str:
    """`create_ticket for support-triage, users who are admin, when …`."""
    who = f" for {row['agent']}" if row["agent"] else ""
    users = f", users who are {row['user_role']}" if row["user_role"] else ""
    return f"{row['tool_id']}{who}{users}" + (f", when {row['when']}" if row["when"] else "")
