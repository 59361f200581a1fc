"""What agents keep between runs. Runs read, write and forget it by calls of tools (`tools.memory`), and in no other way.

Request context belongs to one run and is kept by nobody here. A session item belongs to one conversation. A reference says where
something is in another system. Who sees an item: runs of the same tenant, agent and user, and of the same session where it has one.
The calls of runs are here, what people do is in `runs.memory_people`. Locks: the tenant's memory, then the scope, then runs.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast, Now

from tenants import credentials
from tenants.ids import encode, new_id
from tools import canonical
from tools.definitions import ErrorClass

from . import memory_traces
from .models import Call, MemoryItem, MemoryUse, Run
from .spec import Memory

JSON = dict[str, Any]
VALUE_MAX = 8 * 1024  # bytes of canonical JSON
ANSWER_MAX = 64 * 1024
SHOWN = 20
POINTER = {"system": 64, "id": 200, "type": 64, "url": 500}  # a reference is this and no more: characters of each
Did = MemoryUse.Did


@dataclass(frozen=True, slots=True)
class Place:
    """A call, and the fence of the engine that makes it."""

    run_id: UUID
    step: int
    ord: int
    fence: int


@dataclass(frozen=True, slots=True)
class Told:
    """`data` goes to the model; `kept` into the call's row instead, where `data` has sensitive values."""

    data: JSON
    kept: JSON | None = None
    error: ErrorClass | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memory a call is about. A run without a user writes references for the whole agent."""

    tenant: UUID
    kind: str
    agent: str
    session: str
    subject: str
    owner: str

    @property
    def own(self) -> "QuerySet[MemoryItem]":
        return MemoryItem.objects.filter(
            tenant_id=self.tenant, kind=self.kind, agent=self.agent, session=self.session, subject=self.subject
        )

    @property
    def readable(self) -> "QuerySet[MemoryItem]":
        subjects = {self.subject, ""} if self.kind == MemoryItem.Kind.REFERENCE else {self.subject}
        rows = MemoryItem.objects.filter(tenant_id=self.tenant, kind=self.kind, agent=self.agent, session=self.session)
        return rows.filter(subject__in=subjects, expires_at__gt=Now())


@transaction.atomic
def carry_out(tenant_id: UUID, place: Place, does: str, args: JSON, spec: Memory, labels: Iterable[str]) -> Told:
    """One call of a memory tool. `labels`: the taint of the run. A write that was made already is answered, not made again."""
    hold(tenant_id, shared=does != "forget")
    if earlier := done_before(place, does):
        return earlier
    scope = scope_of(place.run_id, args["kind"], spec)
    if isinstance(scope, Told):
        return scope
    if does == "write":
        hold(tenant_id, f"{scope}")
    if not Run.objects.select_for_update(no_key=True).filter(id=place.run_id, fence=place.fence).exists():
        return refused("conflict", "Another engine has this run now.", ErrorClass.CONFLICT)
    if does == "write":
        return write(place, scope, args, spec, labels)
    return forget(place, scope, args["key"]) if does == "forget" else read(place, scope, args, sensitive=does == "read_sensitive")


def hold(tenant_id: UUID, what: str = "", *, shared: bool = False) -> None:
    """Until the transaction ends. Who deletes holds the tenant's memory alone, so that nothing is read past it."""
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"select {function}(hashtextextended(%s, 0))", [f"memory|{tenant_id}|{what}"])


def done_before(place: Place, does: str) -> Told | None:
    """A second send of the same call, after its answer was lost."""
    did = {"write": Did.WROTE, "forget": Did.FORGOT}.get(does)
    use = MemoryUse.objects.filter(run_id=place.run_id, step=place.step, ord=place.ord, did=did).first() if did else None
    return (written(use.item_id) if does == "write" else forgotten(True)) if use else None


