"""After a backup was restored: runs that were in flight then may have made writes that the database no longer knows of.

They go on, but nothing that they may have sent before is sent again without a person: what was on its way is unknown and is settled as
any other unknown write is, verdicts that were given are asked for anew, and from here on every write of these runs is asked about.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from approvals import gate
from approvals.models import Approval
from tenants import audit, controls
from tenants.errors import Refused
from tenants.ids import encode

from .engine.stance import RESTORED, is_restored
from .events import Kind, event
from .history import append
from .models import Call, Engine, Run
from .reconcile import LOST
from .resume import requeue
from .states import TERMINAL, CallState, RunState

NOT_OF_THE_LADDER = 10_000  # the place of a rung that no ladder has
BATCH = 200
VOID = "The database was restored: what was decided after that is not known here."


@dataclass(frozen=True, slots=True)
class Held:
    """`runs` ask before every write now. `unknown`: writes that were on their way. `voided`: requests that are made anew."""

    runs: int = 0
    unknown: int = 0
    voided: int = 0


def hold(to: datetime) -> Held:
    """Every run that had not ended and was accepted by `to`. May be cut short and done again. Refuses engines_live, restored_in_future 409.

    Engines must not run: between the restore and this they would send.
    """
    refuse_too_early(to)
    done = Held()
    later = UUID(int=0)
    while batch := list(of_then(to).filter(id__gt=later).order_by("id").values_list("id", flat=True)[:BATCH]):
        for run_id in batch:
            one = hold_run(run_id)
            done = Held(done.runs + one.runs, done.unknown + one.unknown, done.voided + one.voided)
        later = batch[-1]
    with transaction.atomic():
        controls.bump(None)
        facts = {"restored_to": to, "runs": done.runs, "unknown": done.unknown, "voided": done.voided}
        audit.append(None, "database.restored", "installation", "all", None, facts, tenant=None)
    return done


def refuse_too_early(to: datetime) -> None:
    if Engine.objects.filter(lease_until__gt=Now()).exists():
        message = "An engine is at work, or was until just now. Stop every engine, wait one lease, and run this before they start."
        raise Refused("engines_live", message, 409)
    if Run.objects.annotate(now=Now()).filter(now__lt=to).exists():
        raise Refused("restored_in_future", "That time is still to come. Give the time that the backup shows, with its zone.", 409)


def of_then(to: datetime) -> Any:
    return Run.objects.filter(created_at__lte=to, asked__rehearsal__isnull=True).exclude(state__in=TERMINAL)


@transaction.atomic
def hold_run(run_id: UUID) -> Held:
    run = Run.objects.select_for_update(no_key=True).get(id=run_id)
    if run.state in TERMINAL or is_restored(run.rungs):
        return Held()
    rung = {"n": NOT_OF_THE_LADDER, "on": RESTORED, "do": "ask", "step": run.step}
    told = [event(Kind.RUNG_ENTERED, step_id=run.step, result="degraded", data=rung)]
    lost, voided = lose_sight(run), ask_anew(run)
    told += lost + voided
    Run.objects.filter(pk=run.pk).update(rungs=[*run.rungs, rung], fence=F("fence") + 1)  # whoever drove it before the restore is late
    if run.state == RunState.WAITING_APPROVAL and voided:
        requeue(run, told)
    else:
        append(run, told)
        Run.objects.filter(pk=run.pk).update(seq=run.seq)
    return Held(1, len(lost), len(voided))


def lose_sight(run: Run) -> list[tuple[str, str]]:
    """Writes that were on their way. One with a key, too: the other side may know the key no longer."""
    sent = Call.objects.filter(run_id=run.id, ord__gt=0, state=CallState.DISPATCHED).exclude(effect="read")
    told = [
        event(Kind.TOOL_CALL_UNKNOWN, step_id=call.step, ord=call.ord, tool=call.name, result="unknown", error_type="unknown",
              data={"attempt": call.attempt, "lost": True})
        for call in sent.order_by("step", "ord")
    ]  # fmt: skip
    sent.update(state=CallState.UNKNOWN, error_class=LOST)
    return told


def ask_anew(run: Run) -> list[tuple[str, str]]:
    """Calls that people decided about, and writes that were to be tried again: each is ruled on as if for the first time."""
    calls = Call.objects.filter(run_id=run.id, ord__gt=0)
    open_ones = Approval.objects.filter(run_id=run.id, kind=Approval.Kind.CALL).order_by("id")
    told = [event(Kind.APPROVAL_VOIDED, data={"approval_id": encode("apr", one.id)}) for one in open_ones if gate.withdraw(one.id, VOID)]
    calls.filter(state=CallState.WAITING_APPROVAL).update(state=CallState.READY, approval_id=None)
    calls.filter(state=CallState.READY).update(approval_id=None)
    again = calls.filter(state=CallState.FAILED_NOT_APPLIED, result=None).exclude(effect="read")
    for step, ord_, decision in list(again.values_list("step", "ord", "decision")):
        again.filter(step=step, ord=ord_).update(approval_id=None, decision={**(decision or {}), "resend": True})
    return told
