"""Delegations: one person decides for another until a day. The only writer. What a delegate may do is never more than the other may,
and is not passed on: `approvals.people` looks one step far."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Member, Tenant, User
from tenants.roles import Role

from .models import Delegation

LONGEST = timedelta(days=90)


@transaction.atomic
def give(actor: Actor, tenant: Tenant, *, to: str, until: datetime, of: str = "", reason: str = "") -> Delegation:
    """`of`: whose decisions; empty: the actor's own. Admins may also name others of their tenant, who are away.

    Refuses: scope_missing, not_yours 403; unknown_person (person), bad_delegation 422.
    """
    actor.need("approvals:decide")
    giver = member(tenant, of or actor.user.username)
    if not may(actor, tenant, giver):
        raise Refused("not_yours", "You delegate your own decisions. An admin of the tenant does it for somebody who is away.", 403)
    delegate = member(tenant, to)
    if giver == delegate:
        raise Refused("bad_delegation", "Name another person: nobody stands in for themselves.", 422, field="to")
    now = datetime.now(UTC)
    if until.tzinfo is None or not now < until <= now + LONGEST:
        raise Refused("bad_delegation", f"A delegation ends in the future, within {LONGEST.days} days.", 422, field="until")
    made = Delegation.objects.create(tenant=tenant, of=giver, to=delegate, until=until, reason=reason[:300])
    audit.append(actor, "delegation.given", "delegation", made.pk, None, as_json(made), reason, tenant=tenant)
    return made


@transaction.atomic
def revoke(actor: Actor, delegation: Delegation, reason: str = "") -> Delegation:
    """By either of the two, or an admin. What the delegate approved and was not sent yet is not sent. Refuses: not_yours 403."""
    actor.need("approvals:decide")
    if not (actor.user.pk == delegation.to_id or may(actor, delegation.tenant, delegation.of)):
        raise Refused("not_yours", "A delegation is taken back by one of the two, or by an admin of the tenant.", 403)
    open_one = Delegation.objects.filter(pk=delegation.pk, revoked_at__isnull=True)
    if open_one.update(revoked_at=Now()):
        audit.append(actor, "delegation.revoked", "delegation", delegation.pk, as_json(delegation), None, reason, tenant=delegation.tenant)
        delegation.refresh_from_db()
    return delegation


def visible(actor: Actor) -> "QuerySet[Delegation]":
    """Admins see their tenant's; others those that they gave or got."""
    rows = Delegation.objects.select_related("tenant", "of", "to").order_by("-id")
    if actor.platform_admin:
        return rows
    rows = rows.filter(tenant=actor.tenant)
    return rows if actor.has_role(Role.ADMIN) else rows.filter(Q(of=actor.user) | Q(to=actor.user))


def find(actor: Actor, delegation_id: str) -> Delegation:
    digits = delegation_id.isascii() and delegation_id.isdigit() and len(delegation_id) < 19
    found = visible(actor).filter(pk=int(delegation_id)).first() if digits else None
    if found is None:
        raise NotFound("delegation")
    return found


def may(actor: Actor, tenant: Tenant, giver: User) -> bool:
    if actor.platform_admin:
        return True
    return actor.sees(tenant.pk) and (actor.user.pk == giver.pk or actor.has_role(Role.ADMIN))


def member(tenant: Tenant, username: str) -> User:
    found = Member.objects.select_related("user").filter(tenant=tenant, user__username=username, user__is_active=True).first()
    if found is None:
        raise Refused("unknown_person", f"{username} is no active member of {tenant.slug}.", 422, person=username)
    return found.user


def as_json(delegation: Delegation) -> dict[str, Any]:
    names = {"of": delegation.of.username, "to": delegation.to.username}
    return {"tenant": delegation.tenant.slug, **names, "until": delegation.until}
