"""The whole loop of one run, on one screen.

The model proposes; this decides. Each turn of the loop looks at what is committed and takes the one next move: ask the model, rule on
and send tool calls, ask people, wait, or end. *Commit before every effect, and only then*: the result of the last call, the decision
and the intent of the next are one entry. A resumed run enters the same loop with the same facts.
"""

import asyncio
import contextlib
import logging

from django.db import DatabaseError

from runs import reconcile, retries, signoff
from runs.budgets import Stop
from runs.events import Kind, event
from runs.failpoints import fp
from runs.inference import tiers
from runs.states import CallState, Outcome, RunState
from runs.stops import SwitchOn
from tenants.ids import encode
from tools import conditions

from . import actions, answer_gate, asking, budget_ask, critic, facts, halts, ladder, model_call, moving, people, rulings, tool_call
from .flight import Ending, Flight, Intent, Turn
from .journal import Changed, Fault
from .lease import Stale
from .services import Services

log = logging.getLogger(__name__)
PARK_ABOVE_S = 2.0  # a longer back-off lets go of the run
TESTIFY_AGAIN_S = (0.5, 2.0, 5.0, 10.0)
QUARANTINE_AFTER = 3  # takeovers in a row without progress


async def drive(f: Flight, e: Services) -> bool:
    """Until the run ends or parks (True), or belongs to somebody else, or may (False)."""
    try:
        recover(f)
        while f.ending is None or await ladder.rescue(f, e):
            if stop := must_stop(f):
                f.ending = stop
            elif await stood_aside(f) or await move(f, e):
                return True
        await end(f, e, f.ending)
        return True
    except Stale:
        log.info("run %s belongs to another engine now", f.run_id)
        if f.seen:
            await testify(f, e)
        return False
    except Fault as fault:
        return await end_faulty(f, e, fault)


async def testify(f: Flight, e: Services) -> None:
    """What no commit holds is evidence for whoever settles the call. A database in trouble, which may be why, gets some time."""
    for pause in TESTIFY_AGAIN_S:
        try:
            return await e.orm(reconcile.observe, f.tenant, f.id, f.fence, f.seen)
        except DatabaseError as error:
            log.warning("run %s: what was seen is not recorded yet (%s)", f.run_id, str(error).strip())
            await asyncio.sleep(pause)
    await e.orm(reconcile.observe, f.tenant, f.id, f.fence, f.seen)


async def stood_aside(f: Flight) -> bool:
    """True: a switch or the engine's own end made it let go of the run."""
    if switch := halts.over(f):
        await let_go(f, RunState.PAUSED, "switch", waiting=True, switch=switch)
    elif f.draining:
        await let_go(f, RunState.QUEUED, "engine_stopping", available_s=0)
    else:
        return False
    return True


async def move(f: Flight, e: Services) -> bool:
    """The one next move. True: the run was let go of."""
    turn = f.turn
    if f.asking:
        return await budget_ask.ask(f, e, f.asking)
    if to := moving.due(f):
        await moving.move(f, e, to)
        return False
    if turn is None or turn.settled:
        return await next_turn(f, e)
    return await (take_turn if turn.reply is None else work_on)(f, e, turn)


async def take_turn(f: Flight, e: Services, turn: Turn) -> bool:
    if await backed_off(f, f.wait_s):
        return True
    await model_call.ask(f, e, turn)
    tool_call.open_calls(turn)
    if turn.role == tiers.CRITIQUE and turn.settled:
        await critic.judge(f, e, turn)
    return False


async def work_on(f: Flight, e: Services, turn: Turn) -> bool:
    """The calls of a turn that has its answer."""
    if critic.proposes_writes(f, turn) and critic.wanted(f, turn, "writes", condition(f)):
        critic.open_turn(f, turn)
    elif call := next((c for c in turn.calls if rulings.is_approved(c)), None):
        if await backed_off(f, call.wait_s):
            return True
        await people.dispatch(f, e, turn, call)
    elif rulings.undecided(turn):
        if await backed_off(f, max((c.wait_s or 0.0 for c in turn.calls), default=None)):
            return True
        await tool_call.advance(f, e, turn)
    elif tool_call.unknown(turn):
        await let_go(f, RunState.NEEDS_RECONCILIATION, "outcome_unknown", waiting=True)
        await e.orm(reconcile.open_cases)
        return True
    else:
        return await asking.ask(f, e, turn)
    return False


