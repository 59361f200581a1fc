"""The rungs that a run took, in plain words and on its line of time. Pure.

A rung's facts are the data of its event, and the same entry of `Run.rungs`: {n, on, do, step, limit?, value?, used?, share?, tool?,
from?, age_s?, exact?, results?, verdict?, last_step?, missed?}.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .limits import figure, name_of
from .timescale import Scale
from .tracks import Event

Facts = Mapping[str, Any]


def instead(rung: Facts) -> str:
    """What the run does now."""
    do = str(rung.get("do"))
    if do == "ask":
        return "Ask for more" if rung.get("limit") else "Ask before every write"
    if do == "fewer_steps" and rung.get("last_step"):
        return f"Fewer steps, {rung['last_step']} at most"
    return INSTEAD.get(do, do.replace("_", " ").capitalize())


INSTEAD = {
    "fewer_steps": "Fewer steps",
    "cached": "An earlier answer instead of a new one",
    "retrieval_only": "What was found instead of a written answer",
    "read_only": "Reads only, writes off",
    "draft": "Draft instead of act",
    "single_turn": "One last turn without tools",
    "stop": "Stop",
}
VERDICTS = {"fail": "the critique failed it", "unreadable": "the critique could not be read", "unavailable": "no critique could be had"}


def tool(rung: Facts) -> str:
    return str(rung.get("tool") or "a tool")


def percent(rung: Facts) -> str:
    return f"{min(float(rung.get('share') or 0), 1) * 100:.0f} %"


def no_room(rung: Facts) -> str:
    if not rung.get("limit"):
        return "a limit had no room for the next call"
    value = f" ({figure(rung['limit'], rung['value'])})" if rung.get("value") is not None else ""
    return f"the limit of {name_of(rung['limit'])}{value} had no room for the next call"


BECAUSE: Mapping[str, Callable[[Facts], str]] = {
    "tool_unavailable": lambda rung: f"{tool(rung)} was not available",
    "breaker_open": lambda rung: f"the breaker of {tool(rung)} was open",
    "budget": lambda rung: f"{percent(rung)} of the {name_of(str(rung.get('limit') or 'budget'))} was used",
    "budget_exceeded": no_room,
    "deadline_near": lambda rung: f"{percent(rung)} of the time was used",
    "provider_degraded": lambda rung: "no model answered",
    "loop": lambda rung: "the run repeated itself",
    "critique_failed": lambda rung: VERDICTS.get(str(rung.get("verdict")), "the critique did not pass it"),
    "policy_denied": lambda rung: f"{tool(rung)} was denied",
    "approval_expired": lambda rung: f"nobody decided about {tool(rung)} in time",
    "restored": lambda rung: "the database was restored from a backup while it was in flight",
}


def because(rung: Facts) -> str:
    on = str(rung.get("on"))
    return BECAUSE[on](rung) if on in BECAUSE else on.replace("_", " ")


def words(rung: Facts) -> str:
    """ "Draft instead of act, because create_ticket was not available"; of a rung that was missed, what it lacked."""
    if rung.get("missed"):
        return f"Passed over: {LACKED.get(str(rung.get('do')), instead(rung).lower() + ' was not possible')}, when {because(rung)}"
    return f"{instead(rung)}, because {because(rung)}"


LACKED = {
    "cached": "there was no earlier answer",
    "retrieval_only": "no read had found anything",
    "ask": "more of this limit cannot be granted",
}


@dataclass(frozen=True, slots=True)
class Stay:
    """One rung on the line of time, in percent of it. A rung that was missed has no width."""

    words: str
    step: int
    x: float
    width: float
    missed: bool
    ended: bool


def stays(events: Iterable[Event], began: datetime, scale: Scale, total: float, *, over: bool) -> list[Stay]:
    """From entering to leaving; a run that goes on still stands there."""
    happened = [(event, event.payload.get("data") or {}, (event.at - began).total_seconds()) for event in events]
    left = {data.get("n"): at for event, data, at in happened if event.kind == "rung_left"}
    out = []
    for event, data, at in happened:
        if event.kind not in ("rung_entered", "rung_missed"):
            continue
        missed = event.kind == "rung_missed"
        x, end = scale.x(at), scale.x(left.get(data.get("n"), total))
        facts = data | ({"missed": True} if missed else {})
        width = 0.0 if missed else round(max(end - x, 0.5), 3)
        out.append(Stay(words(facts), int(data.get("step") or 0), min(x, 99.5), width, missed, over or data.get("n") in left))
    return out


def standing(rungs: Sequence[Facts]) -> list[Facts]:
    """Those that were taken, oldest first."""
    return [rung for rung in rungs if not rung.get("missed")]
