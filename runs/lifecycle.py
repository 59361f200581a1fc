"""The rare moves of a run that people make: cancel, retry. Guarded, under the run's lock."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from approvals import gate
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode

from .events import Kind, event
from .history import DUE, append, notify
from .intake import place, usable
from .models import Call, Run, RunInput
from .states import OWNED, TERMINAL, CallState, Outcome, RunState

NEVER_SENT = (CallState.READY, CallState.WAITING_APPROVAL)


@transaction.atomic
def cancel(actor: Actor, run_id: UUID) -> Run:
    """End a run at its next safe point; a run that has ended is returned as it is.

    A run that an engine holds is only asked to stop: its engine makes the move within one call. Refuses with scope_missing 403,
    not_found 404.
    """
    actor.need("runs:write")
    run = _held(actor, run_id)
    if run.state in OWNED and not run.cancel_requested:
        append(run, [event(Kind.CANCEL_REQUESTED, data={"by": actor.user.username})])
        Run.objects.filter(pk=run.pk).update(seq=run.seq, cancel_requested=True)
        notify(DUE, run.id)
    elif run.state not in (*OWNED, *TERMINAL):
        _end(run, actor.user.username)
    run.refresh_from_db()
    return run


@transaction.atomic
def retry(actor: Actor, run_id: UUID) -> Run:
    """A new run from the same input, limits and release; writes that the first one applied are answered from their recorded results.

    Refuses with: scope_missing, tenant_inactive 403, not_found 404, run_not_retryable, retry_would_repeat_writes 409.
    """
    actor.need("runs:write")
    run = _held(actor, run_id)
    if run.state not in TERMINAL or run.state == RunState.SUCCEEDED:
        message = "Only a run that failed or was cancelled can be tried again."
        raise Refused("run_not_retryable", message, 409, state=run.state)
    if writes_that_may_be_applied(run.pk).exists():
        message = "The outcome of a write of this run is unknown: trying again could make it twice. Settle it first."
        raise Refused("retry_would_repeat_writes", message, 409)
    first = RunInput.objects.get(pk=run.pk)
    if first.action is not None:
        message = "A person named the one call of this run. Ask for it again where they did."
        raise Refused("run_not_retryable", message, 409, state=run.state, of=first.action.get("of"))
    tenant, _, now = usable(run.tenant, run.agent_id)
    asked = RunInput(
        text=first.text, data=first.data, user=first.user, session=first.session, limits=first.limits,
        metadata={**first.metadata, "retry_of": run.run_id}, traceparent=first.traceparent,
        retry_of=run.id, callback=first.callback,
    )  # fmt: skip
    return place(asked, tenant=tenant, release=run.release, starter=actor.user, mode=run.mode, now=now, retry_of=run.run_id)


def _held(actor: Actor, run_id: UUID) -> Run:
    run = Run.objects.select_for_update(no_key=True).filter(pk=run_id).first()
    if run is None or not actor.sees(run.tenant_id):
        raise NotFound("run")
    return run


def _end(run: Run, by: str) -> None:
    """Cancel a run that nobody holds. `fence` + 1: whatever an engine of its past still sends is refused."""
    calls = Call.objects.filter(run_id=run.id)
    calls.filter(state__in=NEVER_SENT).update(state=CallState.ABANDONED, ended_at=Now())
    calls.filter(state=CallState.DISPATCHED, effect="read").update(state=CallState.ABANDONED, ended_at=Now())
    # a write that was sent and never answered stays in the ledger of unknowns: cancelling settles nothing about it
    calls.filter(state=CallState.DISPATCHED).exclude(ord=0).update(state=CallState.UNKNOWN, error_class="lost")
    # a model call in flight may have been billed: its reservation counts as spent
    lost = calls.filter(state=CallState.DISPATCHED).update(
        state=CallState.ABANDONED, ended_at=Now(), cost_micro=F("cost_micro") + run.reserved_micro
    )
    voided = gate.void(run.id, "The run was cancelled.")
    events = [event(Kind.APPROVAL_VOIDED, data={"approval_id": encode("apr", one)}) for one in voided]
    ending: dict[str, Any] = {"state": RunState.CANCELLED.value, "outcome": Outcome.CANCELLED.value, "by": by}
    append(run, [*events, event(Kind.RUN_COMPLETED, data=ending)])
    Run.objects.filter(pk=run.pk).exclude(state__in=(*OWNED, *TERMINAL)).update(
        seq=run.seq, state=RunState.CANCELLED, outcome=Outcome.CANCELLED, stop={"by": by, "step": run.step},
        cancel_requested=True, ended_at=Now(), fence=F("fence") + 1, reserved_micro=0,
        cost_micro=F("cost_micro") + (run.reserved_micro if lost else 0), waiting_since=None, hold_until=None, paused_by=None,
    )  # fmt: skip


def writes_that_may_be_applied(run_id: UUID | OuterRef) -> "QuerySet[Call]":
    """Why a run is not tried again: writes that were sent and whose outcome nobody knows."""
    sent = Q(state__in=(CallState.UNKNOWN, CallState.DISPATCHED))
    given_up = Q(state=CallState.ABANDONED, dispatched_at__isnull=False)
    return Call.objects.filter(sent | given_up, run_id=run_id, ord__gt=0).exclude(effect="read")
