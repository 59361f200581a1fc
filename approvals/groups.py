"""Groups of approvers: the only writer. Admins of the tenant say who is in them, and which group is asked when one does not answer."""

import re
from collections.abc import Collection
from typing import Any, Literal

from django.db import IntegrityError, transaction

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant, User
from tenants.roles import Role

from .models import Approval, Group

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
Action = Literal["create", "update", "unchanged"]


@transaction.atomic
def put(
    actor: Actor | None,
    tenant: Tenant,
    name: str,
    people: Collection[str],
    escalates_to: str = "",
    reason: str = "",
    *,
    coming: Collection[str] = (),
) -> tuple[Group, Action]:
    """Make the group of this name hold exactly these people (usernames). `coming`: groups that the caller makes right after this one.

    Refuses: not_yours 403; bad_group, unknown_person (person), unknown_group 422.
    """
    need(actor, tenant)
    members = check(tenant, name, people, escalates_to, coming)
    group = Group.objects.select_for_update(no_key=True).filter(tenant=tenant, name=name).first()
    before = as_json(group) if group else None
    if group is None:
        group = Group.objects.create(tenant=tenant, name=name, escalates_to=escalates_to)
    group.escalates_to = escalates_to
    group.save(update_fields=["escalates_to"])
    group.people.set(members)
    after = as_json(group)
    if before == after:
        return group, "unchanged"
    action = "group.updated" if before else "group.created"
    audit.append(actor, action, "group", name, before, after, reason, tenant=tenant)
    return group, "update" if before else "create"


@transaction.atomic
def delete(actor: Actor | None, group: Group, reason: str = "") -> None:
    """Refuses: not_yours 403; group_in_use 409 while a permission, another group or an open request names it."""
    need(actor, group.tenant)
    named = Group.objects.filter(tenant=group.tenant, escalates_to=group.name).exclude(pk=group.pk).exists()
    asked = Approval.objects.filter(tenant=group.tenant, group=group.name, state=Approval.State.PENDING).exists()
    if named or asked:
        raise in_use(group, "Another group escalates to it." if named else "A request waits for it.")
    audit.append(actor, "group.deleted", "group", group.name, as_json(group), None, reason, tenant=group.tenant)
    try:
        with transaction.atomic():
            group.delete()
    except IntegrityError:
        raise in_use(group, "A permission names it.") from None


def check(tenant: Tenant, name: str, people: Collection[str], escalates_to: str, coming: Collection[str] = ()) -> list[User]:
    if not NAME.fullmatch(name):
        message = "A group's name begins with a letter and has up to 64 letters, digits, dots, dashes and underscores."
        raise Refused("bad_group", message, 422, field="name")
    members = list(User.objects.filter(memberships__tenant=tenant, username__in=people).order_by("username"))
    if missing := sorted(set(people) - {person.username for person in members}):
        raise Refused("unknown_person", f"{missing[0]} is no member of {tenant.slug}. Only members decide here.", 422, person=missing[0])
    if escalates_to == name:
        raise Refused("bad_group", "A group escalates to another one, not to itself.", 422, field="escalates_to")
    known = not escalates_to or escalates_to in coming or Group.objects.filter(tenant=tenant, name=escalates_to).exists()
    if not known:
        raise Refused("unknown_group", f"There is no group {escalates_to} in {tenant.slug} to escalate to.", 422, group=escalates_to)
    return members


def find(actor: Actor, tenant: Tenant, name: str) -> Group:
    found = Group.objects.filter(tenant=tenant, name=name).first()
    if found is None or not actor.sees(tenant.pk):
        raise NotFound("group")
    return found


def need(actor: Actor | None, tenant: Tenant) -> None:
    """Also what a person may do through a key: the scope config:write. No actor: the installation itself."""
    if actor is None:
        return
    actor.need("config:write")
    if not (actor.platform_admin or (actor.sees(tenant.pk) and actor.has_role(Role.ADMIN))):
        raise Refused("not_yours", "Admins of the tenant say who its approvers are.", 403)


def as_json(group: Group) -> dict[str, Any]:
    people = sorted(group.people.values_list("username", flat=True))
    return {"name": group.name, "people": people, "escalates_to": group.escalates_to}


def in_use(group: Group, why: str) -> Refused:
    return Refused("group_in_use", f"The group {group.name} cannot go yet. {why}", 409)
