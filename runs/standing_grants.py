"""Standing grants, as people give them: checked against what there is to grant, then given by the gate's own room."""

from datetime import datetime

from django.db.models import F, QuerySet
from django.utils import timezone

from approvals import standing
from approvals.models import StandingGrant
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode
from tenants.models import Tenant
from tools import conditions
from tools.models import Tool, ToolVersion

from . import switches
from .models import Agent

NAMES = frozenset({"args"})


def give(
    actor: Actor, *, tenant: Tenant, agent: str, tool: str, most: int, expires_at: datetime, reason: str, when: str = ""
) -> StandingGrant:
    """Refuses as `standing.give`, and: unknown_agent, unknown_tool, never_granted, bad_condition 422."""
    if agent not in switches.seen(Agent, tenant):
        raise Refused("unknown_agent", f"There is no agent {agent} in {tenant.slug}.", 422, field="agent")
    if tool not in switches.seen(Tool, tenant):
        raise Refused("unknown_tool", f"There is no tool {tool} in {tenant.slug}.", 422, field="tool")
    if ToolVersion.objects.filter(tool_id=tool, effect="irreversible", tool__current=F("pk")).exists():
        message = "What cannot be undone is never granted in advance: people look at each call."
        raise Refused("never_granted", message, 422, field="tool")
    if when:
        try:
            conditions.check(when, NAMES)
        except Refused as refused:
            refused.fields["field"] = "when"
            raise
    return standing.give(actor, tenant=tenant, agent=agent, tool=tool, most=most, expires_at=expires_at, reason=reason, when=when)


def revoke(actor: Actor, grant: StandingGrant, reason: str) -> StandingGrant:
    """Refuses as `standing.revoke`, and reason_missing 422."""
    if not reason.strip():
        raise Refused("reason_missing", "Say why it is taken back: the audit trail keeps it.", 422, field="reason")
    return standing.revoke(actor, grant.pk, reason)


def visible(actor: Actor) -> "QuerySet[StandingGrant]":
    rows = StandingGrant.objects.select_related("tenant", "created_by", "revoked_by").order_by("-id")
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def find(actor: Actor, grant_id: str) -> StandingGrant:
    """Raises NotFound for another tenant's and for what is no id at all."""
    try:
        found = visible(actor).filter(id=decode("grt", grant_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("standing grant")
    return found


def state(grant: StandingGrant) -> str:
    """open, revoked, expired or used_up: the same words in the API and on the pages."""
    if grant.revoked_at is not None:
        return "revoked"
    if grant.expires_at <= timezone.now():
        return "expired"
    return "used_up" if grant.used >= grant.most else "open"
