"""The `rules` of a configuration document."""

from collections.abc import Iterator
from typing import Literal

from tenants.actors import Actor
from tenants.models import Tenant
from tools import rules
from tools.models import Rule

from .document import Document, RuleBlock

Action = Literal["create", "update", "unchanged"]
SETTINGS = ("decision", "when", "on", "approvers", "enabled")


def put(actor: Actor | None, block: RuleBlock, tenant: Tenant | None) -> tuple[str, Action, tuple[str, ...]]:
    """-> (its name, what was done, what an update changed)."""
    before = Rule.objects.filter(name=block.name, tenant=tenant).first()
    after, _ = rules.set_rule(actor, block.name, tenant, **{field: getattr(block, field) for field in SETTINGS})
    name = named(block.name, block.tenant)
    if before is None:
        return name, "create", ()
    fields = tuple(field for field in SETTINGS if getattr(before, field) != getattr(after, field))
    return name, "update" if fields else "unchanged", fields


def prune(actor: Actor | None, document: Document) -> Iterator[str]:
    """Names of the rules that the document leaves out, which are deleted."""
    kept = {(block.name, block.tenant) for block in document.rules}
    for row in Rule.objects.select_related("tenant").order_by("id"):
        slug = row.tenant.slug if row.tenant else None
        if (row.name, slug) not in kept:
            rules.delete(actor, row)
            yield named(row.name, slug)


def named(name: str, slug: str | None) -> str:
    return f"{name} x {slug or 'every tenant'}"
