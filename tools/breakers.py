"""The rows that engines tell each other of breakers by, and a person's word on one. Each move is one guarded UPDATE.

Nothing of it is in the path of a call that succeeds: a row is written when a breaker opens, when a probe is taken, and when it is
settled. Times are the database's; what comes back is seconds from now.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tenants.roles import Role

from .models import Breaker
from .spec import destination

State, Forced = Breaker.State, Breaker.Forced
ACTIONS = {"open": Forced.OPEN.value, "close": Forced.CLOSED.value, "reset": ""}
SETTLED_S = 10  # how long a closed row is still told: longer than any transaction that writes one

_ROW = """b.tenant_id, b.host_port, b.state, b.forced, coalesce(extract(epoch from b.probe_at - statement_timestamp()), 0)::float8,
  coalesce(extract(epoch from b.probe_at - b.changed_at), 0)::float8"""
OPEN = f"""
insert into tools_breaker as b (tenant_id, host_port, state, forced, opened_at, probe_at, sends, failures, reason, changed_by, changed_at)
values (%(tenant)s, %(host)s, 'open', '', statement_timestamp(), statement_timestamp() + make_interval(secs => %(open_s)s), %(sends)s,
  %(failures)s, %(reason)s, '', statement_timestamp())
on conflict (tenant_id, host_port) do update set state = 'open', opened_at = excluded.opened_at, probe_at = excluded.probe_at,
  sends = excluded.sends, failures = excluded.failures, reason = excluded.reason, changed_by = '', changed_at = excluded.changed_at
where b.state = 'closed' and b.forced = ''
returning {_ROW}
"""
# Whoever comes first, in the whole installation. A probe whose engine never told what came of it is over at its `probe_at`.
PROBE = f"""
update tools_breaker b set state = 'half_open', changed_at = statement_timestamp(),
  probe_at = statement_timestamp() + make_interval(secs => %(lost_after_s)s)
where b.tenant_id = %(tenant)s and b.host_port = %(host)s and b.state <> 'closed' and b.forced = '' and b.probe_at <= statement_timestamp()
returning {_ROW}
"""
REOPEN = f"""
update tools_breaker b set state = 'open', changed_at = statement_timestamp(),
  probe_at = statement_timestamp() + make_interval(secs => %(open_s)s)
