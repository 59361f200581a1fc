"""Old history goes: of runs that ended longer ago than their tenant keeps it, and of messages that left a month ago.

A run goes whole (its row, input, calls, steps, events) and leaves a tombstone. What others still stand on stays: a run with an open
case, request, incident, reservation or message, one that a later run retried, undid or carried a draft of, and one whose effects may
still be asked for again. Rollups, approvals, settled cases and the audit trail stay. Nothing of a run that has not ended is looked at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now, TruncHour

from approvals.models import Approval
from runs.models import Call, DeletedHistory, DraftDecision, EffectClaim, MemoryUse, Retention, Run, RunInput, Step, Undo, UnknownWrite
from runs.states import TERMINAL
from tenants import audit
from tenants.actors import Actor
from tenants.ceilings import Action
from tenants.errors import Refused
from tenants.ids import decode, encode, first_at
from tenants.models import IdempotencyRecord, Reservation, Settlement, Tenant

from .models import Delivery, Incident, IncidentRun, TelemetrySent
from .records import time as written

AT_ONCE = 500
MESSAGES = timedelta(days=30)  # what was delivered, or given up
WINDOW = timedelta(days=90)  # the longest in which a tool tells an effect again; see `tools.spec`


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one pass deleted, and how many old runs it kept because something stands on them."""

    runs: int = 0
    kept: int = 0
    messages: int = 0


def put(actor: Actor | None, tenant: Tenant, days: int | None) -> Action:
    """Keep the history of the tenant's ended runs for so many days; None: for ever."""
    row = Retention.objects.filter(tenant=tenant).first()
    before = row.history_days if row else None
    if before == days:
        return "unchanged"
    if days is None:
        Retention.objects.filter(tenant=tenant).delete()
    else:
        Retention.objects.update_or_create(tenant=tenant, defaults={"history_days": days})
    told = {"history_days": before}, {"history_days": days}
    audit.append(actor, "retention.updated", "tenant", tenant.slug, *told, tenant=tenant)
    return "update" if before else "create"


def never() -> bool:
    return False


def prune(tenant: Tenant | None = None, stop: Callable[[], bool] = never) -> Pruned:
    """One pass over every tenant with a setting (or over this one) until `stop`. Safe to repeat, and to run twice at once."""
    rows = Retention.objects.select_related("tenant").order_by("tenant__slug")
    found = [prune_tenant(row, stop) for row in (rows if tenant is None else rows.filter(tenant=tenant))]
    return Pruned(sum(one.runs for one in found), sum(one.kept for one in found), prune_messages(tenant))


def prune_tenant(setting: Retention, stop: Callable[[], bool]) -> Pruned:
    before = database_now() - timedelta(days=setting.history_days)
    counting = open_hours(setting.tenant_id)
    gone = looked_at = 0
    after: UUID | None = None
    while not stop() and (batch := candidates(setting.tenant_id, before, after)):
        after = batch[-1][0]
        looked_at += len(batch)
        gone += len(forget(setting.tenant, [run for run, hour in batch if hour not in counting], before))
    return Pruned(gone, looked_at - gone)


def open_hours(tenant: UUID) -> set[datetime]:
    """The hours in which runs began that go on: they will be counted again when those end, so all of their runs stay until then."""
    rows = Run.objects.filter(tenant_id=tenant).exclude(state__in=TERMINAL)
    return set(rows.annotate(hour=TruncHour("created_at", tzinfo=UTC)).values_list("hour", flat=True).distinct())


def candidates(tenant: UUID, before: datetime, after: UUID | None) -> list[tuple[UUID, datetime]]:
    """(id, hour of its beginning) of the next ended runs. Who ended before a time was accepted before it: ids bound the search."""
    rows = Run.objects.filter(tenant_id=tenant, id__lt=first_at(before + timedelta(hours=2)), state__in=TERMINAL, ended_at__lt=before)
    rows = rows if after is None else rows.filter(id__gt=after)
    return list(rows.order_by("id").annotate(hour=TruncHour("created_at", tzinfo=UTC)).values_list("id", "hour")[:AT_ONCE])


