"""Taking the rungs of a release's ladder: when a limit is met, the run goes on with less instead of ending, where a rung says so.

A rung that was taken is part of the run's row (`rungs`), so a resumed run stands on the same one. What follows from it is
`Stance`. A rung that has nothing to give (no earlier answer, nothing read) is noted as missed, and the next one is tried.
"""

from typing import Any

from runs import answer_cache
from runs.events import Kind, encode
from runs.grants import GRANTABLE
from runs.ladder import CAUSES, Do, Rung, Trigger, following, used_share
from runs.loops import ENDS_AFTER
from runs.states import Outcome, RunState
from tools.definitions import ErrorClass

from . import answers
from .flight import JSON, Ending, Flight, ToolCall, Turn
from .journal import Changed
from .services import Services
from .stance import Stance

UNAVAILABLE = frozenset({ErrorClass.TIMEOUT, ErrorClass.TRANSIENT_UPSTREAM, ErrorClass.NOT_SENT, ErrorClass.RATE_LIMIT, "lost"})
ENDINGS = {  # how a run ends on a `stop`
    Trigger.TOOL_UNAVAILABLE: Outcome.TOOL_ERROR,
    Trigger.BREAKER_OPEN: Outcome.TOOL_ERROR,
    Trigger.BUDGET: Outcome.BUDGET_EXCEEDED,
    Trigger.BUDGET_EXCEEDED: Outcome.BUDGET_EXCEEDED,
    Trigger.DEADLINE_NEAR: Outcome.DEADLINE_EXCEEDED,
    Trigger.PROVIDER_DEGRADED: Outcome.MODEL_ERROR,
    Trigger.LOOP: Outcome.LOOP_DETECTED,
    Trigger.CRITIQUE_FAILED: Outcome.INVALID_OUTPUT,
    Trigger.POLICY_DENIED: Outcome.POLICY_DENIED,
    Trigger.APPROVAL_EXPIRED: Outcome.APPROVAL_EXPIRED,
}
KEPT = "Not sent: the tool is not available. The call is kept as a recommended action for a person."


async def rescue(f: Flight, e: Services) -> bool:
    """True: a rung turned the run's ending into something to go on with."""
    ending = f.ending
    trigger = CAUSES.get(ending.outcome) if ending and ending.state is RunState.FAILED else None
    if ending is None or trigger is None or not f.release.spec.ladder:
        return False
    f.ending = None
    if not await step_down(f, e, trigger, facts_of(ending)):
        f.ending = f.ending or ending
        return False
    if f.ending is None:
        let_go_of_open_turn(f)
    return f.ending is None


def facts_of(ending: Ending) -> JSON:
    if ending.stop:
        return {"limit": ending.stop.limit, "value": ending.stop.value, "used": ending.stop.used, "by": ending.stop.by}
    return {"error_type": (ending.error or {}).get("error_type")}


def let_go_of_open_turn(f: Flight) -> None:
    """A turn whose model call got no answer: without a row it never was, with one it stays as a failed step."""
    turn = f.turn
    if turn is None or turn.reply is not None or f.asking:
        return
    if turn.state is None:
        f.turns.remove(turn)
    else:
        turn.given_up = True


async def step_down(f: Flight, e: Services, trigger: Trigger, facts: JSON, share: float | None = None) -> bool:
    """Take the next rung of this trigger. False: there is none (left), nothing has changed. A `stop` sets the ending."""
    ladder = f.release.spec.ladder
    while (n := following(ladder, f.rungs, trigger, share)) is not None:
        rung, entry = ladder[n], {"n": n, "on": trigger.value, "do": ladder[n].do.value, "step": last_step(f), **facts}
        if rung.do is Do.FEWER_STEPS:
            entry["last_step"] = min(f.used.steps + (rung.max or 1), f.limits.max_steps)
        if not await enter(f, e, rung, entry):
            f.rungs.append(entry | {"missed": True})
            f.pending.rare["rungs"] = f.rungs
            f.say(Kind.RUNG_MISSED, step_id=entry["step"], result="degraded", data=entry)
            continue
        return True
    return False


def last_step(f: Flight) -> int:
    """The last step that has a row: one whose model call did not fit never was."""
    return max((turn.step for turn in f.turns if turn.state is not None), default=0)


async def enter(f: Flight, e: Services, rung: Rung, entry: JSON) -> bool:
    """False: this rung has nothing to give."""
    answer: answers.Answer | None = None
    if rung.do is Do.ASK and (f.rehearsal or entry.get("limit", GRANTABLE[0]) not in GRANTABLE):
        return False  # nobody is asked about a run that changes nothing
    if rung.do is Do.CACHED:
        earlier = await e.orm(answer_cache.earlier, f.tenant, f.release.id, f.input_key, f.asked)
        answer = answers.Answer("cached", earlier.text, earlier.source) if earlier else None
    elif rung.do is Do.RETRIEVAL_ONLY:
        answer = answers.found(f)
    if answer is None and rung.do in (Do.CACHED, Do.RETRIEVAL_ONLY):
        return False
    if rung.do is Do.ASK and entry.get("limit"):  # the rung is taken in the transaction that asks, not before
        f.asking = entry
        return True
    f.rungs.append(entry | (answer.source if answer else {}))
    f.pending.rare["rungs"] = f.rungs
    f.stance = Stance.after(f.rungs, f.mode)
    f.say(Kind.RUNG_ENTERED, step_id=entry["step"], result="degraded", data=f.rungs[-1])
    if answer:
        await answers.give(f, answer)
    elif rung.do is Do.STOP:
        f.ending = Ending(RunState.FAILED, ENDINGS[rung.on], error={"error_type": rung.on.value, "message": "The ladder says stop."})
    return True


