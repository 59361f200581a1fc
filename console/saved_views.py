"""Saved views of the list of runs: the only writer. Whoever reads runs may keep some; others' are changed by their tenant's admins."""

import hashlib
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode
from tenants.models import Tenant
from tenants.roles import Role

from .models import SavedView

MOST = 50  # of a tenant
LONGEST_NAME, LONGEST_QUERY = 40, 6000


def offered(actor: Actor) -> QuerySet[SavedView]:
    """The actor's own and what is shared, in the tenant they look at."""
    return (
        SavedView.objects.filter(Q(owner=actor.user) | Q(shared=True), tenant=actor.tenant).select_related("owner").order_by("name", "id")
    )


def manageable(actor: Actor) -> QuerySet[SavedView]:
    """Those that the actor may rename and delete: their own, for an admin every one."""
    rows = SavedView.objects.filter(tenant=actor.tenant).select_related("owner").order_by("name", "id")
    return rows if actor.has_role(Role.ADMIN) else rows.filter(owner=actor.user)


def find(actor: Actor, view_id: str) -> SavedView:
    """Raises NotFound for what the actor may not change."""
    try:
        return manageable(actor).get(pk=decode("viw", view_id))
    except (ValueError, SavedView.DoesNotExist):
        raise NotFound("view") from None


@transaction.atomic
def save(actor: Actor, name: str, query: str, *, shared: bool) -> SavedView:
    """Refuses bad_name, view_exists, too_long, too_many 422; scope_missing 403."""
    actor.need("runs:read")
    Tenant.objects.select_for_update(no_key=True).get(pk=actor.tenant.pk)  # two people save the last one at once
    name = checked(actor.tenant, actor.user.pk, name)
    if len(query) > LONGEST_QUERY:
        raise Refused("too_long", "This filter is too long to be kept. Choose fewer values.", 422)
    if SavedView.objects.filter(tenant=actor.tenant).count() >= MOST:
        raise Refused("too_many", f"A tenant has at most {MOST} saved views. Delete one first.", 422)
    view = SavedView.objects.create(tenant=actor.tenant, owner=actor.user, name=name, query=query, shared=shared)
    audit.append(actor, "view.created", "view", view.view_id, None, told(view), tenant=view.tenant)
    return view


@transaction.atomic
def change(actor: Actor, view: SavedView, name: str, *, shared: bool) -> SavedView:
    """Another name, or for other eyes. Refuses bad_name, view_exists 422; NotFound."""
    before = told(view)
    Tenant.objects.select_for_update(no_key=True).get(pk=view.tenant_id)
    name = checked(view.tenant, view.owner_id, name, but=view)
    if not manageable(actor).filter(pk=view.pk).update(name=name, shared=shared):
        raise NotFound("view")
    view.name, view.shared = name, shared
    if told(view) != before:
        audit.append(actor, "view.updated", "view", view.view_id, before, told(view), tenant=view.tenant)
    return view


@transaction.atomic
def delete(actor: Actor, view: SavedView) -> None:
    if not manageable(actor).filter(pk=view.pk).delete()[0]:
        raise NotFound("view")
    audit.append(actor, "view.deleted", "view", view.view_id, told(view), None, tenant=view.tenant)


def checked(tenant: Tenant, owner_id: int, name: str, but: SavedView | None = None) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME or "\0" in name:
        raise Refused("bad_name", f"Give the view a name of 1 to {LONGEST_NAME} characters.", 422, field="name")
    others = SavedView.objects.filter(tenant=tenant, owner_id=owner_id, name=name)
    if (others.exclude(pk=but.pk) if but else others).exists():
        raise Refused("view_exists", "There is a view of this name already. Choose another name, or delete that one.", 422, field="name")
    return name


def told(view: SavedView) -> dict[str, Any]:
    """For the audit trail: of the filter, which may hold text that somebody searched for, only the hash."""
    return {"name": view.name, "shared": view.shared, "query_sha256": hashlib.sha256(view.query.encode()).hexdigest()}
