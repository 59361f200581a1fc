"""Settling writes whose outcome is unknown. Nothing is ever sent again by itself: evidence or a person says what happened.

In this order: what a superseded engine saw after all, the tool's verify adapter, a person with evidence.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.definitions import ErrorClass
from tools.models import ToolVersion

from .events import Kind, event
from .failpoints import fp
from .history import append
from .models import Call, Observation, Run, UnknownWrite
from .resume import requeue
from .retries import MAX_SENDS
from .states import OWNED, CallState, RunState

How, Result = UnknownWrite.How, UnknownWrite.Result
EVIDENCE_MAX = 4000
PROBES_MAX = 8
OPENED_AT_ONCE = 500
LOST = "lost"  # error class of a send whose engine never said what came of it
LEASE_S = 30.0  # a probe that is under way is nobody else's for this long


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is now known of a call. `data` is what the model will be told; None: a plain sentence."""

    result: str
    how: str
    evidence: str = ""
    data: dict[str, Any] | None = None
    resend: bool = False  # not applied, and authorised to be tried once more (asked for anew where the tool asks)


def open_cases() -> int:
    """Give every unknown call without a case one. Idempotent; run by every engine each second, and by the jobs."""
    case = UnknownWrite.objects.filter(run_id=OuterRef("run_id"), step=OuterRef("step"), ord=OuterRef("ord"), result="")
    unknown = Call.objects.filter(~Exists(case), state=CallState.UNKNOWN)
    return sum(open_case(call) for call in unknown.only("tenant_id", "name", "tool_version_id")[:OPENED_AT_ONCE])


@transaction.atomic
def open_case(call: Call) -> bool:
    """Under the run's lock, and if the call is unknown still: what was settled meanwhile gets no second case. False: not now."""
    run = Run.objects.select_for_update(no_key=True, skip_locked=True).filter(id=call.run_id).first()
    if run is None or not Call.objects.filter(run_id=call.run_id, step=call.step, ord=call.ord, state=CallState.UNKNOWN).exists():
        return False
    at = first_probe(call.tool_version_id)
    case = UnknownWrite(tenant_id=call.tenant_id, run_id=run.id, step=call.step, ord=call.ord, tool=call.name, next_probe_at=at)
    UnknownWrite.objects.bulk_create([case], ignore_conflicts=True)
    return True


def first_probe(version_id: UUID | None) -> Any:
    version = ToolVersion.objects.filter(id=version_id).first() if version_id else None
    return Now() + timedelta(seconds=version.verify["delay_s"]) if version and version.verify else None


def observe(tenant_id: UUID, run_id: UUID, fence: int, seen: list[dict[str, Any]]) -> None:
    """Record what an engine that lost the run still saw of its calls: unfenced, append only."""
    Observation.objects.bulk_create(Observation(tenant_id=tenant_id, run_id=run_id, fence=fence, **one) for one in seen)


def use_late_evidence() -> int:
    """Close the open cases of which an engine that lost the run knows for certain what happened; how many."""
    closed = 0
    certain = conclusive().filter(run_id=OuterRef("run_id"), step=OuterRef("step"), ord=OuterRef("ord"))
    at_work = Run.objects.filter(id=OuterRef("run_id"), state__in=OWNED)
    for case in UnknownWrite.objects.filter(Exists(certain), ~Exists(at_work), result="").order_by("id")[:100]:
        seen = conclusive().filter(run_id=case.run_id, step=case.step, ord=case.ord).order_by("-applied", "id").first()
        if seen is not None:
            closed += settle(case.id, as_settled(seen))
    return closed


def conclusive() -> QuerySet[Observation]:
    """That it was applied holds for any send. That one was not says nothing of the others: it has to be the one that was lost."""
    lost = Call.objects.filter(
        run_id=OuterRef("run_id"), step=OuterRef("step"), ord=OuterRef("ord"), attempt=OuterRef("attempt"), error_class=LOST
    )
    return Observation.objects.filter(Q(applied=True) | Q(Exists(lost), applied=False))


