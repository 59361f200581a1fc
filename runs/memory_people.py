"""What people do with memory: look, correct, delete; and what time does. Everything that changes something is audited.

Looking needs `memory:read`, a sensitive value `memory:read_sensitive`, changing `memory:write`. Nothing that was deleted is in a table,
an export or an event afterwards; what a model said in its own words stays with its run, and a run that goes on keeps what it has read.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from approvals.gate import storable
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import Tenant
from tools import canonical

from . import memory, memory_traces
from .models import MemoryItem, MemoryUse, Run
from .states import TERMINAL

READ, READ_SENSITIVE, WRITE = "memory:read", "memory:read_sensitive", "memory:write"
AT_ONCE = 200
JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """`calls`: rows that said something of the items. `running`: runs that go on and may have them in mind. `sha256`: of the sorted ids."""

    items: int
    calls: int
    runs: int
    running: int
    sha256: str
    dry_run: bool = False


def visible(actor: Actor) -> "QuerySet[MemoryItem]":
    """What has not expired. Refuses scope_missing 403."""
    actor.need(READ)
    rows = MemoryItem.objects.select_related("tenant", "corrected_by").filter(expires_at__gt=Now())
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def search(actor: Actor, *, text: str = "", **fields: str) -> "QuerySet[MemoryItem]":
    """`fields`: kind, session, subject, agent, exactly. `text`: in the key, or in a value that is not sensitive."""
    rows = visible(actor).filter(**{name: value for name, value in fields.items() if value})
    return memory.with_text(rows, text) if text else rows


def find(actor: Actor, memory_id: str) -> MemoryItem:
    """Raises NotFound for another tenant's, for what has expired, and for what is no id."""
    try:
        row = visible(actor).filter(id=decode("mem", memory_id)).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound("memory item")
    return row


@transaction.atomic
def reveal(actor: Actor, row: MemoryItem) -> Any:
    """The value. Each view of a sensitive one is audited. Refuses scope_missing 403, credential_unreadable 500."""
    if not row.sensitive:
        return row.value
    actor.need(READ_SENSITIVE)
    audit.append(actor, "memory.viewed", "memory", row.memory_id, tenant=row.tenant)
    return memory.opened(row)


@transaction.atomic
def correct(actor: Actor, row: MemoryItem, value: Any, reason: str) -> MemoryItem:
    """Put another value in its place; labels and expiry stay. Refuses scope_missing 403, not_found 404, bad_value, reason_missing 422."""
    actor.need(WRITE)
    if row.sensitive:
        actor.need(READ_SENSITIVE)
    said = given(reason)
    if problem := memory.unfit(row.kind, value):
        raise Refused("bad_value", problem, 422, field="value")
    memory.hold(row.tenant_id)
    held = MemoryItem.objects.select_for_update(no_key=True).filter(pk=row.pk).first()
    if held is None:
        raise NotFound("memory item")
    before = fingerprint(held)
    memory.fill(held, value, sensitive=held.sensitive)
    held.corrected_by, held.updated_at = actor.user, memory.database_now()
    held.save()
    audit.append(actor, "memory.corrected", "memory", held.memory_id, before, fingerprint(held), said, tenant=row.tenant)
    return held


def given(reason: str) -> str:
    if not (said := storable(reason.strip())):
        raise Refused("reason_missing", "Say why: the reason is kept with your name.", 422, field="reason")
    return said


def fingerprint(row: MemoryItem) -> JSON:
    """A hash of a short secret would give it away."""
    return {"sensitive": True} if row.sensitive else {"sha256": sha256(canonical.dumps(row.value)).hexdigest()}


