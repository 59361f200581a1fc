"""Sending what people approved: consumed in the transaction that writes the intent, after checking all of it again.

The transactions run in the engine's ORM threads, lock the run first, and count as the next journal entry of the run.
"""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from approvals import gate
from approvals.digest import Sealed, digest
from approvals.models import Approval
from runs import budgets
from runs.events import Kind, event
from runs.failpoints import fp
from runs.history import append
from runs.ladder import Trigger
from runs.models import Call, Run
from runs.states import CallState, RunState
from tenants.ids import encode
from tenants.models import Controls

from . import asking, effects, facts, halts, holds, ladder, previews, rulings, tool_call
from .circuits import Place, Wait
from .flight import Ending, Flight, Intent, ToolCall, Turn
from .services import Services


async def dispatch(f: Flight, e: Services, turn: Turn, call: ToolCall) -> None:
    """Send an approved call once its host lets it through."""
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    place = e.circuits.enter(f.tenant, holds.url_of(f.release.tools[call.name]))
    if isinstance(place, Wait) and place.why != "no_room" and await drafted(f, e, turn, call):
        return
    if isinstance(place, Wait):
        held = await holds.approved(f, e, turn, call, place)
        if held is None:
            return
        place = held
    try:
        await dispatch_now(f, e, turn, call, place)
    finally:
        place.leave()


async def drafted(f: Flight, e: Services, turn: Turn, call: ToolCall) -> bool:
    """Its host is cut off, and a rung says that such calls are kept for a person."""
    if not await ladder.step_down(f, e, Trigger.BREAKER_OPEN, {"tool": call.name}) or f.stance.mode != "draft":
        return False
    await f.commit(Intent())
    await withdraw(f, e, turn, call, "", {"ok": False, "error_type": "drafted", "message": ladder.KEPT})
    return True


async def dispatch_now(f: Flight, e: Services, turn: Turn, call: ToolCall, place: Place) -> None:
    """Consumed in the transaction that makes the intent durable, after checking it again."""
    definition = f.release.tools[call.name]
    f.halt = halts.of_call(f, call, definition)
    if halts.over(f):
        return  # approved still: it is looked at again when the switch is lifted
    await facts.look_at_day(f, e)
    moved = await previews.moved(f, e, turn, call, definition)
    decision = rulings.decide(f, turn, call, definition)
    timeout, began = f.left_for(turn, min(definition.timeout_s, f.limits.tool_call_s)), time.monotonic()
    if decision.verdict in ("deny", "draft") or timeout <= 0:
        kept = {"ok": False, "error_type": "drafted", "message": ladder.KEPT} if decision.verdict == "draft" and timeout > 0 else None
        await withdraw(f, e, turn, call, decision.why if timeout > 0 else "The step's time is over.", kept)
        return
    if moved and moved.final:
        await withdraw(f, e, turn, call, moved.reason)
        return
    # what was asked for together passed the limits one by one: only here is it known what the others have used
    stop = budgets.before_tool(f.limits, f.used, tool=call.name, mutating=definition.mutating) if call.attempt == 0 else None
    if stop:
        await withdraw(f, e, turn, call, f"the run's {stop.limit} is reached.")
        f.ending = Ending(RunState.FAILED, stop.outcome, stop)
        return
    if held := await effects.claim(f, e, turn, call, definition):
        await withdraw(f, e, turn, call, "", held)
        return
    now = asking.seal(f, turn, call, definition)
    needed = decision.approvers if decision.verdict == "ask" else 0
    fp("before_consume")
    about = (now, needed, moved, f.snapshot.rev, timeout, definition.mutating)
    verdict = await e.orm(consume, f.id, f.fence, f.entry, turn.step, call, *about)
    f.cancel = f.cancel or verdict == "cancelled"
    if verdict in ("recheck", "cancelled"):
        f.snapshot = await e.definitions.snapshot(f.tenant)
        return
    f.entry += 1
    if verdict == "void":  # decided anew: people are asked again about what would be sent now
        call.approval_id, call.decision = None, None
        return
    call.state, call.attempt = CallState.DISPATCHED, call.attempt + 1
    f.used.tool_calls += call.attempt == 1
    f.used.writes += definition.mutating and call.attempt == 1
    fp("after_consume")
    tool_call.check_lease(f, turn, call)
    fp("before_approved_socket")
    result = await tool_call.send(f, e, turn, call, timeout - (time.monotonic() - began), place)
    fp("after_approved_answer")
    tool_call.absorb(f, e, turn, call, result)


def voided(message: str) -> dict[str, object]:
    return {"ok": False, "error_type": "denied", "message": message}


