"""What conditions and rules see of a run: where it stands, what it used, and what its earlier calls brought."""

from runs import day_totals
from runs.rehearsals import UNSENT
from runs.states import CallState
from tools import past
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
    before = made(f)
    return {
        **place(f),
        "release": f.release.number,
        "step": turn.step if turn else 0,
        "labels": sorted(past.labels(before) | f.labels),
        "writes": f.used.writes,
        "cost_usd": f.used.cost_micro / 1e6,
        "tools": past.none_yet(f.release.spec.tools) | past.applied(before),
    }


def made(f: Flight) -> list[past.Made]:
    """What the run sent and heard of again."""
    return [
        past.Made(turn.step, call.ord, call.name, brought(f, call), call.args, call.state in MAY_BE_APPLIED or call.error in UNSENT)
        for turn in f.turns
        for call in turn.calls
        if (call.attempt > 0 and call.state in TOOK_IN) or call.error in UNSENT  # what was kept instead counts as if it were sent
    ]


def brought(f: Flight, call: ToolCall) -> frozenset[str]:
    """By its tool, and by what was read from memory: that is as tainted as the runs that wrote it."""
    return labels_of(f, call.name) | past.carried(call.name, call.result)


def labels_of(f: Flight, tool: str) -> frozenset[str]:
    definition = f.release.tools.get(tool)
    return definition.labels if definition else frozenset()


def sources(f: Flight) -> tuple[Source, ...]:
    """Which earlier call brought which label, and which tool was used where; oldest first."""
    return past.sources(made(f))


async def look_at_day(f: Flight, e: Services) -> None:
    """Only when a rule asks. What other runs are sending at this very moment may be missing by one."""
    if any("day." in rule.when for rule in f.snapshot.rules):
        today: JSON = await e.orm(day_totals.today, f.tenant)
        f.day = {"tools": past.none_yet(f.release.spec.tools) | today["tools"]}
