"""What conditions and rules see of a run: where it stands, what it used, and what its earlier calls brought."""

import json
from collections.abc import Iterator

from runs import day_totals
from runs.states import CallState
from tools.policy import Source

from .flight import JSON, Flight, ToolCall, Turn
from .services import Services

TOOK_IN = (CallState.DONE, CallState.FAILED_NOT_APPLIED, CallState.UNKNOWN)  # once sent: also an error may carry somebody's text
MAY_BE_APPLIED = (CallState.DONE, CallState.UNKNOWN)


def place(f: Flight) -> JSON:
    """The facts that say which permission rows apply."""
    return {"agent": f.release.agent, "tenant": f.snapshot.slug, "user": f.user}


def run(f: Flight, turn: Turn | None) -> JSON:
    """Costs a pass over the run's calls, so only made when a condition asks."""
    return {
        **place(f),
        "release": f.release.number,
        "step": turn.step if turn else 0,
        "labels": sorted({label for _, _, label in labelled(f)} | f.labels),
        "writes": f.used.writes,
        "cost_usd": f.used.cost_micro / 1e6,
        "tools": {name: {"count": 0, "sums": {}} for name in f.release.spec.tools} | applied(f),
    }


def made(f: Flight, states: tuple[CallState, ...]) -> Iterator[tuple[Turn, ToolCall]]:
    return ((turn, call) for turn in f.turns for call in turn.calls if call.attempt > 0 and call.state in states)


def labelled(f: Flight) -> Iterator[tuple[Turn, ToolCall, str]]:
    """The labels of every tool whose answer this run has taken in. They only ever grow."""
    for turn, call in made(f, TOOK_IN):
        definition = f.release.tools.get(call.name)
        for label in sorted(definition.labels) if definition else ():
            yield turn, call, label


def sources(f: Flight) -> tuple[Source, ...]:
    """Which earlier call brought which label, and which tool was used where; oldest first."""
    brought = [Source(turn.step, call.ord, call.name, label) for turn, call, label in labelled(f)]
    used = [Source(turn.step, call.ord, call.name, call.name) for turn, call in made(f, MAY_BE_APPLIED)]
    return tuple(sorted([*brought, *used], key=lambda source: (source.step, source.ord)))


def applied(f: Flight) -> JSON:
    """tool -> how many of its calls were (or may have been) applied, and the sum of each numeric argument over them."""
    found: JSON = {}
    for _, call in made(f, MAY_BE_APPLIED):
        tool = found.setdefault(call.name, {"count": 0, "sums": {}})
        tool["count"] += 1
        for name, value in numbers(call.args):
            tool["sums"][name] = tool["sums"].get(name, 0) + value
    return found


def numbers(args: bytes | None) -> Iterator[tuple[str, int | float]]:
    for name, value in json.loads(args or b"{}").items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


async def look_at_day(f: Flight, e: Services) -> None:
    """Only when a rule asks. What other runs are sending at this very moment may be missing by one."""
    if any("day." in rule.when for rule in f.snapshot.rules):
        today: JSON = await e.orm(day_totals.today, f.tenant)
        f.day = {"tools": {name: {"count": 0, "sums": {}} for name in f.release.spec.tools} | today["tools"]}