where b.tenant_id = %(tenant)s and b.host_port = %(host)s and b.state = 'half_open' and b.forced = ''
returning {_ROW}
"""
CLOSE = f"""
update tools_breaker b set state = 'closed', probe_at = null, changed_at = statement_timestamp()
where b.tenant_id = %(tenant)s and b.host_port = %(host)s and b.state = 'half_open' and b.forced = ''
returning {_ROW}
"""
LOOK = f"select {_ROW} from tools_breaker b where b.tenant_id = %(tenant)s and b.host_port = %(host)s"
TOLD = f"""
select {_ROW} from tools_breaker b
where b.state <> 'closed' or b.forced <> '' or b.changed_at > statement_timestamp() - make_interval(secs => %(settled_s)s)
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A row as an engine needs it. `probe_in_s`: seconds until a probe is due, or until the one that is out counts as lost;
    `lasts_s`: how long that was to be when it was written."""

    tenant: UUID
    host_port: str
    state: str
    forced: str
    probe_in_s: float
    lasts_s: float


def host_port(url: str) -> str:
    """`host:port` of a URL, the key of a breaker. Empty: none, what is called is no host."""
    try:
        host, port = destination(url)
    except ValueError:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host.lower()}:{port}"


def told() -> list[Told]:
    """The rows that say anything but "closed", and those closed a moment ago. One query."""
    return [Told(*row) for row in _all(TOLD, settled_s=SETTLED_S)]


@transaction.atomic
def opened(tenant: UUID, host: str, open_s: float, sends: int, failures: int) -> Told | None:
    """Half of the sends failed. -> the row as it is now, whoever wrote it."""
    reason = f"{failures} of {sends} sends failed within 30 s"
    if row := _one(OPEN, tenant, host, open_s=open_s, sends=sends, failures=failures, reason=reason):
        after = {"state": "open", "sends": sends, "failures": failures, "open_s": round(open_s, 1)}
        _tell("breaker.opened", tenant, host, {"state": "closed"}, after, reason)
    return row or _one(LOOK, tenant, host)


def take_probe(tenant: UUID, host: str, lost_after_s: float) -> tuple[bool, Told | None]:
    """-> (whether the one probe is ours to send, the row as it is now)."""
    row = _one(PROBE, tenant, host, lost_after_s=lost_after_s)
    return (True, row) if row else (False, _one(LOOK, tenant, host))


@transaction.atomic
def probed(tenant: UUID, host: str, failed: bool, open_s: float) -> Told | None:
    """What our probe came to. -> the row as it is now."""
    row = _one(REOPEN, tenant, host, open_s=open_s) if failed else _one(CLOSE, tenant, host)
    if row and not failed:
        _tell("breaker.closed", tenant, host, {"state": "half_open"}, {"state": "closed"}, "The probe was answered.")
    return row or _one(LOOK, tenant, host)


def visible(actor: Actor) -> Q:
    return Q() if actor.platform_admin else Q(tenant=actor.tenant)


def may_force(actor: Actor, tenant: Tenant) -> bool:
    """Operators and higher, each in their own tenant."""
    return actor.can("runs:write") and actor.has_role(Role.OPERATOR) and actor.sees(tenant.id)


@transaction.atomic
def force(actor: Actor, breaker_id: int, action: str, reason: str) -> Breaker:
    """A person's word: `open` or `close` it until somebody resets it; `reset`: closed, and measured again. Runs decide anew.

    Refuses: not_found 404; role_missing 403; bad_action, reason_missing 422.
    """
    row = (
        Breaker.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant").filter(visible(actor), id=breaker_id).first()
    )
    if row is None:
        raise NotFound("breaker")
    if not may_force(actor, row.tenant):
        raise Refused("role_missing", "Breakers are moved by operators of the tenant. Ask one of them.", 403)
    if action not in ACTIONS:
        raise Refused("bad_action", "The action of a breaker is open, close or reset.", 422, field="action")
    reason = " ".join(reason.split())
    if not reason:
        raise Refused("reason_missing", "Say why: the reason is kept with your name.", 422, field="reason")
    before = {"state": row.state, "forced": row.forced}
    row.state, row.forced, row.probe_at, row.reason = State.CLOSED, ACTIONS[action], None, reason[:300]
    row.changed_by, row.changed_at = actor.user.get_username(), Now()
    row.save(update_fields=["state", "forced", "probe_at", "reason", "changed_by", "changed_at"])
    after = {"state": row.state, "forced": row.forced, "host_port": row.host_port}
    done = f"breaker.forced_{row.forced}" if row.forced else "breaker.reset"
    audit.append(actor, done, "breaker", row.host_port, before, after, reason, tenant=row.tenant)
    controls.bump(row.tenant)
    row.refresh_from_db()
    return row


def of(actor: Actor, host: str, tenant: Tenant) -> Breaker:
    """The tenant's row for a host, made closed if there is none yet, so that a person can speak about it. Refuses role_missing 403."""
    if not may_force(actor, tenant):
        raise Refused("role_missing", "Breakers are moved by operators of the tenant. Ask one of them.", 403)
    return Breaker.objects.get_or_create(tenant=tenant, host_port=host)[0]


def of_hosts(actor: Actor, hosts: set[str]) -> dict[str, list[Breaker]]:
    """host:port -> the breakers of the tenants that the actor sees, those that hold calls back first. One query."""
    rows = Breaker.objects.select_related("tenant").filter(visible(actor), host_port__in=hosts)
    found: dict[str, list[Breaker]] = {}
    for row in rows.order_by(F("forced").desc(), F("state").desc(), "tenant__slug"):
        found.setdefault(row.host_port, []).append(row)
    return found


def _tell(action: str, tenant: UUID, host: str, before: dict[str, Any], after: dict[str, Any], reason: str) -> None:
    audit.append(None, action, "breaker", host, before, after | {"host_port": host}, reason, tenant=Tenant.objects.get(id=tenant))


def _one(sql: str, tenant: UUID, host: str, **values: Any) -> Told | None:
    rows = _all(sql, tenant=tenant, host=host, **values)
    return Told(*rows[0]) if rows else None


def _all(sql: str, **values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
