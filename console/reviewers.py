"""Reviewer health for one reader: of their tenant (a platform admin: of all), the last 30 days. Other people are for admins to see."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from approvals import health, past
from approvals.health import Finding, Line
from tenants.actors import Actor
from tenants.roles import Role

DAYS = 30


@dataclass(frozen=True, slots=True)
class Health:
    people: list[Line]
    tools: list[Line]
    findings: list[Finding]
    decided: int
    expired: int


def look(actor: Actor) -> Health:
    """Refuses scope_missing 403."""
    actor.need("approvals:read")
    tenant, since = None if actor.platform_admin else actor.tenant.id, timezone.now() - timedelta(days=DAYS)
    said, missed = past.said(tenant, since), past.missed(tenant, since)
    tools, people = health.by_tool(said, missed), health.by_person(said)
    if not actor.has_role(Role.ADMIN):
        people = [line for line in people if line.name == actor.user.username]
    return Health(people, tools, health.findings(people, tools), len(said), len(missed))
