"""Setting ceilings: their only writer. Lowering one below what is held stops nothing that runs; it only accepts nothing new."""

from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from django.db import connection, transaction

from . import audit, windows
from .actors import Actor
from .errors import NotFound, Refused
from .models import Ceiling, Tenant
from .quotas import ACCEPTING, amount, scope_name
from .windows import MICRO

Action = Literal["create", "update", "unchanged"]
MOST = 10**9  # USD, or runs: more is a slip of the pen


def read(kind: str, given: Any) -> int:
    """What a ceiling of this kind is kept as: micro-USD for costs, else a count. 0 allows nothing. Refuses bad_ceiling 422."""
    if kind not in Ceiling.Kind.values:
        raise Refused("bad_ceiling", f"There is no ceiling {str(kind)[:40]}. Use one of {', '.join(Ceiling.Kind.values)}.", 422)
    try:
        value = Decimal("NaN") if isinstance(given, bool) else Decimal(str(given).strip())
    except InvalidOperation:
        value = Decimal("NaN")
    unit = MICRO if windows.is_cost(kind) else 1
    if not value.is_finite() or not 0 <= value <= MOST or value * unit != int(value * unit):
        what = "an amount in USD with at most six decimals" if unit == MICRO else "a whole number of runs"
        raise Refused("bad_ceiling", f"{kind} must be {what}, from 0 (nothing) to {MOST}.", 422, kind=kind)
    return int(value * unit)


def shown(kind: str, value: int) -> str | int:
    """The value as people write it."""
    return amount(value) if windows.is_cost(kind) else value


@transaction.atomic
def put(actor: Actor | None, tenant: Tenant | None, agent: str, kind: str, value: int, reason: str = "") -> tuple[Ceiling, Action]:
    """One ceiling of a place; `actor` None is the command line. Refuses scope_missing, platform_admin_needed 403, not_found 404."""
    need(actor, tenant)
    place = {"tenant": tenant, "agent": agent, "kind": kind}
    row = Ceiling.objects.filter(**place).first()
    if row is None:
        lock()
        row = Ceiling.objects.filter(**place).first() or Ceiling(**place)
    before = row.value if row.pk else None
    if before == value:
        return row, "unchanged"
    row.value, row.bucket, row.bucket_at = value, None, None
    row.save()
    note(actor, row, "created" if before is None else "changed", before, value, reason)
    return row, "create" if before is None else "update"


@transaction.atomic
def delete(actor: Actor | None, ceiling: Ceiling, reason: str = "") -> None:
    """With its windows: what is held there is held no more."""
    need(actor, ceiling.tenant)
    lock(ceiling)
    row = Ceiling.objects.filter(pk=ceiling.pk).first()
    if row is None:
        raise NotFound("ceiling")
    note(actor, row, "deleted", row.value, None, reason)
    row.delete()


def need(actor: Actor | None, tenant: Tenant | None) -> None:
    """A tenant's own are set by its admins, those of the installation and of agents everywhere by platform admins."""
    if actor is None:
        return
    actor.need("config:write")
    if tenant is None and not actor.platform_admin:
        raise Refused("platform_admin_needed", "Ceilings of the installation and of agents are set by platform admins.", 403)
    if tenant is not None and not actor.sees(tenant.id):
        raise NotFound("tenant")


def lock(ceiling: Ceiling | None = None) -> None:
    """Waits for the runs that are being accepted without the new ceiling: a window that starts later finds them in the tables.

    One that is to go has its windows locked as well, before anything under them.
    """
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", [ACCEPTING])
        if ceiling is not None:
            cursor.execute("select id from tenants_spending where ceiling_id = %s order by id for update", [ceiling.pk])


def note(actor: Actor | None, row: Ceiling, verb: str, before: int | None, after: int | None, reason: str) -> None:
    name = f"{scope_name(row.tenant.slug if row.tenant else None, row.agent)} {row.kind}"
    was, now = (None if value is None else {row.kind: shown(row.kind, value)} for value in (before, after))
    audit.append(actor, f"ceiling.{verb}", "ceiling", name, was, now, reason, tenant=row.tenant)
