"""Where a run meets people: asking for approvals, and sending what was approved. Rare moves, each its own guarded transaction.

Both run in the engine's ORM threads, lock the run first, and count as the next journal entry of the run.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from approvals import gate
from approvals.digest import digest
from approvals.models import Approval
from runs import budgets
from runs.events import Kind, event
from runs.failpoints import fp
from runs.history import append
from runs.models import Call, Run
from runs.states import CallState, RunState
from tenants.ids import encode
from tenants.models import Controls
from tools.definitions import Effect, ToolDefinition

from . import effects, facts, halts, holds, rulings, tool_call
from .circuits import Place, Wait
from .flight import Ending, Flight, Intent, ToolCall, Turn
from .lease import Stale
from .services import Services


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that a person must decide."""

    call: ToolCall
    definition: ToolDefinition
    digest: str
    why: str
    needed: int


def call_digest(f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition) -> str:
    """Binds an approval to exactly what would be sent: tenant, run, call, version, bytes, destination, effect and key."""
    adapter = definition.adapter
    return digest(
        tenant=str(f.tenant),
        run=str(f.id),
        call=f"{turn.step}.{call.ord}",
        tool_version=str(definition.version_id),
        args_sha256=rulings.digest_of(call.args or b""),
        destination=str(adapter.get("url") or adapter.get("name") or ""),
        effect=definition.effect.value,
        key=rulings.idem_key(f, turn, call),
    )


async def ask(f: Flight, e: Services, turn: Turn) -> bool:
    """Open a request for each waiting call and let go of the run: no engine, no lease while people think. False: it was cancelled."""
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    asks = []
    for call in (c for c in turn.calls if c.state == CallState.WAITING_APPROVAL and c.result is None):
        definition = f.release.tools[call.name]
        decision = call.decision or {}
        asks.append(Ask(call, definition, call_digest(f, turn, call, definition), decision.get("why", ""), decision.get("approvers") or 1))
    evidence = [{"step": t.step, "ord": c.ord, "tool": c.name} for t in f.turns for c in t.calls if c.state == CallState.DONE]
    fp("before_ask")
    if not await e.orm(open_requests, f.id, f.fence, f.entry, turn.step, f.release.agent, asks, evidence, expiry_s(f)):
        f.cancel = True
        return False
    fp("after_ask")
    f.entry += 1
    return True


def expiry_s(f: Flight) -> float:
    expiry = f.limits.approval_s or settings.APPROVAL_EXPIRY_S
    return min(expiry, max(f.left_s(), 0)) if f.limits.count_waiting else expiry


def held(run_id: UUID, fence: int, entry: int) -> Run:
    """The run's row, locked, if it is still ours. Raises Stale."""
    run = Run.objects.select_for_update(no_key=True).filter(id=run_id, fence=fence, entry=entry).first()
    if run is None:
        raise Stale
    return run


@transaction.atomic
def open_requests(
    run_id: UUID,
    fence: int,
    entry: int,
    step: int,
    agent: str,
    asks: list[Ask],
    evidence: list[dict[str, object]],
    expires_s: float,
) -> bool:
    """False, and nothing is written: a cancel was asked for. Raises Stale."""
    run = held(run_id, fence, entry)
    if run.cancel_requested:
        return False
    told = []
    for a in asks:
        approval = gate.request(
            tenant_id=run.tenant_id, run_id=run.id, step=step, ord=a.call.ord, agent=agent, tool=a.call.name,
            tool_version_id=a.definition.version_id, effect=a.definition.effect.value, args=a.call.args or b"{}", digest=a.digest,
            risk="high" if a.definition.effect is Effect.IRREVERSIBLE else "normal", why=a.why, evidence=evidence,
            starter_id=run.starter_id, needed=a.needed, expires_s=expires_s,
        )  # fmt: skip
        data = {"approval_id": encode("apr", approval.id), "digest": a.digest, "needed": a.needed}
        told.append(event(Kind.APPROVAL_REQUESTED, step_id=step, ord=a.call.ord, tool=a.call.name, data=data))
    run.entry, run.state, run.owner, run.hold_until = entry + 1, RunState.WAITING_APPROVAL, None, None
    told.append(event(Kind.RUN_PARKED, step_id=step, data={"state": RunState.WAITING_APPROVAL}))
    append(run, told)
    Run.objects.filter(id=run.id).update(entry=run.entry, state=run.state, owner=None, hold_until=None, seq=run.seq, waiting_since=Now())
    fp("in_ask")
    return True