def scope_of(run_id: UUID, kind: str, spec: Memory) -> Scope | Told:
    run = Run.objects.select_related("asked", "starter").get(id=run_id)
    if not (spec.session if kind == MemoryItem.Kind.SESSION else spec.references):
        return refused("validation", f"This release keeps no {kind} memory.")
    session = run.asked.session if kind == MemoryItem.Kind.SESSION else ""
    if kind == MemoryItem.Kind.SESSION and not session:
        return refused("validation", "This run belongs to no session, so there is none to remember for.")
    subject = str((run.asked.user or {}).get("id") or "")
    return Scope(run.tenant_id, kind, run.agent_id, session, subject, subject or (run.starter.username if run.starter else ""))


def refused(kind: str, message: str, error: ErrorClass = ErrorClass.VALIDATION) -> Told:
    return Told({"ok": False, "error_type": kind, "message": message}, error=error)


# reading --------------------------------------------------------------------------------------------------------------------------


def read(place: Place, scope: Scope, args: JSON, *, sensitive: bool) -> Told:
    limit = args.get("limit", SHOWN)
    rows = list(matching(scope.readable, args)[: limit + 1])
    items, room = [], ANSWER_MAX
    for row in rows[:limit]:
        items.append(entry(row, sensitive=sensitive))
        room -= len(canonical.dumps(items[-1]))
        if room < 0 and len(items) > 1:
            items.pop()
            break
    given = rows[: len(items)]
    note(place, scope.tenant, [row.id for row in given], Did.READ)
    brought = {label for row in given for label in row.labels if sensitive or not row.sensitive}
    data: JSON = {"ok": True, "items": items, "more": len(rows) > len(items), "labels": sorted(brought)}
    kept = {**data, "items": [entry(row, sensitive=False) for row in given]} if any(row.sensitive for row in given) else None
    return Told(data, kept)


def matching(rows: "QuerySet[MemoryItem]", args: JSON) -> "QuerySet[MemoryItem]":
    """Newest first. A sensitive value is never searched."""
    if "key" in args:
        rows = rows.filter(key=args["key"])
    if "query" in args:
        rows = with_text(rows, args["query"])
    return rows.order_by("-updated_at", "-id")


def with_text(rows: "QuerySet[MemoryItem]", text: str) -> "QuerySet[MemoryItem]":
    return rows.annotate(said=Cast("value", TextField())).filter(Q(key__icontains=text) | Q(said__icontains=text))


def entry(row: MemoryItem, *, sensitive: bool) -> JSON:
    about = {"item": row.memory_id, "key": row.key, "updated_at": row.updated_at.isoformat(timespec="seconds")}
    if not row.sensitive:
        return {**about, "value": row.value}
    return {**about, "sensitive": True} | ({"value": opened(row)} if sensitive else {})


def opened(row: MemoryItem) -> Any:
    """Raises tenants.credentials.Unreadable."""
    return json.loads(credentials.open(row.tenant_id, bound(row.id), row.sealed or b"")) if row.sensitive else row.value


def bound(item_id: UUID) -> str:
    """What a sealed value names beside its tenant: its own row."""
    return f"memory:{item_id}"


def note(place: Place, tenant_id: UUID, item_ids: Iterable[UUID], did: str) -> None:
    at = {"tenant_id": tenant_id, "run_id": place.run_id, "step": place.step, "ord": place.ord, "did": did}
    MemoryUse.objects.bulk_create([MemoryUse(item_id=item_id, **at) for item_id in item_ids], ignore_conflicts=True)


# writing --------------------------------------------------------------------------------------------------------------------------