def must_stop(f: Flight) -> Ending | None:
    if f.cancel:
        return Ending(RunState.CANCELLED, Outcome.CANCELLED)
    if f.takeovers >= QUARANTINE_AFTER:
        return Ending(RunState.QUARANTINED, Outcome.MODEL_ERROR)
    if f.left_s() <= 0:
        f.say(Kind.DEADLINE_EXCEEDED, result="error", data={"limit": "run_s", "value": f.limits.run_s})
        late = Stop("run_s", f.limits.run_s, round(f.limits.run_s - f.left_s(), 1), "clock")
        return Ending(RunState.FAILED, Outcome.DEADLINE_EXCEEDED, late)
    return halts.ending(f)


def condition(f: Flight) -> tiers.Holds:
    """Evaluates a role's `when` over the run as it is. What cannot be evaluated does not hold."""

    def holds(expression: str) -> bool:
        try:
            return conditions.holds(expression, {"run": facts.run(f, f.last)})
        except conditions.ConditionError:
            return False

    return holds


async def next_turn(f: Flight, e: Services) -> bool:
    """The last turn is settled: end with its answer, or open the turn that follows. True: the run was let go of."""
    if f.action is not None:
        actions.follow(f)
        return False
    await ladder.look(f, e)
    if f.ending or f.asking:
        return False
    last, models, holds = f.last, f.release.spec.models, condition(f)
    role = next_role(f, last, holds)
    if role is not None:
        f.turns.append(Turn((f.turns[-1].step if f.turns else 0) + 1, role, tiers.model_for(models, role).model))
    elif last is not None and critic.wanted(f, last, "answer", holds):
        critic.open_turn(f, last)
    elif last is not None:
        model_call.conclude(f, last)
        return await answer_gate.check(f, e, last)
    return False


def next_role(f: Flight, last: Turn | None, holds: tiers.Holds) -> str | None:
    """Who takes the next turn. None: the last turn is the answer."""
    models = f.release.spec.models
    if f.stance.single_due(f.turns[-1].step if f.turns else 0):
        return tiers.SYNTHESIS
    if last is not None and not last.calls:
        return tiers.closing_role(models, holds) if last.role not in (tiers.SYNTHESIS, tiers.FROM_STORE) else None
    if f.stance.out_of_steps(f.used.steps):
        return tiers.SYNTHESIS
    return tiers.role_for(models, [tiers.Turn(t.role, poor(f, t)) for t in f.work[-3:]], holds)


def poor(f: Flight, turn: Turn) -> bool:
    """Whether a read of this turn came back empty or invalid."""
    tools = f.release.tools
    reads = [c for c in turn.calls if c.name in tools and not tools[c.name].mutating]
    return any(tiers.came_back_poor(c.result or {}) for c in reads)


def recover(f: Flight) -> None:
    """What the last owner had in flight. A model call may have been billed: its reservation counts as spent."""
    turn = f.turn
    if turn is None:
        return
    if turn.reply is None and turn.state == CallState.DISPATCHED:
        turn.state = CallState.FAILED_NOT_APPLIED
        f.spend(0, 0, f.reserved)
        f.pending.changed.append(Changed(turn.step, 0, turn.state, error="unknown", attempt=turn.attempt, cost=f.reserved))
        f.say(Kind.MODEL_CALL_FAILED, step_id=turn.step, ord=0, model=turn.model, result="error", error_type="unknown",
              retryable=True, cost_micro=f.reserved, data={"attempt": turn.attempt, "lost": True})  # fmt: skip
        if turn.attempt >= retries.MAX_SENDS:
            model_call.failed(f, Outcome.MODEL_ERROR, "The model call used all its sends.", "unknown")
    tool_call.open_calls(turn)
    for call in turn.calls:
        definition = f.release.tools.get(call.name)
        in_flight = call.state == CallState.DISPATCHED and call.result is None
        if in_flight and definition and definition.mutating and definition.idempotency != "key":
            call.state = CallState.UNKNOWN
            f.pending.changed.append(Changed(turn.step, call.ord, call.state, error=reconcile.LOST, attempt=call.attempt))
            f.say(Kind.TOOL_CALL_UNKNOWN, step_id=turn.step, ord=call.ord, tool=call.name, result="unknown",
                  error_type="unknown", data={"attempt": call.attempt, "lost": True})  # fmt: skip


