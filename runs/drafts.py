"""Drafts: calls that were kept for a person instead of sent, and what people make of them.

The draft is the call's own row, so it is there exactly when the run's record says so. Carrying one out is a run of its own: the same
bytes, under the permissions and approvals of that moment, in the ledger like every other call.
"""

import json
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode

from .intake import place, usable
from .models import Call, DraftDecision, Run, RunInput

DRAFTED = "drafted"
Verdict = DraftDecision.Verdict


def decided() -> Exists:
    return Exists(DraftDecision.objects.filter(run_id=OuterRef("run_id"), step=OuterRef("step"), ord=OuterRef("ord")))


def drafts(actor: Actor, *, waiting: bool = True) -> "QuerySet[Call]":
    """The drafts that the actor sees, newest first; `waiting`: only those nobody has decided."""
    rows = Call.objects.filter(error_class=DRAFTED).annotate(was_decided=decided()).order_by("-run_id", "-step", "-ord")
    if not actor.platform_admin:
        rows = rows.filter(tenant_id=actor.tenant.id)
    return rows.filter(was_decided=False) if waiting else rows


@transaction.atomic
def carry_out(actor: Actor, run_id: UUID, step: int, ord: int, reason: str = "") -> Run:
    """A run that makes exactly this call. Refuses: scope_missing 403, not_found 404, draft_decided 409, and as intake does."""
    run, call = _held(actor, run_id, step, ord)
    tenant, _, now = usable(run.tenant, run.agent_id)
    first = RunInput.objects.get(pk=run.pk)
    name = f"{run.run_id}.{step}.{ord}"
    action = {"kind": "draft", "tool": call.name, "args": json.loads(bytes(call.args or b"{}")), "of": name}
    asked = RunInput(
        text=f"Carry out the draft {name}.", user=first.user, session=first.session, limits=first.limits, action=action,
        metadata={"draft_of": name},
    )  # fmt: skip
    made = place(asked, tenant=tenant, release=run.release, starter=actor.user, mode="normal", now=now)
    _decide(actor, run, call, Verdict.CARRIED_OUT, reason, made)
    return made


@transaction.atomic
def dismiss(actor: Actor, run_id: UUID, step: int, ord: int, reason: str = "") -> None:
    """Nobody needs it. Refuses as `carry_out`."""
    run, call = _held(actor, run_id, step, ord)
    _decide(actor, run, call, Verdict.DISMISSED, reason, None)


def _held(actor: Actor, run_id: UUID, step: int, ord: int) -> tuple[Run, Call]:
    actor.need("runs:write")
    run = Run.objects.select_for_update(no_key=True).filter(pk=run_id).first()
    call = Call.objects.filter(run_id=run_id, step=step, ord=ord, error_class=DRAFTED).first()
    if run is None or call is None or not actor.sees(run.tenant_id):
        raise NotFound("draft")
    earlier = DraftDecision.objects.select_related("by").filter(run_id=run_id, step=step, ord=ord).first()
    if earlier:
        message = f"{earlier.by.username} has already decided: {earlier.verdict}."
        made = encode("agt", earlier.action_run) if earlier.action_run else None
        raise Refused("draft_decided", message, 409, by=earlier.by.username, verdict=earlier.verdict, run_id=made)
    return run, call


def _decide(actor: Actor, run: Run, call: Call, verdict: Verdict, reason: str, made: Run | None) -> None:
    values: dict[str, Any] = {"verdict": verdict, "action_run": made and made.id, "by": actor.user, "reason": reason[:2000]}
    DraftDecision.objects.create(tenant=run.tenant, run_id=run.id, step=call.step, ord=call.ord, **values)
    after = {"tool": call.name, "run_id": made.run_id if made else None}
    audit.append(actor, f"draft.{verdict}", "call", f"{run.run_id}.{call.step}.{call.ord}", None, after, reason, tenant=run.tenant)
