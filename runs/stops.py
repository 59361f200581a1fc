"""Which runs and calls a kill switch covers. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

SCOPES = ("all", "tenant", "agent", "tool", "writes")
WHOLE = ("all", "tenant", "agent")  # scopes that cover whole runs; the others cover calls
PAUSE, STOP = "pause", "stop"


@dataclass(frozen=True, slots=True)
class SwitchOn:
    """A switch that is on and no drill. `tenant` None: in every tenant."""

    id: UUID
    scope: str
    then: str
    tenant: UUID | None = None
    agent: str = ""
    tool: str = ""


def of_run(switches: Iterable[SwitchOn], tenant: UUID, agent: str) -> SwitchOn | None:
    """The switch that covers every call of such a run."""
    return strictest(s for s in switches if s.scope in WHOLE and covers_run(s, tenant, agent))


def of_call(switches: Iterable[SwitchOn], tenant: UUID, tool: str, *, mutating: bool) -> SwitchOn | None:
    """The switch that covers this call and not the whole run."""
    return strictest(s for s in switches if s.scope not in WHOLE and covers_call(s, tenant, tool, mutating=mutating))


def covers_run(switch: SwitchOn, tenant: UUID, agent: str) -> bool:
    return switch.tenant in (None, tenant) and (switch.scope != "agent" or switch.agent == agent)


def covers_call(switch: SwitchOn, tenant: UUID, tool: str, *, mutating: bool) -> bool:
    wanted = mutating if switch.scope == "writes" else switch.tool == tool
    return switch.tenant in (None, tenant) and wanted


def strictest(switches: Iterable[SwitchOn]) -> SwitchOn | None:
    """One that stops before one that pauses, and then the oldest: it is the one that people know."""
    return min(switches, key=lambda s: (s.then != STOP, s.id.int), default=None)


def misplaced(scope: str, *, tenant: bool, agent: bool, tool: bool) -> str:
    """What such a switch lacks or must not have; empty: nothing."""
    needed = {"tenant": tenant, "agent": agent, "tool": tool}
    if scope in needed and not needed[scope]:
        return f"A switch of the scope {scope} names the {scope}."
    allowed = {scope} if scope in ("all", "tenant") else {scope, "tenant"}
    extra = [name for name, given in needed.items() if given and name not in allowed]
    return f"A switch of the scope {scope} names no {extra[0]}." if extra else ""


def typed_name(scope: str, *, tenant: str, agent: str, tool: str) -> str:
    """The word that a person types to throw such a switch."""
    return {"all": "everything", "tenant": tenant, "agent": agent, "tool": tool, "writes": "writes"}[scope]
