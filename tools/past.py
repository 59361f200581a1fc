"""What the earlier calls of a run mean for its next one: labels, counts and sums, and where each came from. Pure."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import memory
from .policy import Source

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A call that a run sent and heard of again. `applied`: it was, or may have been."""

    step: int
    ord: int
    tool: str
    labels: frozenset[str]
    args: bytes | None
    applied: bool


def carried(tool: str, result: JSON | None) -> frozenset[str]:
    """The taint of the runs that wrote what this call read from memory."""
    return frozenset((result or {}).get("labels", ())) if tool in memory.SPECS else frozenset()


def labels(made: Iterable[Made]) -> set[str]:
    """The labels of every tool whose answer the run has taken in. They only ever grow."""
    return {label for call in made for label in call.labels}


def sources(made: Iterable[Made]) -> tuple[Source, ...]:
    """Which call brought which label, and which tool was used where; oldest first."""
    found = []
    for call in sorted(made, key=lambda call: (call.step, call.ord)):
        found += [Source(call.step, call.ord, call.tool, label) for label in sorted(call.labels)]
        found += [Source(call.step, call.ord, call.tool, call.tool)] if call.applied else []
    return tuple(found)


def applied(made: Iterable[Made]) -> JSON:
    """tool -> how many of its calls were (or may have been) applied, and the sum of each numeric argument over them."""
    found: JSON = {}
    for call in made:
        if call.applied:
            add(found, call.tool, call.args)
    return found


def add(totals: JSON, tool: str, args: bytes | None) -> None:
    """One more call in the totals of its tool."""
    entry = totals.setdefault(tool, {"count": 0, "sums": {}})
    entry["count"] += 1
    for name, value in numbers(args):
        entry["sums"][name] = entry["sums"].get(name, 0) + value


def numbers(args: bytes | None) -> Iterator[tuple[str, int | float]]:
    for name, value in json.loads(args or b"{}").items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def none_yet(tools: Iterable[str]) -> JSON:
    """So that a condition may ask about every tool of the release."""
    return {name: {"count": 0, "sums": {}} for name in tools}
