"""The columns of the list of runs: which there are, and which are shown. Pure; status and run are always there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tenants.errors import Refused


@dataclass(frozen=True, slots=True)
class Column:
    """`hint`: said where the heading alone would not do."""

    name: str
    label: str
    right: bool = False
    hint: str = ""


COLUMNS = {
    column.name: column
    for column in (
        Column("preview", "Preview", hint="below the title"),
        Column("agent", "Agent"),
        Column("release", "Release"),
        Column("tenant", "Tenant"),
        Column("mode", "Mode"),
        Column("user", "User", hint="the run acts for"),
        Column("session", "Session"),
        Column("started", "Started"),
        Column("ended", "Ended"),
        Column("took", "Took", right=True),
        Column("steps", "Steps", right=True),
        Column("calls", "Tool calls", right=True),
        Column("writes", "Writes", right=True),
        Column("tokens", "Tokens", right=True, hint="in and out"),
        Column("cost", "Cost", right=True),
        Column("failure", "Failure"),
    )
}
USUAL = ("preview", "agent", "release", "started", "took", "steps", "cost", "failure")
NONE = "none"  # in an address: status and run alone
LONGEST = 500


def read(text: str) -> tuple[str, ...]:
    """In the order of the table, whatever order they were given in. Refuses bad_cols 400."""
    names = {piece.strip() for piece in text[:LONGEST].split(",") if piece.strip()}
    strange = sorted(names - set(COLUMNS) - {NONE})
    if strange or len(text) > LONGEST:
        about = f"there is no column {strange[0][:40]}" if strange else "these are too many"
        raise Refused("bad_cols", f"cols must name columns of the list; {about}. Columns: {', '.join(COLUMNS)}.", 400)
    return ordered(names)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(name for name in COLUMNS if name in wanted)


def written(names: tuple[str, ...]) -> str:
    return ",".join(names) or NONE


def toggled(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return ordered({*names} ^ {name})