@transaction.atomic
def forget(tenant: Tenant, runs: list[UUID], before: datetime) -> list[UUID]:
    """Those of `runs` that nothing stands on, deleted. Locked first: who retries or undoes one does it before this or not at all."""
    here = set(Run.objects.select_for_update().filter(id__in=runs).order_by("id").values_list("id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("select forget_runs(%s, %s)", [sorted(here - held(runs)), before])
        gone: list[UUID] = cursor.fetchone()[0]
    if gone:
        delete_rows(gone)
        told = {"runs": len(gone), "ended_before": written(before)}
        audit.append(None, "history.deleted", "tenant", tenant.slug, None, told, tenant=tenant)
    return gone


def delete_rows(runs: list[UUID]) -> None:
    """What belongs to the run alone. Its key for repeats goes too: there is no run to give again."""
    for rows in (
        Call.objects.filter(run_id__in=runs),
        Step.objects.filter(run_id__in=runs),
        RunInput.objects.filter(run_id__in=runs),
        MemoryUse.objects.filter(run_id__in=runs),
        Undo.objects.filter(run_id__in=runs),
        DraftDecision.objects.filter(run_id__in=runs),
        EffectClaim.objects.filter(run_id__in=runs),
        Settlement.objects.filter(run_id__in=runs),
        Delivery.objects.filter(run_id__in=runs),
        TelemetrySent.objects.filter(run_id__in=runs),
        IdempotencyRecord.objects.filter(object_id__in=runs),
        Run.objects.filter(id__in=runs),
    ):
        rows._raw_delete(rows.db)  # one statement: nothing cascades, and no row is read first


def held(runs: list[UUID]) -> set[UUID]:
    """Those that something else stands on."""
    live = Incident.objects.filter(state__in=Incident.LIVE)
    standing: Iterable[QuerySet[Any, Any]] = (
        UnknownWrite.objects.filter(run_id__in=runs, result="").values_list("run_id", flat=True),
        Approval.objects.filter(run_id__in=runs, state__in=("pending", "approved")).values_list("run_id", flat=True),
        IncidentRun.objects.filter(run_id__in=runs, incident__in=live).values_list("run_id", flat=True),
        Reservation.objects.filter(run_id__in=runs).values_list("run_id", flat=True),
        Delivery.objects.filter(run_id__in=runs, state=Delivery.State.PENDING).values_list("run_id", flat=True),
        RunInput.objects.filter(retry_of__in=runs).values_list("retry_of", flat=True),
        EffectClaim.objects.filter(run_id__in=runs, at__gte=Now() - WINDOW).values_list("run_id", flat=True),
        *(going_on(rows, runs) for rows in (Undo.objects.all(), DraftDecision.objects.all())),
    )
    return {run for rows in standing for run in rows} | read_from()


def read_from() -> set[UUID]:
    """Runs whose recorded results a fork or a rehearsal that goes on may still ask for."""
    rows = RunInput.objects.exclude(run__state__in=TERMINAL).filter(Q(fork__isnull=False) | Q(rehearsal__isnull=False))
    told = [each for pair in rows.values_list("fork", "rehearsal") for each in pair if each and each.get("of")]
    return {UUID(each["of"]) for each in told}


def going_on(rows: "QuerySet[Any]", runs: list[UUID]) -> "QuerySet[Any, Any]":
    """Runs whose write is being undone, or whose draft is being carried out, by a run that has not ended."""
    over = Run.objects.filter(state__in=TERMINAL).values("id")
    return rows.filter(~Q(action_run__in=over), run_id__in=runs, action_run__isnull=False).values_list("run_id", flat=True)


def prune_messages(tenant: Tenant | None) -> int:
    old = database_now() - MESSAGES
    rows = Delivery.objects.filter(id__lt=first_at(old + timedelta(hours=2)), created_at__lt=old).exclude(state=Delivery.State.PENDING)
    rows = rows if tenant is None else rows.filter(tenant=tenant)
    gone = 0
    while batch := list(rows.order_by("id").values_list("id", flat=True)[:AT_ONCE]):
        gone += Delivery.objects.filter(id__in=batch).delete()[0]
    return gone


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def refuse_deleted(actor: Actor, run_id: str) -> None:
    """Refuses history_deleted 410 where the actor could have seen the run; nothing where there never was one."""
    try:
        rows = DeletedHistory.objects.filter(run_id=decode("agt", run_id))
    except ValueError:
        return
    row = (rows if actor.platform_admin else rows.filter(tenant_id=actor.tenant.id)).first()
    if row is not None:
        ended, deleted = (f"{at:%d %B %Y}" for at in (row.ended_at, row.deleted_at))
        words = f"The run {encode('agt', row.run_id)} of {row.agent} ended on {ended} ({row.outcome.replace('_', ' ')})."
        fields = {"agent": row.agent, "outcome": row.outcome, "ended_at": written(row.ended_at), "deleted_at": written(row.deleted_at)}
        message = f"{words} Its history was deleted on {deleted}, as old as its tenant keeps it."
        raise Refused("history_deleted", message, 410, run_id=run_id, **fields)
