"""The audit trail as people read it: whose chains they see, filters, the state of a chain, and files that can be verified elsewhere."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast

from tenants.actors import Actor
from tenants.chain import PLATFORM, Linked, line
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry, AuditHead, AuditVerified, Tenant

from . import audit_health

JSON = dict[str, Any]
PLATFORMS = "platform"  # the name of its chain
EXACT = {"actor": "actor", "action": "action", "kind": "object_kind", "object": "object_id", "request": "request_id"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would work out
COLUMNS = ("chain", "seq", "at", "actor", "action", "kind", "object", "reason", "before", "after", "request_id", "prev", "hash")
TEXT = TextField()


@dataclass(frozen=True, slots=True)
class ChainState:
    """`verified`: the chain held up to that entry at that time. `problem`: the first break, as `tenants.chain.Broken`."""

    name: str
    seq: int
    verified: int | None
    at: datetime | None
    problem: JSON | None


def visible(actor: Actor) -> QuerySet[AuditEntry]:
    """A platform admin reads every chain, everybody else who may the chain of their tenant."""
    actor.need("audit:read")
    rows = AuditEntry.objects.select_related("tenant").annotate(
        seq=F("link__seq"), prev=F("link__prev"), hash=F("link__hash"), before_text=Cast("before", TEXT), after_text=Cast("after", TEXT)
    )
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def filtered(rows: QuerySet[AuditEntry], actor: Actor, query: Mapping[str, str]) -> QuerySet[AuditEntry]:
    """`actor, action, kind, object, request` as they are, `text` anywhere in them or in the reason, `chain` by name, times."""
    for name, column in EXACT.items():
        if value := query.get(name, ""):
            rows = rows.filter(**{column: value})
    if text := query.get("text", ""):
        columns = ("actor", "action", "object_kind", "object_id", "reason", "request_id")
        anywhere = Q()
        for column in columns:
            anywhere |= Q(**{f"{column}__icontains": text})
        rows = rows.filter(anywhere)
    if name := query.get("chain", ""):
        rows = rows.filter(tenant=chain_named(actor, name))
    for name, lookup in (("since", "at__gte"), ("until", "at__lt")):
        if moment := time_of(query, name):
            rows = rows.filter(**{lookup: moment})
    return rows


def chain_named(actor: Actor, name: str) -> Tenant | None:
    """Another tenant's chain is as unknown as one that is not there."""
    if name == PLATFORMS and actor.platform_admin:
        return None
    tenant = Tenant.objects.filter(slug=name).first()
    if tenant is None or not actor.sees(tenant.pk):
        raise NotFound("chain")
    return tenant


def time_of(query: Mapping[str, str], name: str) -> datetime | None:
    """RFC 3339. Refuses bad_since, bad_until 400."""
    if not query.get(name):
        return None
    try:
        found = datetime.fromisoformat(query[name])
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(f"bad_{name}", f"{name} must be a time such as 2026-01-31T12:00:00Z.", 400) from None


def page(rows: QuerySet[AuditEntry], cursor: int | None, limit: int) -> tuple[list[AuditEntry], str | None]:
    """Newest first -> (rows, the cursor of the next page). The cursor is the last entry's id."""
    rows = rows.filter(id__lt=cursor) if cursor is not None else rows
    found = list(rows.order_by("-id")[: limit + 1])
    return found[:limit], str(found[limit - 1].pk) if len(found) > limit else None


def chains(actor: Actor) -> list[ChainState]:
    """Of the chains that this person reads, those that are broken first, then the platform's, then by name."""
    heads = AuditHead.objects.all() if actor.platform_admin else AuditHead.objects.filter(chain=actor.tenant.pk)
    ends = dict(heads.values_list("chain", "seq"))
    seen = {row.chain: row for row in AuditVerified.objects.filter(**{} if actor.platform_admin else {"chain": actor.tenant.pk})}
    names = audit_health.names({*ends, *seen})
    found = [state(names[chain], ends.get(chain, 0), seen.get(chain)) for chain in names]
    return sorted(found, key=lambda one: (one.problem is None, one.name != PLATFORMS, one.name))


def state(name: str, end: int, seen: AuditVerified | None) -> ChainState:
    return ChainState(name, end, seen.seq if seen else None, seen.at if seen else None, seen.problem if seen else None)


def chain_of(entry: AuditEntry) -> UUID:
    return entry.tenant_id or PLATFORM


def spelled(moment: datetime) -> str:
    """To the microsecond, as it is hashed."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def record(entry: Any) -> JSON:
    """One entry of `visible`. `row`: the canonical line; SHA-256 over the bytes of `prev` and of it is `hash`."""
    linked = Linked(
        entry.seq or 0, b"", b"", entry.pk, str(entry.tenant_id) if entry.tenant_id else None, spelled(entry.at), entry.actor, entry.action,
        entry.object_kind, entry.object_id, entry.before_text, entry.after_text, entry.reason, entry.request_id,
    )  # fmt: skip
    return {
        "id": entry.pk, "chain": entry.tenant.slug if entry.tenant else PLATFORMS, "seq": entry.seq, "at": linked.at,
        "actor": entry.actor, "action": entry.action, "kind": entry.object_kind, "object": entry.object_id, "before": entry.before,
        "after": entry.after, "reason": entry.reason, "request_id": entry.request_id, "prev": hexed(entry.prev), "hash": hexed(entry.hash),
        "row": line(linked).decode() if entry.seq else None,
    }  # fmt: skip


def hexed(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).hex()


def jsonl(entries: Iterable[AuditEntry]) -> str:
    return "".join(f"{json.dumps(record(entry), ensure_ascii=False)}\n" for entry in entries)


def as_csv(entries: Iterable[AuditEntry]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for entry in entries:
        shown: JSON = record(entry) | {"before": entry.before_text, "after": entry.after_text}  # type: ignore[attr-defined]
        writer.writerow([cell(shown[name]) for name in COLUMNS])
    return out.getvalue()


def cell(value: object) -> str:
    """A text that a spreadsheet would take for a formula stays a text."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def diff(before: Any, after: Any) -> list[tuple[str, str | None, str | None, bool]]:
    """(name, before, after, whether they differ), what differs first. None: it is not there."""
    if not isinstance(before or {}, dict) or not isinstance(after or {}, dict):
        return [("value", shown(before), shown(after), before != after)]
    was, now = before or {}, after or {}
    rows = [(name, shown(was[name]) if name in was else None, shown(now[name]) if name in now else None) for name in {**was, **now}]
    return sorted(((name, a, b, a != b) for name, a, b in rows), key=lambda row: not row[3])


def shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