async def look(f: Flight, e: Services) -> None:
    """Before a turn is opened: what the last one ran into, and how much of the limits is used."""
    last = f.last
    for trigger, calls in met(last).items() if last else ():
        if any(entry["on"] == trigger and entry["step"] == last_step(f) for entry in f.rungs):
            continue  # taken before the run was parked
        if await step_down(f, e, trigger, {"tool": calls[0].name, "error_type": calls[0].error}) and last and f.stance.mode == "draft":
            keep(f, last, trigger, calls)
    if f.ending is None and last and going_in_circles(f):
        f.ending = Ending(RunState.FAILED, Outcome.LOOP_DETECTED, error={"error_type": "loop", "message": "The run repeated itself."})
    if f.ending is None and last and last.calls:
        await look_at_limits(f, e)


def going_in_circles(f: Flight) -> bool:
    """It was stopped and told, and did it again; a rung gives it one more chance."""
    if f.last is None or not looped(f.last):
        return False
    stopped = [turn.step for turn in f.work if looped(turn)]
    since = max((entry["step"] for entry in f.taken if entry["on"] == Trigger.LOOP), default=0)
    return len([step for step in stopped if step > since]) >= ENDS_AFTER


def looped(turn: Turn) -> bool:
    return any(call.error == "loop" for call in turn.calls)


async def look_at_limits(f: Flight, e: Services) -> None:
    share, limit = used_share(f.limits, f.used)
    await step_down(f, e, Trigger.BUDGET, {"limit": limit, "share": round(share, 3)}, share)
    gone = 1 - f.left_s() / f.limits.run_s
    if f.ending is None and not f.asking:
        await step_down(f, e, Trigger.DEADLINE_NEAR, {"share": round(gone, 3)}, gone)
    if f.ending is None and not f.asking and f.used.steps + 1 == f.limits.max_steps:
        await use_last_step(f, e)


async def use_last_step(f: Flight, e: Services) -> None:
    """The step limit holds, so the one turn without tools that a rung promises has to be the last step that is left."""
    n = following(f.release.spec.ladder, f.rungs, Trigger.BUDGET_EXCEEDED)
    if n is not None and f.release.spec.ladder[n].do is Do.SINGLE_TURN:
        await step_down(f, e, Trigger.BUDGET_EXCEEDED, {"limit": "max_steps", "value": f.limits.max_steps, "used": f.used.steps + 1})


def met(turn: Turn) -> dict[Trigger, list[ToolCall]]:
    found: dict[Trigger, list[ToolCall]] = {}
    for call in turn.calls:
        if trigger := trigger_of(call):
            found.setdefault(trigger, []).append(call)
    return found


def trigger_of(call: ToolCall) -> Trigger | None:
    said = (call.result or {}).get("error_type")
    if (call.result or {}).get("ok") is not False or said == "drafted":
        return None
    if said == "approval_expired":
        return Trigger.APPROVAL_EXPIRED
    if call.error == "loop":
        return Trigger.LOOP
    if call.error == "policy":
        return Trigger.POLICY_DENIED if said == "denied" else None
    return Trigger.TOOL_UNAVAILABLE if call.error in UNAVAILABLE else None


def keep(f: Flight, turn: Turn, trigger: Trigger, calls: list[ToolCall]) -> None:
    """The writes that a tool could not take become drafts: certainly not applied, shown to a person, told so to the model."""
    if trigger is not Trigger.TOOL_UNAVAILABLE:
        return
    for call in calls:
        definition = f.release.tools.get(call.name)
        if definition is not None and definition.mutating and call.state is not None:
            draft(f, turn, call)


def draft(f: Flight, turn: Turn, call: ToolCall) -> None:
    call.error, call.result = "drafted", {"ok": False, "error_type": "drafted", "message": KEPT}
    place = (turn.step, call.ord)  # one statement moves a row once: what is still to be written is changed instead
    change = next((c for c in f.pending.changed if (c.step, c.ord) == place), None)
    if change is None:
        change = Changed(turn.step, call.ord, call.state or "", attempt=call.attempt)
        f.pending.changed.append(change)
    change.error, change.result = call.error, encode(call.result)
    f.say(Kind.CALL_DRAFTED, step_id=turn.step, ord=call.ord, tool=call.name, result="degraded", data={"attempt": call.attempt})


def left(f: Flight) -> list[dict[str, Any]]:
    """The rungs the run stood on when it ended."""
    return [{"n": entry["n"], "on": entry["on"], "do": entry["do"]} for entry in f.taken]
