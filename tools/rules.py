"""Rules: the only writer. They belong to the installation or to one tenant, and can only tighten what permissions say."""

import re
from typing import Any

from django.db import transaction
from django.db.models import Q

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant
from tenants.roles import Role

from . import conditions, versions
from .models import Rule
from .policy import RuleRow

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
NAMES = {
    Rule.On.CALL: conditions.NAMES | {"day"},
    Rule.On.ANSWER: frozenset({"answer", "run", "day", "now"}),
}


def may_edit(actor: Actor | None, row: Rule) -> bool:
    """Admins: rules of their tenant. Rules of every tenant: platform admins."""
    if actor is None:
        return True
    if not actor.user.is_active:
        return False
    return actor.platform_admin or (row.tenant_id == actor.tenant.id and actor.has_role(Role.ADMIN))


def set_rule(
    actor: Actor | None,
    name: str,
    tenant: Tenant | None,
    *,
    decision: str,
    when: str,
    on: str = Rule.On.CALL,
    approvers: int = 1,
    enabled: bool = True,
    reason: str = "",
) -> tuple[Rule, bool]:
    """Write the one rule of this name in its scope. -> (row, whether it changed)."""
    row = Rule.objects.filter(name=name, tenant=tenant).first() or Rule(name=name, tenant=tenant)
    row.decision, row.when, row.on, row.approvers, row.enabled = decision, when, on, approvers, enabled
    return row, save(actor, row, reason)


@transaction.atomic
def save(actor: Actor | None, row: Rule, reason: str = "") -> bool:
    """-> whether anything changed. Refuses: not_yours 403; bad_rule, bad_condition 422."""
    before = Rule.objects.select_for_update(no_key=True).filter(pk=row.pk).first() if row.pk else None
    check(row)
    if not all(may_edit(actor, version) for version in (before, row) if version is not None):
        raise not_yours()
    was, now = as_json(before), as_json(row)
    if was == now:
        return False
    row.save()
    audit.append(actor, "rule.updated" if before else "rule.created", "rule", row.name, was, now, reason, tenant=row.tenant)
    changed(actor, {row.tenant, before.tenant if before else row.tenant}, reason)
    return True


@transaction.atomic
def delete(actor: Actor | None, row: Rule, reason: str = "") -> None:
    if not may_edit(actor, row):
        raise not_yours()
    audit.append(actor, "rule.deleted", "rule", row.name, as_json(row), None, reason, tenant=row.tenant)
    row.delete()
    changed(actor, {row.tenant}, reason)


def changed(actor: Actor | None, scopes: set[Tenant | None], reason: str) -> None:
    """Engines decide anew, and the policy has a new version."""
    for scope in sorted(scopes, key=lambda tenant: str(tenant and tenant.id)):
        controls.bump(scope)
        versions.record(actor, scope, reason)


def check(row: Rule) -> None:
    if not NAME.fullmatch(row.name):
        raise Refused("bad_rule", "A rule's name has up to 64 letters, digits, '_', '-' and '.'.", name=row.name[:100])
    if row.on not in NAMES or row.decision not in Rule.Decision.values or not 1 <= row.approvers <= 9:
        raise Refused("bad_rule", "A rule is on call or answer, and asks 1 to 9 people, drafts or denies.", rule=row.name)
    if row.on == Rule.On.ANSWER and row.decision == Rule.Decision.DRAFT:
        raise Refused("bad_rule", "An answer can be asked about or denied; only calls are drafted.", rule=row.name)
    if not row.when.strip():
        raise Refused("bad_rule", "A rule needs a condition: say when it holds.", rule=row.name)
    conditions.check(row.when, NAMES[Rule.On(row.on)])


def load(tenant: Tenant) -> tuple[RuleRow, ...]:
    """The rules that runs of this tenant are held to."""
    rows = Rule.objects.filter(Q(tenant=None) | Q(tenant=tenant), enabled=True).order_by("id")
    return tuple(RuleRow(row.name, row.on, row.decision, row.approvers, row.when) for row in rows)


def as_json(row: Rule | None) -> dict[str, Any] | None:
    if row is None:
        return None
    fields = ("name", "on", "decision", "approvers", "when", "enabled")
    return {"tenant": row.tenant.slug if row.tenant else None, **{field: getattr(row, field) for field in fields}}


def not_yours() -> Refused:
    return Refused("not_yours", "Admins edit rules of their own tenant; rules of every tenant are a platform admin's.", 403)
