"""A person's verdict, or its absence, reaches the run: one transaction per run, locked run -> call -> approval."""

import hashlib
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from approvals import gate
from approvals.models import Approval
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from . import edits, grants
from .events import Kind, event
from .failpoints import fp
from .history import append
from .models import Call, Run
from .resume import requeue
from .states import TERMINAL, CallState, RunState

WAITS = (RunState.WAITING_APPROVAL, RunState.WAITING_BUDGET)


def decide(
    actor: Actor,
    approval_id: UUID,
    *,
    verdict: str,
    digest: str,
    reason: str = "",
    args: Any = None,
    surface: str = "",
    break_glass: bool = False,
) -> Approval:
    """Record the verdict through the gate and wake the run when no call of it waits any more.

    `digest` is the one this person was shown. `args`: approve these arguments instead; the request is replaced by one for them, which
    is returned. Refuses as `gate.decide` and `edits.change` do, and with run_not_waiting 409.
    """
    with transaction.atomic():
        run, approval = _held(actor, approval_id)
        if args is not None:
            edited = edits.change(actor, run, approval, verdict=verdict, shown=digest, args=args, reason=reason)
            if edited is not None:
                return _after_edit(run, edited, actor.user.username)
        outcome = gate.decide(
            actor, approval, verdict=verdict, digest=digest, reason=reason, surface=surface, break_glass=break_glass
        )  # fmt: skip
        if outcome is not gate.Outcome.REPEATED and run is not None:
            _tell(run, approval, outcome, actor.user.username, verdict, gate.storable(reason))
    return approval


def _after_edit(run: Run | None, edited: Approval, by: str) -> Approval:
    if run is not None:
        data = {"approval_id": edited.approval_id, "by": by, "digest": edited.digest, "fields": edits.changed_fields(edited)}
        if edited.state == Approval.State.APPROVED:
            _move_call(edited, state=CallState.READY, approval_id=edited.id)
        _go_on(run, [_about(Kind.APPROVAL_EDITED, edited, "ok", data)])
    return edited


def extend(actor: Actor, run_id: UUID, add: grants.More, reason: str) -> Approval:
    """Grant other amounts than the run asked for: an approval of its request all the same. Refuses as `decide`, `grants.waiting`."""
    with transaction.atomic():
        run, approval = _held(actor, grants.waiting(run_id).id)
        outcome = gate.decide(actor, approval, verdict=gate.Verdict.APPROVE, digest=approval.digest, reason=reason)
        if outcome is gate.Outcome.APPROVED and run is not None:
            _tell(run, approval, outcome, actor.user.username, gate.Verdict.APPROVE, gate.storable(reason), add)
    return approval


def expire_due(limit: int = 100) -> int:
    """Close approvals whose time is over; how many. A run that somebody holds is left to them, or to the next round."""
    reachable = Run.objects.filter(pk=OuterRef("run_id"), state__in=(*WAITS, *TERMINAL))
    overdue = Approval.objects.filter(Exists(reachable), state=Approval.State.PENDING, expires_at__lte=Now())
    runs = dict.fromkeys(overdue.order_by("expires_at").values_list("run_id", flat=True)[:limit])
    return sum(_expire_in(run_id) for run_id in runs)


def void_of_ended(limit: int = 100) -> int:
    """Close what is still open on runs that have ended: nobody has to decide it, and nothing may be sent under it."""
    ended = Run.objects.filter(pk=OuterRef("run_id"), state__in=TERMINAL)
    left = Approval.objects.filter(Exists(ended), state__in=gate.OPEN)
    return sum(len(gate.void(run_id, "The run has ended.")) for run_id in dict.fromkeys(left.values_list("run_id", flat=True)[:limit]))


def _held(actor: Actor, approval_id: UUID) -> tuple[Run | None, Approval]:
    """The run and the approval, locked in order. The run is None when retention has removed it."""
    seen = Approval.objects.filter(pk=approval_id).first()
    if seen is None or not actor.sees(seen.tenant_id):
        raise NotFound("approval")
    run = Run.objects.select_for_update(no_key=True).filter(pk=seen.run_id).first()
    Call.objects.select_for_update(no_key=True).filter(run_id=seen.run_id, step=seen.step, ord=seen.ord).first()
    approval = Approval.objects.select_for_update(no_key=True).get(pk=approval_id)
    waiting = run is not None and run.state in WAITS
    if approval.state == Approval.State.PENDING and not waiting:
        state = run.state if run else "gone"
        raise Refused("run_not_waiting", f"The run does not wait for people: it is {state}.", 409, state=state)
    return run, approval


def _tell(run: Run, approval: Approval, outcome: gate.Outcome, by: str, verdict: str, reason: str, add: grants.More | None = None) -> None:
    granted = []
    if approval.kind == Approval.Kind.BUDGET:
        granted = [grants.grant(run, approval, by, add)] if outcome is gate.Outcome.APPROVED else []
    elif approval.kind == Approval.Kind.CALL and outcome is gate.Outcome.APPROVED:
        _move_call(approval, state=CallState.READY, approval_id=approval.id)
    elif approval.kind == Approval.Kind.CALL and outcome is gate.Outcome.REJECTED:
        _block(approval, "approval_rejected", reason or "A person rejected this call.")
    data = {"approval_id": approval.approval_id, "by": by, "verdict": verdict, "state": approval.state}
    if reason:
        data["reason_sha256"] = hashlib.sha256(reason.encode()).hexdigest()
    result = "denied" if outcome is gate.Outcome.REJECTED else "ok"
    _go_on(run, [_about(Kind.APPROVAL_DECIDED, approval, result, data), *granted], decided=outcome is not gate.Outcome.COUNTED)


@transaction.atomic
def _expire_in(run_id: UUID) -> int:
    run = Run.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=run_id).first()
    if run is None or run.state not in (*WAITS, *TERMINAL):
        return 0
    events = []
    for approval in Approval.objects.filter(run_id=run_id, state=Approval.State.PENDING).order_by("step", "ord"):
        if gate.expire(approval):
            _block(approval, "approval_expired", "Nobody decided in time, so this call was not made.")
            data = {"approval_id": approval.approval_id}
            events.append(_about(Kind.APPROVAL_EXPIRED, approval, "denied", data))
    if events:
        _go_on(run, events)
        fp("in_expire")
    return len(events)


def _about(kind: Kind, approval: Approval, result: str, data: dict[str, Any]) -> tuple[str, str]:
    return event(kind, step_id=approval.step, ord=approval.ord, tool=approval.tool or None, result=result, data=data)


def _block(approval: Approval, error_type: str, message: str) -> None:
    """The call ends unsent; `result` is what the model will be told."""
    told = {"ok": False, "error_type": error_type, "message": message}
    _move_call(approval, state=CallState.BLOCKED, approval_id=approval.id, result=told, ended_at=Now())


def _move_call(approval: Approval, **values: Any) -> bool:
    """waiting_approval -> somewhere. False: the call does not wait any more (its run has ended)."""
    waiting = Call.objects.filter(run_id=approval.run_id, step=approval.step, ord=approval.ord, state=CallState.WAITING_APPROVAL)
    return bool(waiting.update(**values))


def _go_on(run: Run, events: list[tuple[str, str]], *, decided: bool = True) -> None:
    """Write the events; queue the run if none of its calls waits for a person, its deadline moved on by the wait."""
    waits = Call.objects.filter(run_id=run.id, state=CallState.WAITING_APPROVAL).exists()
    resume = decided and run.state in WAITS and not waits
    if resume:
        requeue(run, events)
        return
    append(run, events)
    Run.objects.filter(pk=run.pk).update(seq=run.seq)