def as_settled(seen: Observation) -> Settlement:
    if seen.applied:
        evidence = f"The answer to send {seen.attempt} arrived at an engine that no longer owned the run."
        return Settlement(Result.APPLIED, How.LATE_EVIDENCE, evidence, seen.result)
    if seen.error_class == ErrorClass.NOT_SENT:
        evidence = f"Send {seen.attempt} was never made: the engine that had committed it no longer owned the run."
        return Settlement(Result.NOT_APPLIED, How.LATE_EVIDENCE, evidence, resend=seen.attempt < MAX_SENDS)
    evidence = f"Send {seen.attempt} was refused, as an engine saw that no longer owned the run."
    return Settlement(Result.NOT_APPLIED, How.LATE_EVIDENCE, evidence, seen.result)


def claim_probe() -> UUID | None:
    """One case that is due for a probe; nobody else probes it for a while."""
    with transaction.atomic():
        due = UnknownWrite.objects.filter(result="", next_probe_at__lte=Now())
        case = due.select_for_update(skip_locked=True, no_key=True).order_by("next_probe_at").first()
        if case is None:
            return None
        UnknownWrite.objects.filter(id=case.id).update(next_probe_at=Now() + timedelta(seconds=LEASE_S))
        return case.id


def record_probe(case_id: UUID, verdict: str, detail: str) -> None:
    """`applied` settles at once; `not_applied` only after enough agreeing probes and quiescence; else ask again, then a person."""
    with transaction.atomic():
        case = UnknownWrite.objects.select_for_update(no_key=True).get(id=case_id)
        if case.result:
            return
        now = UnknownWrite.objects.annotate(now=Now()).get(id=case_id).now
        probes = [*case.probes, {"at": now.isoformat(), "verdict": verdict, "detail": detail[:300]}]
        verify = verify_of(case)
        more = len(probes) < PROBES_MAX and verify is not None
        wait = float(verify["delay_s"]) * 2 ** max(0, len(probes) - 3) if verify else 0.0
        again = Now() + timedelta(seconds=max(wait, 0.2)) if more else None
        UnknownWrite.objects.filter(id=case_id).update(probes=probes, next_probe_at=again)
    needed = int(verify["probes"]) if verify else 1
    agreeing = [p["verdict"] for p in probes[-needed:]]
    if verdict == "applied":
        settle(case_id, Settlement(Result.APPLIED, How.VERIFIED, detail))
    elif agreeing == ["not_applied"] * needed and quiet(case):
        settle(case_id, Settlement(Result.NOT_APPLIED, How.VERIFIED, detail))


def verify_of(case: UnknownWrite) -> dict[str, Any] | None:
    call = call_of(case)
    version = ToolVersion.objects.filter(id=call.tool_version_id).first() if call.tool_version_id else None
    return version.verify if version else None


def call_of(case: UnknownWrite) -> Call:
    return Call.objects.get(run_id=case.run_id, step=case.step, ord=case.ord)


def quiet(case: UnknownWrite) -> bool:
    """Whether nothing can still be on its way.

    An engine that saw its send fail is done with it at the send's deadline; one that died or froze may hold it for two leases more.
    """
    call = Call.objects.filter(run_id=case.run_id, step=case.step, ord=case.ord)
    margin = timedelta(seconds=2 * settings.LEASE_TTL_S)
    past = call.filter(Q(send_deadline=None) | Q(send_deadline__lte=Now() - margin)).exists()
    return past or call.filter(send_deadline__lte=Now()).exclude(error_class=LOST).exists()


