"""Permission rows: who may edit which, and the only writer. Every change is audited before and after, and bumps the revision."""

from typing import Any

from django.db import transaction

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant
from tenants.roles import Role

from . import conditions, groups, versions
from .models import Permission, Tool


def may_edit(actor: Actor | None, row: Permission) -> bool:
    """Operators: rows of their tenant that do not loosen. Admins: also those that do. Rows of every tenant: platform admins."""
    if actor is None:
        return True
    if not actor.user.is_active:
        return False
    if actor.platform_admin:
        return True
    least = Role.ADMIN if row.loosen else Role.OPERATOR
    return row.tenant_id is not None and row.tenant_id == actor.tenant.id and actor.has_role(least)


def set_permission(
    actor: Actor | None,
    tool: str,
    tenant: Tenant | None,
    *,
    decision: str,
    approvers: int = 1,
    agent: str = "",
    user_role: str = "",
    when: str = "",
    loosen: bool = False,
    group: str = "",
) -> tuple[Permission, bool]:
    """Write the one row of this place (tool, tenant, agent, user role, condition). -> (row, whether it changed)."""
    place = {"tool_id": tool, "tenant": tenant, "agent": agent, "user_role": user_role, "when": when}
    row = Permission.objects.filter(**place).first() or Permission(**place)
    row.decision, row.approvers, row.loosen, row.group = decision, approvers, loosen, group
    return row, save(actor, row)


@transaction.atomic
def save(actor: Actor | None, row: Permission, reason: str = "") -> bool:
    """Save a new or changed row. -> whether anything changed.

    Refuses: not_yours 403; bad_condition, bad_permission, unknown_tool, unknown_group 422.
    """
    before = Permission.objects.select_for_update(no_key=True).filter(pk=row.pk).first() if row.pk else None
    check(row)
    for version in (before, row):
        if version is not None and not may_edit(actor, version):
            raise not_yours()
    was, now = as_json(before), as_json(row)
    if was == now:
        return False
    with groups.known():
        row.save()
    action = "permission.updated" if before else "permission.created"
    audit.append(actor, action, "permission", str(row.pk), was, now, reason, tenant=row.tenant)
    changed(actor, reason, before, row)
    return True


@transaction.atomic
def delete(actor: Actor | None, row: Permission, reason: str = "") -> None:
    if not may_edit(actor, row):
        raise not_yours()
    audit.append(actor, "permission.deleted", "permission", str(row.pk), as_json(row), None, reason, tenant=row.tenant)
    row.delete()
    changed(actor, reason, row)


def check(row: Permission) -> None:
    if not Tool.objects.filter(name=row.tool_id).exists():
        raise Refused("unknown_tool", f"There is no tool {row.tool_id}.", tool=row.tool_id)
    if row.decision not in Permission.Decision.values or not 1 <= row.approvers <= 9:
        raise Refused("bad_permission", "A decision is allow, ask, draft or deny; ask takes 1 to 9 approvers.")
    if row.group and (row.decision != Permission.Decision.ASK or row.tenant_id is None):
        raise Refused("bad_permission", "A group belongs to a tenant and decides what is asked: name the tenant, and decide ask.")
    if row.when:
        conditions.check(row.when)


def as_json(row: Permission | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "tool": row.tool_id,
        "tenant": row.tenant.slug if row.tenant else None,
        "agent": row.agent,
        "user_role": row.user_role,
        "decision": row.decision,
        "approvers": row.approvers,
        "when": row.when,
        "loosen": row.loosen,
        "group": row.group,
    }


def changed(actor: Actor | None, reason: str, *rows: Permission | None) -> None:
    """Engines of the tenants concerned decide anew (all of them as soon as one row is for every tenant), and the policy has a new
    version."""
    concerned = {row.tenant for row in rows if row is not None}
    for scope in sorted(concerned, key=lambda tenant: str(tenant and tenant.id)):
        versions.record(actor, scope, reason)
    for scope in {None} if None in concerned else sorted(concerned, key=lambda tenant: str(tenant and tenant.id)):
        controls.bump(scope)


def not_yours() -> Refused:
    return Refused(
        "not_yours",
        "Operators edit permissions of their own tenants; loosening needs an admin, and rows of every tenant a platform admin.",
        403,
    )
