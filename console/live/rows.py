"""What the feed reads, and the messages it makes of it. Plain synchronous functions; each gives its connection back."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import connections
from django.db.models import Count, Q
from django.db.models.functions import Now

from approvals.models import Approval
from console import records
from console.event_text import text as event_words
from console.models import Incident
from runs.models import Event, Run
from runs.states import TERMINAL, RunState
from tenants.ids import encode
from tenants.models import Tenant
from tenants.scope import ALL, tenant_scope

P = ParamSpec("P")
R = TypeVar("R")
JSON = dict[str, Any]
Scope = UUID | None  # a tenant, or None for all of them
Topic = tuple[str, Scope]  # "runs", "approvals" or "incidents" of a scope
Object = tuple[str, int, JSON]  # k, v, d
Counts = dict[Scope, dict[str, int]]

EVENTS_AT_ONCE = 1000
RUNS_AT_ONCE = 200
LARGEST = 16 * 1024  # bytes of a message
OPEN = [state.value for state in RunState if state not in TERMINAL]
COLUMNS = (
    "id", "tenant_id", "agent_id", "state", "outcome", "seq", "step", "tool_calls", "writes", "tokens_in", "tokens_out",
    "cost_micro", "reserved_micro", "cancel_requested", "ended_at",
)  # fmt: skip
WRONG = ("id", "tenant_id", "state", "severity", "title", "detector", "subject", "owner_id", "reopened")
LATELY = timedelta(minutes=5)
INCIDENTS_AT_ONCE = 100
ASKED = ("id", "run_id", "tenant_id", "state", "tool", "agent", "risk")


@dataclass
class Seen:
    """One read. `events`: per run in order, all after what was asked for, or the first of them when `more`."""

    runs: dict[UUID, JSON] = field(default_factory=dict)
    events: dict[UUID, list[Event]] = field(default_factory=dict)
    approvals: list[JSON] = field(default_factory=list)
    incidents: list[JSON] = field(default_factory=list)
    counts: Counts = field(default_factory=dict)
    more: bool = False


def gives_back(read: Callable[P, R]) -> Callable[P, R]:
    """For reads on the threads of the live channel: while sockets wait, the pool has the connection."""

    def reader(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        finally:
            connections.close_all()

    return reader


@gives_back
def look(after: dict[UUID, int], listed: set[UUID], scopes: set[Scope]) -> Seen:
    """`after`: followed runs and the seq that all of their followers have. `listed`: runs for the list topics of `scopes`.

    Of every tenant: who may follow what was asked before, and each row goes to the followers of its own scope only."""
    with tenant_scope(ALL):
        return _look(after, listed, scopes)


def _look(after: dict[UUID, int], listed: set[UUID], scopes: set[Scope]) -> Seen:
    seen = Seen()
    seen.runs = {row["id"]: row for row in Run.objects.filter(id__in={*after, *listed}).values(*COLUMNS)}
    behind = [run for run, seq in after.items() if run in seen.runs and seen.runs[run]["seq"] > seq]
    if behind:
        wanted = reduce(or_, (Q(run_id=run, seq__gt=after[run]) for run in behind[:RUNS_AT_ONCE]))
        found = list(Event.objects.filter(wanted).order_by("run_id", "seq")[:EVENTS_AT_ONCE])
        for event in found:
            seen.events.setdefault(event.run_id, []).append(event)
        seen.more = len(found) == EVENTS_AT_ONCE or len(behind) > RUNS_AT_ONCE
    if listed:
        asked = Approval.objects.filter(run_id__in=listed).order_by("id")
        seen.approvals = list(asked.annotate(said=Count("decisions")).values(*ASKED, "said"))
    if scopes:
        seen.counts = counts(scopes)
        seen.incidents = incidents(scopes)
    return seen


def incidents(scopes: set[Scope]) -> list[JSON]:
    """Those that are not resolved, or were a moment ago."""
    rows = Incident.objects.filter(Q(state__in=Incident.LIVE) | Q(resolved_at__gt=Now() - LATELY))
    mine = rows if None in scopes else rows.filter(tenant__in=[scope for scope in scopes if scope])
    return list(mine.order_by("-id").values(*WRONG)[:INCIDENTS_AT_ONCE])


def counts(scopes: set[Scope]) -> Counts:
    """Pending approvals, runs that are not over and incidents that are not resolved, of each scope."""
    tenants = list(Tenant.objects.values_list("id", flat=True)) if None in scopes else [s for s in scopes if s]
    pending = Approval.objects.filter(tenant__in=tenants, state=Approval.State.PENDING)
    wrong = Incident.objects.filter(state__in=Incident.LIVE)  # the installation's own too
    found = {
        "approvals": per_tenant(pending),
        "runs": per_tenant(Run.objects.filter(tenant__in=tenants, state__in=OPEN)),
        "incidents": per_tenant(wrong if None in scopes else wrong.filter(tenant__in=tenants)),
    }
    return {scope: {name: sum(many.values()) if scope is None else many.get(scope, 0) for name, many in found.items()} for scope in scopes}


def per_tenant(rows: Any) -> dict[UUID, int]:
    return dict(rows.order_by().values_list("tenant_id").annotate(n=Count("id")))


def run_object(row: JSON) -> JSON:
    """State and counters of a run, from a row with COLUMNS."""
    return {
        "id": encode("agt", row["id"]),
        "state": row["state"],
        "agent": row["agent_id"],
        "outcome": row["outcome"],
        "seq": row["seq"],
        "step": row["step"],
        "tool_calls": row["tool_calls"],
        "writes": row["writes"],
        "input_tokens": row["tokens_in"],
        "output_tokens": row["tokens_out"],
        "cost_usd": records.usd(row["cost_micro"]),
        "reserved_usd": records.usd(row["reserved_micro"]),
        "cancel_requested": row["cancel_requested"],
        "ended_at": records.time(row["ended_at"]),
    }


def approval_object(row: JSON) -> JSON:
    named = {"id": encode("apr", row["id"]), "run_id": encode("agt", row["run_id"])}
    return named | {name: row[name] for name in ("state", "agent", "tool", "risk")}


def incident_object(row: JSON) -> JSON:
    return {"id": encode("inc", row["id"])} | {name: row[name] for name in ("state", "severity", "title", "detector", "subject")}


def list_object(name: str, row: JSON, runs: dict[UUID, JSON]) -> Object:
    """A row of the list topic `name`. An approval moves with its run, so the run's seq is its version too."""
    if name == "runs":
        return "run", row["seq"], run_object(row)
    if name == "incidents":
        return "incident", row["reopened"], incident_object(row)
    return "approval", runs[row["run_id"]]["seq"] if row["run_id"] in runs else 0, approval_object(row)


def event_texts(events: list[Event], run: JSON) -> list[tuple[int, str]]:
    """(seq, message) of each. The last one brings the run's state and counters: k "run" and d.run."""
    plain = [(event.seq, event_text(event, "event", {})) for event in events[:-1]]
    return [*plain, *((event.seq, event_text(event, "run", {"run": run_object(run)})) for event in events[-1:])]


def event_text(event: Event, kind: str, more: JSON) -> str:
    record = records.event_record(event)
    topic = f"run:{record['run_id']}"
    record["text"] = event_words(event.kind, event.payload)
    text = message(topic, event.seq, event.seq, kind, record | more)
    if len(text) <= LARGEST:
        return text
    return message(topic, event.seq, event.seq, "fetch", {name: record[name] for name in ("seq", "run_id", "event", "at")})


def message(topic: str, seq: int, v: int | None, k: str, d: JSON) -> str:
    """ASCII only, so that its length is its bytes and half surrogate pairs cannot break the socket."""
    return dumps({"t": topic, "seq": seq, "v": v, "k": k, "d": d})


def reset(topic: str, seq: int) -> str:
    return dumps({"op": "reset", "topic": topic, "seq": seq})


def dumps(value: JSON) -> str:
    return json.dumps(value, separators=(",", ":"))
