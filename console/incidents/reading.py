"""Incidents as they are shown: lists, one with its log, and how long they take. The API and the pages read through this."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.expressions import Combinable

from console import records
from console.models import Incident, IncidentEntry
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode

from . import book
from .book import checked
from .evidence import RUNS

JSON = dict[str, Any]
LIVE = "live"  # of the filter `state`: open or acknowledged
PERIOD = timedelta(days=30)
LOG = 1000  # lines that are shown of one


@dataclass(frozen=True, slots=True)
class Asked:
    """A filter of the list; empty: all of them."""

    state: str = ""
    severity: str = ""
    detector: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of those that opened in the period; the means of those that were acknowledged and resolved, in seconds. None: there were none.

    `live`: open and acknowledged ones now, whenever they opened.
    """

    days: int
    opened: int
    resolved: int
    by_machine: int
    acknowledge_s: float | None
    resolve_s: float | None
    live: dict[str, int]


def listed(actor: Actor, asked: Asked) -> "QuerySet[Incident]":
    """Refuses bad_state 400, bad_severity 422."""
    rows = book.visible(actor)
    if asked.state == LIVE:
        rows = rows.filter(state__in=Incident.LIVE)
    elif asked.state:
        if asked.state not in Incident.State.values:
            raise Refused("bad_state", f"state is {LIVE}, {', '.join(Incident.State.values)}.", 400)
        rows = rows.filter(state=asked.state)
    if asked.severity:
        rows = rows.filter(severity=checked(asked.severity))
    return rows.filter(detector=asked.detector) if asked.detector else rows


def live_count(actor: Actor) -> int:
    return book.visible(actor).filter(state__in=Incident.LIVE).count()


def summary(actor: Actor, now: datetime) -> Summary:
    rows = book.visible(actor).select_related(None)
    found = rows.filter(opened_at__gt=now - PERIOD).aggregate(
        opened=Count("id"),
        resolved=Count("id", filter=Q(state=Incident.State.RESOLVED)),
        by_machine=Count("id", filter=Q(opened_by=None)),
        acknowledge=Avg(took(F("acknowledged_at")), filter=Q(acknowledged_at__isnull=False)),
        resolve=Avg(took(F("resolved_at")), filter=Q(resolved_at__isnull=False)),
    )
    live = rows.filter(state__in=Incident.LIVE).order_by().values_list("severity").annotate(n=Count("id"))
    seconds = {name: found[name].total_seconds() if found[name] else None for name in ("acknowledge", "resolve")}
    return Summary(
        PERIOD.days, found["opened"], found["resolved"], found["by_machine"], seconds["acknowledge"], seconds["resolve"], dict(live)
    )


def took(until: Combinable) -> Combinable:
    return ExpressionWrapper(until - F("opened_at"), output_field=DurationField())


def entries(incident: Incident) -> list[IncidentEntry]:
    """Its log, the oldest line first."""
    return list(incident.entries.select_related("actor").order_by("id")[:LOG])


def record(incident: Incident) -> JSON:
    return {
        "incident_id": str(incident),
        "tenant": incident.tenant.slug if incident.tenant else None,
        "title": incident.title,
        "state": incident.state,
        "severity": incident.severity,
        "detector": incident.detector or None,
        "subject": incident.subject,
        "owner": book.named(incident.owner),
        "runbook": {"name": incident.runbook, "version": incident.runbook_version} if incident.runbook else None,
        "value": incident.value,
        "worst": incident.worst,
        "reopened": incident.reopened,
        "opened_at": records.time(incident.opened_at),
        "opened_by": book.named(incident.opened_by),
        "acknowledged_at": records.time(incident.acknowledged_at),
        "resolved_at": records.time(incident.resolved_at),
        "resolved_by": book.named(incident.resolved_by),
    }


def whole(incident: Incident) -> JSON:
    """With its evidence, the runs it touched and its log."""
    runs = incident.runs.order_by(F("value").desc(nulls_last=True), "-run_id")[:RUNS]
    return record(incident) | {
        "evidence": incident.evidence,
        "runs": [{"run_id": encode("agt", one.run_id), "value": one.value} for one in runs],
        "steps_done": sorted(book.ticked(incident)),
        "log": [entry_record(entry) for entry in entries(incident)],
    }


def entry_record(entry: IncidentEntry) -> JSON:
    """`by` null: the machine."""
    return {"at": records.time(entry.at), "by": book.named(entry.actor), "kind": entry.kind, "text": entry.text, "data": entry.data}