async def withdraw(f: Flight, e: Services, turn: Turn, call: ToolCall, why: str, result: dict[str, object] | None = None) -> None:
    """Something changed between the approval and the dispatch: the approval is void and the model is told."""
    result = result or voided(f"Not sent, although it was approved: {why}")
    await e.orm(block, f.id, f.fence, f.entry, turn.step, call, result)
    f.entry += 1
    call.state, call.result, call.error = CallState.BLOCKED, result, "drafted" if result.get("error_type") == "drafted" else "policy"


@transaction.atomic
def consume(
    run_id: UUID,
    fence: int,
    entry: int,
    step: int,
    call: ToolCall,
    now: Sealed,
    needed: int,
    moved: previews.Moved | None,
    rev: int,
    timeout: float,
    mutating: bool,
) -> str:
    """-> `ok`; `void`: something has moved, ask again; or with nothing written `recheck` (the controls changed) and `cancelled`.

    `needed`: people who have to agree as the policy is now; `moved`: the target is not what they saw. Raises Stale.
    """
    run = asking.held(run_id, fence, entry)
    if run.cancel_requested:
        return "cancelled"
    if not Controls.objects.filter(tenant_id=run.tenant_id, rev=rev).exists():
        return "recheck"
    approval = Approval.objects.filter(id=call.approval_id).first() if call.approval_id else None
    if approval is not None and needed > approval.needed:
        gate.withdraw(approval.id, f"What would be sent has changed: policy (now {needed} people).")
        approval.refresh_from_db()
    if approval is not None and moved:
        gate.withdraw(approval.id, moved.reason)
        approval.refresh_from_db()
    if approval is None or not gate.consume(approval, digest(now), now):
        spoil(run, step, call, approval, moved.fields if moved else "")
        return "void"
    Call.objects.filter(run_id=run_id, step=step, ord=call.ord, state=CallState.READY).update(
        state=CallState.DISPATCHED, attempt=call.attempt + 1, fence=fence, dispatched_at=Now(),
        send_deadline=Now() + timedelta(seconds=timeout),
    )  # fmt: skip
    first = call.attempt == 0
    data = {
        "attempt": call.attempt + 1,
        "args_sha256": rulings.digest_of(call.args or b""),
        "approval_id": approval.approval_id,
    }
    append(run, [event(Kind.TOOL_CALL_STARTED, step_id=step, ord=call.ord, tool=call.name, data=data)])
    Run.objects.filter(id=run.id).update(
        seq=run.seq, entry=entry + 1, tool_calls=run.tool_calls + first, writes=run.writes + (mutating and first),
        hold_until=Now() + timedelta(seconds=timeout + rulings.HOLD_MARGIN_S),
    )  # fmt: skip
    fp("in_consume")
    return "ok"


@transaction.atomic
def block(run_id: UUID, fence: int, entry: int, step: int, call: ToolCall, result: dict[str, object]) -> None:
    run = asking.held(run_id, fence, entry)
    _block(run, step, call, result)


def spoil(run: Run, step: int, call: ToolCall, approval: Approval | None, fields: str) -> None:
    """The approval cannot be used: the call is as if nobody had decided it. `fields`: of the target, those that moved."""
    rows = Call.objects.filter(run_id=run.id, step=step, ord=call.ord, state=CallState.READY)
    rows.update(approval_id=None, decision=None)
    data = {"approval_id": approval and approval.approval_id, "moved": fields or (approval.void_reason if approval else "gone")}
    append(run, [event(Kind.APPROVAL_VOIDED, step_id=step, ord=call.ord, tool=call.name, result="denied", data=data)])
    Run.objects.filter(id=run.id).update(seq=run.seq, entry=run.entry + 1)


def unsent(result: dict[str, object]) -> str:
    """Why an approved call was not sent, for its approval."""
    return str(result.get("message") or "The same effect was made before.")[:200]


def _block(run: Run, step: int, call: ToolCall, result: dict[str, object]) -> None:
    """Not sent after all: refused, or kept as a draft."""
    kept = result.get("error_type") == "drafted"
    Call.objects.filter(run_id=run.id, step=step, ord=call.ord, state=CallState.READY).update(
        state=CallState.BLOCKED, result=result, error_class="drafted" if kept else "policy", ended_at=Now()
    )
    if call.approval_id:
        gate.withdraw(call.approval_id, "Kept as a draft." if kept else unsent(result))
    about: dict[str, Any] = {"step_id": step, "ord": call.ord, "tool": call.name}
    data = {"approval_id": call.approval_id and encode("apr", call.approval_id)}
    end = event(Kind.CALL_DRAFTED, **about, result="degraded", data={"attempt": call.attempt})
    refused = event(Kind.POLICY_VIOLATED, **about, result="denied", error_type="policy")
    append(run, [event(Kind.APPROVAL_VOIDED, **about, result="denied", data=data), end if kept else refused])
    Run.objects.filter(id=run.id).update(seq=run.seq, entry=run.entry + 1)