def write(place: Place, scope: Scope, args: JSON, spec: Memory, labels: Iterable[str]) -> Told:
    key, value = args["key"], args["value"]
    row = scope.own.filter(key=key).first()
    sensitive = args.get("sensitivity") == MemoryItem.Sensitivity.SENSITIVE or (row is not None and row.sensitive)
    if sensitive:
        leave_out(place, scope.kind, key)
    if problem := unfit(scope.kind, value):
        return refused("validation", problem)
    if row is None and scope.own.filter(expires_at__gt=Now()).count() >= spec.max_items:
        return refused("memory_full", f"{spec.max_items} items are kept here already. Forget one first, or write under its key.")
    days = min(args.get("ttl_days", spec.retention_days), spec.retention_days)
    row = row or MemoryItem(
        id=new_id(), tenant_id=scope.tenant, kind=scope.kind, agent=scope.agent, session=scope.session, subject=scope.subject, key=key
    )
    fill(row, value, sensitive=sensitive)
    row.labels, row.owner, row.corrected_by = sorted(set(labels)), scope.owner, None
    row.run_id, row.step, row.ord = place.run_id, place.step, place.ord
    row.updated_at = database_now()
    row.expires_at = row.updated_at + timedelta(days=days)
    row.save()
    note(place, scope.tenant, [row.id], Did.WROTE)
    return written(row.id)


def unfit(kind: str, value: Any) -> str:
    """Why this is not kept; empty when it is."""
    size = len(canonical.dumps(canonical.clean(value)[0]))
    if size > VALUE_MAX:
        return f"The value has {size} bytes, and {VALUE_MAX} are kept at most. Keep it in its own system, and a reference to it here."
    if kind == MemoryItem.Kind.REFERENCE and not is_pointer(value):
        return 'A reference only says where something is: {"system", "id"}, and "type" and "url" where there are any, as short texts.'
    return ""


def is_pointer(value: Any) -> bool:
    if not isinstance(value, dict) or not {"system", "id"} <= set(value) <= set(POINTER):
        return False
    return all(isinstance(text, str) and 0 < len(text) <= POINTER[name] for name, text in value.items())


def fill(row: MemoryItem, value: Any, *, sensitive: bool) -> None:
    """What is sensitive once stays so under its key."""
    plain = canonical.clean(value)[0]
    row.sensitivity = MemoryItem.Sensitivity.SENSITIVE if sensitive else MemoryItem.Sensitivity.NORMAL
    row.value = None if sensitive else plain
    row.sealed = credentials.seal(row.tenant_id, bound(row.id), json.dumps(plain)) if sensitive else None


def leave_out(place: Place, kind: str, key: str) -> None:
    """What is sealed here must not lie open in the rows of the call that brought it."""
    call = Call.objects.get(run_id=place.run_id, step=place.step, ord=place.ord)
    memory_traces.mask(call, {"kind": kind, "key": key, "sensitivity": "sensitive", "value": "(sealed)"})


def written(item_id: UUID) -> Told:
    return Told({"ok": True, "item": encode("mem", item_id)})


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


# forgetting -----------------------------------------------------------------------------------------------------------------------


def forget(place: Place, scope: Scope, key: str) -> Told:
    row = scope.own.filter(key=key).first()
    if row is None:
        return forgotten(False)
    note(place, scope.tenant, [row.id], Did.FORGOT)
    remove({row.id})
    return forgotten(True)


def forgotten(there: bool) -> Told:
    return Told({"ok": True, "forgotten": there})


def remove(item_ids: set[UUID]) -> tuple[int, set[UUID]]:
    """Delete these items and what the rows of runs say of them -> (calls, runs). The caller holds the tenant's memory alone."""
    found = memory_traces.clear(item_ids)
    MemoryUse.objects.filter(item_id__in=item_ids).update(gone=True)
    MemoryItem.objects.filter(id__in=item_ids).delete()
    return found


def used_by(item_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Item -> how many runs read it."""
    rows = MemoryUse.objects.filter(item_id__in=list(item_ids), did=Did.READ).values_list("item_id", F("run_id")).distinct()
    counts: dict[UUID, int] = {}
    for item_id, _ in rows:
        counts[item_id] = counts.get(item_id, 0) + 1
    return counts
