"""The `ceilings` blocks of a configuration document: of the platform, of tenants and of agents."""

from collections.abc import Iterator
from dataclasses import dataclass

from runs import ceilings as runs_ceilings
from tenants import ceilings
from tenants.actors import Actor
from tenants.models import Ceiling, Tenant
from tenants.quotas import scope_name

from .document import Ceilings, Document


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block stands, and whose ceilings it gives."""

    path: str
    slug: str | None
    agent: str
    given: Ceilings


def places(document: Document) -> Iterator[Place]:
    """Blocks that are given, empty ones too: an empty one says that there are none."""
    if document.platform is not None and document.platform.ceilings is not None:
        yield Place("platform.ceilings", None, "", document.platform.ceilings)
    for index, tenant in enumerate(document.tenants):
        if tenant.ceilings is not None:
            yield Place(f"tenants[{index}].ceilings", tenant.slug, "", tenant.ceilings)
    for index, agent in enumerate(document.agents):
        if agent.ceilings is not None:
            yield Place(f"agents[{index}].ceilings", None, agent.name, agent.ceilings)


def put(actor: Actor | None, place: Place) -> Iterator[tuple[str, ceilings.Action]]:
    """(name, what was done) of each that the block gives."""
    tenant = Tenant.objects.get(slug=place.slug) if place.slug else None
    for kind, given in place.given:
        if given is not None:
            _, action = runs_ceilings.put(actor, tenant, place.agent, kind, ceilings.read(kind, given))
            yield name(place, kind), action


def prune(actor: Actor | None, place: Place) -> Iterator[str]:
    """Names of those in the block's place that it leaves out, which are deleted."""
    for row in Ceiling.objects.filter(tenant__slug=place.slug, agent=place.agent).order_by("id"):
        if getattr(place.given, row.kind) is None:
            ceilings.delete(actor, row)
            yield name(place, row.kind)


def name(place: Place, kind: str) -> str:
    return f"{scope_name(place.slug, place.agent)} {kind}"