def resolve(actor: Actor, case_id: UUID, *, result: str, evidence: str, resend: bool = False) -> UnknownWrite:
    """A person's word. Refuses: not_found, scope_missing, unknown_result, evidence_missing 422, already_settled, too_early 409."""
    actor.need("approvals:decide")
    case = UnknownWrite.objects.filter(id=case_id).first()
    if case is None or not actor.sees(case.tenant_id):
        raise NotFound("unknown write")
    if result not in Result.values:
        raise Refused("unknown_result", "The result is applied or not_applied.", 422, known=list(Result.values))
    if not evidence.strip():
        raise Refused("evidence_missing", "Say what you saw: the evidence is kept with the decision.", 422, field="evidence")
    if resend and result != Result.NOT_APPLIED:
        raise Refused("resend_refused", "Only a write that was not applied can be sent again.", 422, field="resend")
    if result == Result.NOT_APPLIED and not quiet(case):
        message = "The write may still be on its way. Wait until its deadline and two leases have passed."
        raise Refused("too_early", message, 409, retry_after_s=2 * settings.LEASE_TTL_S)
    said = Settlement(result, How.PERSON, evidence.replace("\0", "\N{REPLACEMENT CHARACTER}")[:EVIDENCE_MAX], resend=resend)
    if not settle(case.id, said, actor):
        current = UnknownWrite.objects.get(id=case.id)
        if not current.result:
            raise Refused("too_early", "The run is at work on its other calls. Try again when it waits.", 409, retry_after_s=1)
        message = f"It was settled already: {current.result}, by {current.settled_by or current.how}."
        raise Refused("already_settled", message, 409, result=current.result, how=current.how, by=current.settled_by)
    return UnknownWrite.objects.get(id=case.id)


@transaction.atomic
def settle(case_id: UUID, said: Settlement, actor: Actor | None = None) -> bool:
    """Close the case, move the call, and let the run go on when none of its writes is unknown any more. False: closed, or not now."""
    case = UnknownWrite.objects.get(id=case_id)
    run = Run.objects.select_for_update(no_key=True).get(id=case.run_id)
    if run.state in OWNED:  # its engine believes the call unknown until it parks: it would wait for what was settled already
        return False
    by = actor.user.username if actor else ""
    closed = UnknownWrite.objects.filter(id=case_id, result="").update(
        result=said.result, how=said.how, settled_by=by, evidence=said.evidence, settled_at=Now(), next_probe_at=None
    )
    if not closed:
        return False
    if not move_call(case, said):  # nobody can say anything of a call that is not unknown any more: the case stays as it was
        transaction.set_rollback(True)
        return False
    data = {"result": said.result, "how": said.how, "by": by or None, "unknown_id": case.unknown_id, "resend": said.resend}
    told = event(
        Kind.TOOL_CALL_RECONCILED, step_id=case.step, ord=case.ord, tool=case.tool,
        result="ok" if said.result == Result.APPLIED else "error", data=data,
    )  # fmt: skip
    still = Call.objects.filter(run_id=run.id, state=CallState.UNKNOWN).exists()
    if run.state == RunState.NEEDS_RECONCILIATION and not still:
        requeue(run, [told])
    else:
        append(run, [told])
        Run.objects.filter(id=run.id).update(seq=run.seq)
    fp("in_settle")
    audit.append(actor, "unknown.settled", "unknown", case.unknown_id, None, data, said.evidence, tenant=case.tenant)
    return True


def move_call(case: UnknownWrite, said: Settlement) -> bool:
    rows = Call.objects.filter(run_id=case.run_id, step=case.step, ord=case.ord, state=CallState.UNKNOWN)
    if said.result == Result.APPLIED:
        data = said.data or {"ok": True, "outcome": "applied", "message": f"It was applied, known by {said.how.replace('_', ' ')}."}
        return bool(rows.update(state=CallState.DONE, result=data, ended_at=Now()))
    if said.resend:
        decision = {**(rows.values_list("decision", flat=True).first() or {}), "resend": True}
        moved = rows.update(state=CallState.FAILED_NOT_APPLIED, result=None, approval_id=None, decision=decision, ended_at=Now())
        return bool(moved)
    data = said.data or {"ok": False, "error_type": "not_applied", "message": "The outcome was unknown for a while: it was not applied."}
    return bool(rows.update(state=CallState.FAILED_NOT_APPLIED, result=data, ended_at=Now()))
