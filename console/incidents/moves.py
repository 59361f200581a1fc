"""The guarded moves of an incident with their lines in its log, and those that its detector makes.

What is told to channels and pages is told by triggers of the row, in the same transaction.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from console.models import Incident, IncidentEntry, IncidentRun
from console.runbooks import shelf
from tenants import audit
from tenants.actors import Actor

from .evidence import RUNS
from .followed import noted

JSON = dict[str, Any]
Entry, State = IncidentEntry.Kind, Incident.State
TEXT = 4000
TITLE = 200
WORSE = 1.25  # so many times the worst value yet is a line in the log


@dataclass(frozen=True, slots=True)
class Opening:
    """An incident as it begins. `text`: why, in a sentence."""

    tenant: UUID | None
    title: str
    severity: str
    text: str
    subject: JSON = field(default_factory=dict)
    detector: str = ""
    fingerprint: str = ""
    runbook: str = ""
    evidence: JSON = field(default_factory=dict)
    runs: tuple[tuple[UUID, float | None], ...] = ()
    value: float | None = None


@transaction.atomic
def begin(opening: Opening, at: datetime, actor: Actor | None = None) -> Incident | None:
    """None: one is open for the same fingerprint already, perhaps since a moment ago."""
    pinned = shelf.version(opening.runbook, None) if opening.runbook else None
    incident = Incident(
        tenant_id=opening.tenant, detector=opening.detector, fingerprint=opening.fingerprint, title=opening.title[:TITLE],
        severity=opening.severity, subject=opening.subject, evidence=opening.evidence, runbook=opening.runbook if pinned else "",
        runbook_version=pinned.number if pinned else None, value=opening.value, worst=opening.value, seen_at=at, opened_at=at,
        opened_by=actor.user if actor else None,
    )  # fmt: skip
    Incident.objects.bulk_create([incident], ignore_conflicts=True)
    if not Incident.objects.filter(pk=incident.pk).exists():
        return None
    IncidentRun.objects.bulk_create(IncidentRun(incident=incident, run_id=run, value=value) for run, value in opening.runs[:RUNS])
    log(incident, Entry.OPENED, actor, opening.text, at=at)
    if actor is not None:
        told(actor, incident, "opened", None, {"title": incident.title, "severity": incident.severity, "subject": incident.subject})
    return incident


def still(incident: Incident, value: float, now: datetime) -> bool:
    """Its finding stands. A line in the log when it is a quarter worse than ever."""
    worst = incident.worst if incident.worst is not None else value
    values = {"value": value, "worst": max(worst, value), "seen_at": now, "clear_since": None} | point(incident, value, now)
    with transaction.atomic():
        if not live(incident).update(**values):
            return False
        if value > worst * WORSE:
            log(incident, Entry.VALUE, None, data={"value": value, "before": worst}, at=now)
    return True


def point(incident: Incident, value: float | None, now: datetime, *, last: bool = False) -> JSON:
    """What to write so that its chart goes on. Two who look at once may lose one of two points, and nothing else."""
    evidence = noted(incident.evidence, now, value, last=last)
    if evidence is None:
        return {}
    incident.evidence = evidence
    return {"evidence": evidence}


def followed(incident: Incident, value: float | None, now: datetime) -> None:
    """It does not fire now, and is not over yet."""
    if values := point(incident, value, now):
        live(incident).update(**values)


def cleared(incident: Incident, now: datetime) -> bool:
    """From now on it looks over."""
    return bool(live(incident).filter(clear_since=None).update(clear_since=now))


def not_cleared(incident: Incident) -> bool:
    return bool(live(incident).filter(clear_since__isnull=False).update(clear_since=None))


@transaction.atomic
def over(incident: Incident, now: datetime, value: float | None) -> bool:
    """Resolved by its detector, which saw nothing of it since `clear_since`."""
    calm = live(incident).filter(clear_since=incident.clear_since)
    end = point(incident, value, now, last=True)
    if not calm.update(state=State.RESOLVED, resolved_at=now, resolved_by=None, clear_since=None, **end):
        return False
    log(incident, Entry.RESOLVED, None, "The detector sees nothing of it any more.", at=now)
    return True


@transaction.atomic
def back(incident: Incident, text: str, value: float, now: datetime) -> bool:
    """Reopened by its detector: only one that no person resolved."""
    if incident.resolved_by_id is not None or not again(incident, now):
        return False
    Incident.objects.filter(pk=incident.pk).update(value=value, worst=value)
    log(incident, Entry.REOPENED, None, text, at=now)
    return True


def again(incident: Incident, at: Any) -> bool:
    """False: it is not resolved, or the same is open as another incident."""
    try:
        with transaction.atomic():
            gone = Incident.objects.filter(pk=incident.pk, state=State.RESOLVED)
            return bool(gone.update(state=State.OPEN, resolved_at=None, resolved_by=None, acknowledged_at=None, clear_since=None,
                                    seen_at=at, reopened=F("reopened") + 1))  # fmt: skip
    except IntegrityError:
        return False


def live(incident: Incident) -> "QuerySet[Incident]":
    return Incident.objects.filter(pk=incident.pk, state__in=Incident.LIVE)


def log(
    incident: Incident, kind: str, actor: Actor | None, text: str = "", data: JSON | None = None, at: datetime | None = None
) -> IncidentEntry:
    when: JSON = {} if at is None else {"at": at}
    return IncidentEntry.objects.create(
        incident=incident, kind=kind, actor=actor.user if actor else None, text=text.strip()[:TEXT], data=data or {}, **when
    )


def told(actor: Actor, incident: Incident, action: str, before: JSON | None, after: JSON | None) -> None:
    audit.append(actor, f"incident.{action}", "incident", str(incident), before, after, tenant=incident.tenant)


def fresh(incident: Incident) -> Incident:
    return Incident.objects.select_related("tenant", "owner", "opened_by", "resolved_by").get(pk=incident.pk)
