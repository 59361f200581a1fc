"""Where a call meets a breaker or a full line: another model, the one probe, or a wait. No attempt is spent, the deadline runs.

Short waits are in memory, with all that was seen committed first; longer ones let go of the run. Each side has one function that decides
to wait: `model` and `tools` (`approved` for a call that people allowed).
"""

from typing import Any

from runs import retries
from runs.events import Kind
from runs.inference import tiers
from runs.inference.types import ModelEndpoint
from runs.ladder import Trigger
from tools.definitions import ToolDefinition

from . import ladder
from .circuits import Place, Wait
from .flight import Flight, Intent, ToolCall, Turn
from .rulings import Ruling, waiting_state
from .services import Services

IN_MEMORY_S = 2.0  # as long as a back-off that keeps the run
LATE_S = 5.0  # a probe that is out for so much longer than its call may take is lost


def url_of(definition: ToolDefinition) -> str:
    """Where a tool's calls go; empty where that is no host."""
    return str(definition.adapter.get("url") or "")


# models ---------------------------------------------------------------------------------------------------------------------------


async def model(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint, held: Wait) -> Place | None:
    """The probe's place, or None: the turn has another model, or waits."""
    if held.why == "probe_due":
        place = await e.circuits.probe(held.line, min(endpoint.timeout_s, f.limits.model_call_s) + LATE_S)
        if place is not None:
            return place
    facts: dict[str, Any] = {"step_id": turn.step, "ord": 0, "model": turn.model}
    if held.why != "no_room" and (following := detour(f, e, turn)):
        f.say(Kind.FALLBACK_ACTIVATED, **facts, result="degraded", data={"from": turn.model, "to": following, "reason": "breaker_open"})
        turn.model, turn.tries = following, 0
        return None
    if held.why != "no_room" and await stepped_down(f, e, turn):
        return None
    f.wait_s = await wait(f, e, held, facts)
    return None


async def stepped_down(f: Flight, e: Services, turn: Turn) -> bool:
    """No model of the chain can be asked now: the ladder may know something better than to wait."""
    for trigger in (Trigger.BREAKER_OPEN, Trigger.PROVIDER_DEGRADED):
        if await ladder.step_down(f, e, trigger, {"model": turn.model, "reason": "breaker_open"}):
            ladder.let_go_of_open_turn(f)
            return True
    return False


def detour(f: Flight, e: Services, turn: Turn) -> str | None:
    """The next model of the role's chain whose breaker is closed."""
    if turn.attempt >= retries.MAX_SENDS:
        return None
    chosen = tiers.model_for(f.release.spec.models, turn.role)
    chain = (chosen.model, *chosen.fallback)
    rest = chain[chain.index(turn.model) + 1 :] if turn.model in chain else ()
    usable = ((name, f.endpoint(name)) for name in rest if name not in f.snapshot.lacking)
    return next((name for name, known in usable if known and e.circuits.lets_through(f.tenant, known.base_url)), None)


# tools ----------------------------------------------------------------------------------------------------------------------------


class Ways:
    """The places of the calls that are sent now, by their `ord`, and the rulings that have none."""

    __slots__ = ("held", "places")

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.held: list[tuple[Ruling, Wait]] = []

    def leave(self) -> None:
        for place in self.places.values():
            place.leave()


def ways(f: Flight, e: Services, rulings: list[Ruling]) -> Ways:
    found = Ways()
    for r in rulings:
        if r.timeout is None:
            continue
        place = e.circuits.enter(f.tenant, url_of(f.release.tools[r.call.name]))
        if isinstance(place, Wait):
            found.held.append((r, place))
        else:
            found.places[r.call.ord] = place
    return found


async def tools(f: Flight, e: Services, found: Ways) -> bool:
    """Before the commit: what has no place is not dispatched. One of them may be the probe. True: a rung was taken, rule anew."""
    waiting = []
    for r, held in found.held:
        if held.why == "probe_due" and (place := await e.circuits.probe(held.line, (r.timeout or 0.0) + LATE_S)):
            found.places[r.call.ord] = place
        elif held.why != "no_room" and await ladder.step_down(f, e, Trigger.BREAKER_OPEN, {"tool": r.call.name}):
            return True
        else:
            r.state, r.timeout = waiting_state(r.call), None
            waiting.append((r, held))
    found.held = waiting
    return False


async def tools_wait(f: Flight, e: Services, turn: Turn, found: Ways) -> None:
    """After the commit, where nothing could be sent: wait for the last of them."""
    r, held = max(found.held, key=lambda pair: pair[1].seconds)
    r.call.wait_s = await wait(f, e, held, {"step_id": turn.step, "ord": r.call.ord, "tool": r.call.name})


async def approved(f: Flight, e: Services, turn: Turn, call: ToolCall, held: Wait) -> Place | None:
    """The same for a call that people allowed: it stays allowed."""
    definition = f.release.tools[call.name]
    if held.why == "probe_due" and (place := await e.circuits.probe(held.line, definition.timeout_s + LATE_S)):
        return place
    call.wait_s = await wait(f, e, held, {"step_id": turn.step, "ord": call.ord, "tool": call.name})
    return None


async def wait(f: Flight, e: Services, held: Wait, facts: dict[str, Any]) -> float | None:
    """Waited: None. Seconds: too long to keep the run, which is to be let go of for so long."""
    if held.seconds > IN_MEMORY_S:
        reason = "no_room" if held.why == "no_room" else "breaker_open"
        f.say(Kind.CALL_HELD, **facts, data={"reason": reason, "wait_ms": int(held.seconds * 1000)})
        return held.seconds
    if f.pending.events or f.pending.changed or f.pending.steps:
        await f.commit(Intent(reserve=0))
    await e.circuits.room(held.line, IN_MEMORY_S if held.why == "no_room" else held.seconds)
    return None
