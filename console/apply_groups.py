"""The `groups` of a configuration document."""

from collections.abc import Iterator

from approvals import groups
from approvals.models import Group
from tenants.actors import Actor
from tenants.models import Tenant

from .document import Document, GroupBlock


def put(actor: Actor | None, document: Document, block: GroupBlock, tenant: Tenant) -> tuple[str, groups.Action]:
    """-> (its name, what was done). A group may escalate to one that comes later in the document."""
    coming = {other.name for other in document.groups if other.tenant == block.tenant}
    _, action = groups.put(actor, tenant, block.name, block.people, block.escalates_to, coming=coming)
    return named(block.name, block.tenant), action


def prune(actor: Actor | None, document: Document) -> Iterator[str]:
    """Names of the groups that the document leaves out, which are deleted; of the tenants that it names."""
    slugs = {block.slug for block in document.tenants} | {block.tenant for block in document.groups}
    kept = {(block.tenant, block.name) for block in document.groups}
    rows = Group.objects.select_related("tenant").filter(tenant__slug__in=slugs).order_by("id")
    gone = [row for row in rows if (row.tenant.slug, row.name) not in kept]
    for row in sorted(gone, key=lambda one: bool(one.escalates_to), reverse=True):  # those that name another one first
        groups.delete(actor, row)
        yield named(row.name, row.tenant.slug)


def named(name: str, slug: str) -> str:
    return f"{name} x {slug}"