async def backed_off(f: Flight, wait_s: float | None) -> bool:
    """Wait before the next attempt; True: the run was parked instead. What failed is durable before the wait."""
    f.wait_s = None
    if not wait_s:
        return False
    if wait_s > PARK_ABOVE_S:
        await let_go(f, RunState.WAITING_TIMER, "backoff", available_s=min(wait_s, max(f.left_s(), 0)))
        return True
    await f.commit(Intent(reserve=0))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(f.poked.wait(), wait_s)
    return False


async def let_go(
    f: Flight, state: RunState, reason: str, *, available_s: float | None = None, waiting: bool = False, switch: SwitchOn | None = None
) -> None:
    """Give the run back: to the queue, to a timer, or to people."""
    intent = Intent(state=state)
    by = {"switch": encode("swi", switch.id)} if switch else {}
    intent.events.append(event(Kind.RUN_PARKED, data={"state": state.value, "reason": reason, **by}))
    if available_s is not None:
        intent.rare["available_s"] = available_s
    if waiting:
        intent.rare["waiting"] = True
    if switch:
        intent.rare["paused_by"] = str(switch.id)
    fp("before_park")
    await f.commit(intent)
    fp("after_park")


async def end(f: Flight, e: Services, ending: Ending) -> None:
    """The terminal entry: outcome, which limit, the last error, and the calls given up."""
    step = ending.answer_step or (f.turn.step if f.turn else 0)
    if ending.state == RunState.QUARANTINED:
        return await let_go(f, RunState.QUARANTINED, "takeovers")
    intent = Intent(state=ending.state, changed=f.abandoned())
    intent.rare["outcome"] = ending.outcome.value
    stop = None
    for rung in ladder.left(f):
        intent.events.append(event(Kind.RUNG_LEFT, step_id=step, result="degraded", data=rung))
    if ending.stop:
        s = ending.stop
        stop = {"limit": s.limit, "value": s.value, "used": s.used, "by": s.by, "step": step}
        intent.rare["stop"] = stop
        if s.limit not in ("run_s", "switch"):
            intent.events.append(event(Kind.BUDGET_EXCEEDED, step_id=step, result="error", data=stop))
    if ending.error:
        intent.rare["last_error"] = {**ending.error, "step": step}
    if ending.answer_step is not None:
        intent.rare["answer_step"] = ending.answer_step
    result = "ok" if ending.state == RunState.SUCCEEDED else "error"
    data = {"state": ending.state.value, "outcome": ending.outcome.value, "stop": stop}
    cost = {"input_tokens": f.used.tokens_in, "output_tokens": f.used.tokens_out, "cost_micro": f.used.cost_micro}
    error_type = ending.error["error_type"] if ending.error else None
    intent.events.append(event(Kind.RUN_COMPLETED, step_id=step, result=result, error_type=error_type, **cost, data=data))
    fp("before_end")
    await f.commit(intent)
    fp("after_end")
    if any(call.approval_id for turn in f.turns for call in turn.calls):
        await e.orm(signoff.void_of_ended)


async def end_faulty(f: Flight, e: Services, fault: Fault) -> bool:
    """An entry that cannot be written: keep what was seen if that alone can be, then fail the run. Never the engine."""
    log.error("run %s: an entry could not be written: %s", f.run_id, fault)
    f.pending.planned, f.pending.steps = [], []
    error = {"error_type": "invalid_output", "message": str(fault)[:300].replace("\0", "")}
    ending = Ending(RunState.FAILED, Outcome.INVALID_OUTPUT, error=error)
    for _ in range(2):
        try:
            await end(f, e, ending)
            return True
        except Fault:
            f.pending = type(f.pending)()
        except Stale:
            break
    return False
