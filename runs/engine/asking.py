"""Asking people about calls: one request each, in one transaction that also lets go of the run. Standing grants answer at once.

It runs in the engine's ORM threads, locks the run first, and counts as the next journal entry of the run.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from approvals import gate
from approvals.digest import Sealed, digest, sealed
from approvals.models import Approval
from runs.events import Kind, event
from runs.failpoints import fp
from runs.history import append
from runs.models import Call, Run
from runs.states import CallState, RunState
from tenants.ids import encode
from tools import canonical, conditions
from tools.definitions import Effect, ToolDefinition

from . import previews, rulings
from .flight import JSON, Flight, Intent, ToolCall, Turn
from .lease import Stale
from .services import Services
from .stance import is_restored


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that a person must decide."""

    call: ToolCall
    definition: ToolDefinition
    sealed: Sealed
    why: str
    needed: int
    group: str = ""
    preview: JSON | None = None  # what its tool says it would change


def seal(f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition) -> Sealed:
    """What an approval of this call is bound to."""
    adapter, name = definition.adapter, f.release.credentials.get(call.name, "")
    credential = f.snapshot.credentials.get(name)
    return sealed(
        tenant=str(f.tenant),
        run=str(f.id),
        call=f"{turn.step}.{call.ord}",
        tool_version=str(definition.version_id),
        credential=f"{name}@{credential.version}" if credential else name,
        args_sha256=rulings.digest_of(call.args or b""),
        destination=str(adapter.get("url") or adapter.get("name") or ""),
        effect=definition.effect.value,
        policy=f.snapshot.policy_of(call.name),
        key=rulings.idem_key(f, turn, call),
    )


async def ask(f: Flight, e: Services, turn: Turn) -> bool:
    """Open a request for each waiting call and let go of the run: no engine, no lease while people think.

    False: it goes on here, because it was cancelled, or because standing grants approved every call.
    """
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    asks = []
    waiting = [c for c in turn.calls if c.state == CallState.WAITING_APPROVAL and c.result is None]
    seen = await asyncio.gather(*(previews.look(f, e, turn, call, f.release.tools[call.name]) for call in waiting))
    for call, preview in zip(waiting, seen, strict=True):
        definition = f.release.tools[call.name]
        decision = call.decision or {}
        said = decision.get("why", ""), decision.get("approvers") or 1, decision.get("group", "")
        asks.append(Ask(call, definition, seal(f, turn, call, definition), *said, preview))
    evidence = [{"step": t.step, "ord": c.ord, "tool": c.name} for t in f.turns for c in t.calls if c.state == CallState.DONE]
    fp("before_ask")
    opened: Opened = await e.orm(open_requests, f.id, f.fence, f.entry, turn.step, f.release.agent, asks, evidence, expiry_s(f))
    if opened.cancelled:
        f.cancel = True
        return False
    fp("after_ask")
    f.entry += 1
    for call in turn.calls:
        if approval := opened.granted.get(call.ord):
            call.state, call.approval_id = CallState.READY, approval
    return opened.parked


def expiry_s(f: Flight) -> float:
    expiry = f.limits.approval_s or settings.APPROVAL_EXPIRY_S
    return min(expiry, max(f.left_s(), 0)) if f.limits.count_waiting else expiry


def held(run_id: UUID, fence: int, entry: int) -> Run:
    """The run's row, locked, if it is still ours. Raises Stale."""
    run = Run.objects.select_for_update(no_key=True).filter(id=run_id, fence=fence, entry=entry).first()
    if run is None:
        raise Stale
    return run


def park(run: Run, state: RunState, told: list[tuple[str, str]], **more: Any) -> None:
    """Under the run's lock, as its next entry: let go of it until a person has decided."""
    append(run, told)
    Run.objects.filter(id=run.id).update(
        entry=run.entry + 1, state=state, owner=None, hold_until=None, seq=run.seq, waiting_since=Now(), **more
    )  # fmt: skip


@dataclass(slots=True)
class Opened:
    """What became of a turn's requests. `granted`: ord -> approval, of those that standing grants approved."""

    cancelled: bool = False
    parked: bool = True
    granted: dict[int, UUID] = field(default_factory=dict)


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
) -> Opened:
    """`cancelled`, and nothing is written: a cancel was asked for. Raises Stale."""
    run, opened = held(run_id, fence, entry), Opened()
    if run.cancel_requested:
        return Opened(cancelled=True)
    told = []
    for a in asks:
        approval = gate.request(
            tenant_id=run.tenant_id, run_id=run.id, step=step, ord=a.call.ord, agent=agent, tool=a.call.name,
            tool_version_id=a.definition.version_id, effect=a.definition.effect.value, args=a.call.args or b"{}",
            digest=digest(a.sealed), sealed=a.sealed, risk="high" if a.definition.effect is Effect.IRREVERSIBLE else "normal",
            why=a.why, evidence=evidence, starter_id=run.starter_id, needed=a.needed, expires_s=expires_s,
            group=a.group, preview=a.preview,
        )  # fmt: skip
        data = {"approval_id": encode("apr", approval.id), "digest": approval.digest, "needed": a.needed}
        data |= {"group": a.group} if a.group else {}
        data |= {"preview_sha256": rulings.digest_of(canonical.dumps(a.preview))} if a.preview else {}
        told.append(event(Kind.APPROVAL_REQUESTED, step_id=step, ord=a.call.ord, tool=a.call.name, data=data))
        if not is_restored(run.rungs) and by_grant(approval):  # a yes in advance knows nothing of a restore
            told.append(event(Kind.APPROVAL_DECIDED, step_id=step, ord=a.call.ord, tool=a.call.name, result="ok", data=told_of(approval)))
            opened.granted[a.call.ord] = approval.id
    opened.parked = len(opened.granted) < len(asks)
    if opened.parked:
        park(run, RunState.WAITING_APPROVAL, [*told, event(Kind.RUN_PARKED, step_id=step, data={"state": RunState.WAITING_APPROVAL})])
    else:
        append(run, told)
        Run.objects.filter(id=run.id).update(seq=run.seq, entry=run.entry + 1)
    calls = Call.objects.filter(run_id=run.id, step=step, state=CallState.WAITING_APPROVAL)
    for ord_, approval_id in opened.granted.items():
        calls.filter(ord=ord_).update(state=CallState.READY, approval_id=approval_id)
    fp("in_ask")
    return opened


def by_grant(approval: Approval) -> bool:
    """Whether a standing grant approves it, or did before this engine took the run over."""
    if approval.state == Approval.State.APPROVED:
        return approval.grant_id is not None
    return gate.use_grant(approval, fits)


def fits(condition: str, args: object) -> bool:
    try:
        return conditions.holds(condition, {"args": args})
    except conditions.ConditionError:
        return False


def told_of(approval: Approval) -> dict[str, object]:
    grant = encode("grt", approval.grant_id) if approval.grant_id else None
    return {"approval_id": approval.approval_id, "by": "standing grant", "grant": grant, "verdict": "approve", "state": approval.state}
