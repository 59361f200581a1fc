"""Permissions and rules together have a version for each scope (a tenant, or all of them): recorded at every change, and a way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tenants.roles import Role

from . import groups
from .models import Permission, PolicyVersion, Rule, Tool

PERMISSION = ("tool_id", "agent", "user_role", "decision", "approvers", "when", "loosen", "group")
RULE = ("name", "on", "decision", "approvers", "when", "enabled")
LOCK = 0x5B0A_0011
_touched: ContextVar[dict[UUID | None, Tenant | None] | None] = ContextVar("touched", default=None)


def document(tenant: Tenant | None) -> dict[str, Any]:
    """The rows of the scope as they are."""
    return {
        "permissions": [fields(row, PERMISSION) for row in Permission.objects.filter(tenant=tenant).order_by("id")],
        "rules": [fields(row, RULE) for row in Rule.objects.filter(tenant=tenant).order_by("name")],
    }


def fields(row: Permission | Rule, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


@contextmanager
def together(actor: Actor | None, reason: str) -> Iterator[None]:
    """Many changes of one transaction are one version for each scope they touch."""
    touched: dict[UUID | None, Tenant | None] = {}
    token = _touched.set(touched)
    try:
        yield
    finally:
        _touched.reset(token)
    for tenant in touched.values():
        write(actor, tenant, reason)


def record(actor: Actor | None, tenant: Tenant | None, reason: str = "") -> None:
    """In the transaction of a change: the scope's state after it becomes a version."""
    touched = _touched.get()
    if touched is None:
        write(actor, tenant, reason)
    else:
        touched[tenant.id if tenant else None] = tenant


def write(actor: Actor | None, tenant: Tenant | None, reason: str) -> PolicyVersion:
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", [LOCK])
    last = PolicyVersion.objects.filter(tenant=tenant).aggregate(last=Max("number"))["last"] or 0
    by = actor.user.username if actor else audit.SYSTEM
    return PolicyVersion.objects.create(tenant=tenant, number=last + 1, document=document(tenant), changed_by=by, reason=reason[:1000])


def current(tenant: Tenant | None) -> int:
    """0 before the first change."""
    return PolicyVersion.objects.filter(tenant=tenant).aggregate(last=Max("number"))["last"] or 0


@transaction.atomic
def roll_back(actor: Actor, tenant: Tenant | None, number: int, reason: str) -> PolicyVersion:
    """Make the scope's permissions and rules what they were in version `number`. Refuses: not_yours 403, not_found 404,
    reason_missing, unknown_tool, unknown_group 422."""
    if not (actor.platform_admin or (tenant is not None and tenant.id == actor.tenant.id and actor.has_role(Role.ADMIN))):
        raise Refused("not_yours", "Admins roll the policy of their own tenant back; that of every tenant is a platform admin's.", 403)
    if not reason.strip():
        raise Refused("reason_missing", "Say why the policy goes back: the reason is kept.", 422, field="reason")
    earlier = PolicyVersion.objects.filter(tenant=tenant, number=number).first()
    if earlier is None:
        raise NotFound("policy version")
    named = {row["tool_id"] for row in earlier.document["permissions"]}
    if missing := sorted(named - set(Tool.objects.filter(name__in=named).values_list("name", flat=True))):
        raise Refused("unknown_tool", f"Version {number} names tools that are gone: {', '.join(missing)}.", 422, tools=missing)
    before = document(tenant)
    Permission.objects.filter(tenant=tenant).delete()
    Rule.objects.filter(tenant=tenant).delete()
    with groups.known():
        Permission.objects.bulk_create(Permission(tenant=tenant, **row) for row in earlier.document["permissions"])
    Rule.objects.bulk_create(Rule(tenant=tenant, **row) for row in earlier.document["rules"])
    controls.bump(tenant)
    made = write(actor, tenant, reason)
    after = {"version": made.number, "like": number}
    audit.append(actor, "policy.rolled_back", "policy", made.number, {"version": made.number - 1, **before}, after, reason, tenant=tenant)
    return made