async def dispatch(f: Flight, e: Services, turn: Turn, call: ToolCall) -> None:
    """Send an approved call once its host lets it through."""
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    f.snapshot = await e.definitions.snapshot(f.tenant, None)
    place = e.circuits.enter(f.tenant, holds.url_of(f.release.tools[call.name]))
    if isinstance(place, Wait):
        held = await holds.approved(f, e, turn, call, place)
        if held is None:
            return
        place = held
    try:
        await dispatch_now(f, e, turn, call, place)
    finally:
        place.leave()


async def dispatch_now(f: Flight, e: Services, turn: Turn, call: ToolCall, place: Place) -> None:
    """Consumed in the transaction that makes the intent durable, after checking it again."""
    definition = f.release.tools[call.name]
    f.halt = halts.of_call(f, call, definition)
    if halts.over(f):
        return  # approved still: it is looked at again when the switch is lifted
    await facts.look_at_day(f, e)
    decision = rulings.decide(f, turn, call, definition)
    timeout, began = f.left_for(turn, min(definition.timeout_s, f.limits.tool_call_s)), time.monotonic()
    if decision.verdict in ("deny", "draft") or timeout <= 0:
        await withdraw(f, e, turn, call, decision.why if timeout > 0 else "The step's time is over.")
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
    now = call_digest(f, turn, call, definition)
    fp("before_consume")
    verdict = await e.orm(consume, f.id, f.fence, f.entry, turn.step, call, now, f.snapshot.rev, timeout, definition.mutating)
    f.cancel = f.cancel or verdict == "cancelled"
    if verdict in ("recheck", "cancelled"):
        return
    f.entry += 1
    if verdict == "void":
        call.state, call.result = CallState.BLOCKED, voided("The approval no longer matches what would be sent.")
        return
    call.state, call.attempt = CallState.DISPATCHED, call.attempt + 1
    f.used.tool_calls += call.attempt == 1
    f.used.writes += definition.mutating and call.attempt == 1
    fp("after_consume")
    f.lease.check()
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
    call.state, call.result = CallState.BLOCKED, result


@transaction.atomic
def consume(
    run_id: UUID, fence: int, entry: int, step: int, call: ToolCall, digest_now: str, rev: int, timeout: float, mutating: bool
) -> str:
    """-> `ok`, `void`, or with nothing written `recheck` (the controls changed) and `cancelled` (asked for meanwhile). Raises Stale."""
    run = held(run_id, fence, entry)
    if run.cancel_requested:
        return "cancelled"
    if not Controls.objects.filter(tenant_id=run.tenant_id, rev=rev).exists():
        return "recheck"
    approval = Approval.objects.filter(id=call.approval_id).first() if call.approval_id else None
    if approval is None or not gate.consume(approval, digest_now):
        _block(run, step, call, voided("The approval no longer matches what would be sent."))
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
    run = held(run_id, fence, entry)
    _block(run, step, call, result)


def _block(run: Run, step: int, call: ToolCall, result: dict[str, object]) -> None:
    Call.objects.filter(run_id=run.id, step=step, ord=call.ord, state=CallState.READY).update(
        state=CallState.BLOCKED, result=result, error_class="policy", ended_at=Now()
    )
    if call.approval_id:
        gate.withdraw(call.approval_id, "The policy changed after the approval.")
    facts: dict[str, Any] = {"step_id": step, "ord": call.ord, "tool": call.name}
    append(
        run,
        [
            event(
                Kind.APPROVAL_VOIDED,
                **facts,
                result="denied",
                data={"approval_id": call.approval_id and encode("apr", call.approval_id)},
            ),
            event(Kind.POLICY_VIOLATED, **facts, result="denied", error_type="policy"),
        ],
    )
    Run.objects.filter(id=run.id).update(seq=run.seq, entry=run.entry + 1)