@transaction.atomic
def delete(actor: Actor, row: MemoryItem, reason: str) -> Receipt:
    """For good, with what the calls of runs say of it. Refuses scope_missing 403, not_found 404, reason_missing 422."""
    actor.need(WRITE)
    said = given(reason)
    memory.hold(row.tenant_id)
    if not MemoryItem.objects.filter(pk=row.pk).exists():
        raise NotFound("memory item")
    receipt = removed({row.id})
    audit.append(actor, "memory.deleted", "memory", row.memory_id, None, asdict(receipt), said, tenant=row.tenant)
    return receipt


@transaction.atomic
def forget(actor: Actor, tenant: Tenant, *, subject: str = "", session: str = "", reason: str = "", dry_run: bool = False) -> Receipt:
    """All there is about a user, or of a session. A dry run does the same and takes it back.

    Refuses: scope_missing 403, nothing_named, reason_missing 422.
    """
    actor.need(WRITE)
    if bool(subject) == bool(session):
        raise Refused("nothing_named", "Name a subject or a session, one of them.", 422, field="subject")
    said = "" if dry_run else given(reason)
    memory.hold(tenant.id)
    rows = MemoryItem.objects.filter(tenant=tenant, **({"subject": subject} if subject else {"session": session}))
    receipt = removed(set(rows.values_list("id", flat=True)), dry_run=dry_run)
    if dry_run:
        transaction.set_rollback(True)
        return receipt
    about = f"{'subject' if subject else 'session'}:{sha256((subject or session).encode()).hexdigest()}"
    audit.append(actor, "memory.forgotten", "memory", about, None, asdict(receipt), said, tenant=tenant)
    return receipt


def removed(item_ids: set[UUID], *, dry_run: bool = False) -> Receipt:
    calls, runs = memory.remove(item_ids)
    names = "\n".join(sorted(encode("mem", item_id) for item_id in item_ids))
    going_on = memory_traces.running(runs)
    return Receipt(len(item_ids), calls, len(runs), going_on, sha256(names.encode()).hexdigest(), dry_run)


def uses(row: MemoryItem, most: int = 50) -> list[MemoryUse]:
    """Newest first: which calls read or wrote it."""
    return list(MemoryUse.objects.filter(item_id=row.id).order_by("-id")[:most])


# by time --------------------------------------------------------------------------------------------------------------------------


def tidy() -> tuple[int, int]:
    """One round: what has expired goes for good, and what runs that have ended by now kept of deleted items -> (items, uses)."""
    return expire(), after_runs()


def expire() -> int:
    due = MemoryItem.objects.filter(expires_at__lte=Now()).order_by("tenant_id", "id").values_list("tenant_id", "id")
    gone = 0
    while rows := list(due[:AT_ONCE]):
        first = rows[0][0]
        gone += expire_of(first, {item_id for tenant_id, item_id in rows if tenant_id == first})
    return gone


@transaction.atomic
def expire_of(tenant_id: UUID, item_ids: set[UUID]) -> int:
    memory.hold(tenant_id)
    due = set(MemoryItem.objects.filter(id__in=item_ids, expires_at__lte=Now()).values_list("id", flat=True))
    receipt = removed(due)
    if due:
        audit.append(None, "memory.expired", "memory", "expired", None, asdict(receipt), tenant=Tenant.objects.get(id=tenant_id))
    return len(due)


def after_runs() -> int:
    """A call that was under way when its item was deleted wrote its row afterwards."""
    going_on = Run.objects.filter(id=OuterRef("run_id")).exclude(state__in=TERMINAL)
    rows = list(MemoryUse.objects.filter(~Exists(going_on), gone=True).order_by("tenant_id", "id")[:AT_ONCE])
    for tenant_id in {row.tenant_id for row in rows}:
        clear_again(tenant_id, [row for row in rows if row.tenant_id == tenant_id])
    return len(rows)


@transaction.atomic
def clear_again(tenant_id: UUID, rows: Iterable[MemoryUse]) -> None:
    memory.hold(tenant_id)
    memory_traces.clear({row.item_id for row in rows})
    MemoryUse.objects.filter(pk__in=[row.pk for row in rows]).delete()
