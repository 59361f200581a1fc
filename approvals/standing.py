"""Standing grants: a yes in advance, bounded by tool, agent, tenant, condition, count and time, and revocable. The only writer."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tenants.roles import Role

from . import people
from .models import Approval, StandingGrant

MOST = 10_000
Fits = Callable[[str, Any], bool]  # whether a condition holds for these arguments; what cannot be evaluated does not


@transaction.atomic
def give(
    actor: Actor, *, tenant: Tenant, agent: str, tool: str, most: int, expires_at: datetime, reason: str, when: str = ""
) -> StandingGrant:
    """`when` was checked by the caller, who knows conditions. Refuses: not_yours 403; bad_grant, reason_missing 422."""
    _need(actor, tenant)
    if not reason.strip():
        message = "Say why this is granted in advance: the reason is shown on each call that uses it."
        raise Refused("reason_missing", message, 422, field="reason")
    if not 1 <= most <= MOST or not agent or not tool:
        raise Refused("bad_grant", f"A standing grant names an agent and a tool, and 1 to {MOST} uses.", 422)
    if expires_at.tzinfo is None or expires_at <= datetime.now(UTC):
        raise Refused("bad_grant", "A standing grant ends in the future.", 422, field="expires_at")
    grant = StandingGrant.objects.create(
        tenant=tenant, agent=agent, tool=tool, when=when, most=most, expires_at=expires_at, reason=reason[:2000], created_by=actor.user
    )
    audit.append(actor, "grant.given", "grant", str(grant), None, as_json(grant), reason, tenant=tenant)
    return grant


@transaction.atomic
def revoke(actor: Actor, grant_id: UUID, reason: str = "") -> StandingGrant:
    """Also calls that it approved and that are not sent yet are not sent. Refuses: not_found 404, not_yours 403."""
    grant = StandingGrant.objects.select_for_update(no_key=True).filter(pk=grant_id).first()
    if grant is None or not actor.sees(grant.tenant_id):
        raise NotFound("standing grant")
    _need(actor, grant.tenant)
    if grant.revoked_at is None:
        StandingGrant.objects.filter(pk=grant_id).update(revoked_at=Now(), revoked_by=actor.user)
        audit.append(actor, "grant.revoked", "grant", str(grant), as_json(grant), None, reason, tenant=grant.tenant)
        grant.refresh_from_db()
    return grant


def take(approval: Approval, fits: Fits) -> StandingGrant | None:
    """One use of the first grant that fits this request, taken by a guarded UPDATE. Never for high risk, nor where more than one
    person has to agree: a grant speaks for the one who gave it, who must be somebody who may decide this.
    """
    if approval.kind != Approval.Kind.CALL or approval.risk != "normal" or approval.effect == "irreversible" or approval.needed > 1:
        return None
    args = json.loads(bytes(approval.args))
    place = {"tenant_id": approval.tenant_id, "agent": approval.agent, "tool": approval.tool}
    open_ones = StandingGrant.objects.filter(**place, revoked_at__isnull=True, expires_at__gt=Now(), used__lt=F("most"))
    others = open_ones.exclude(created_by_id=approval.starter_id).select_related("created_by")
    for grant in others.order_by("expires_at", "id"):
        wanted = people.permitted(grant.created_by, approval) and (not grant.when or fits(grant.when, args))
        if wanted and open_ones.filter(pk=grant.pk).update(used=F("used") + 1):
            return grant
    return None


def holds(approval: Approval) -> bool:
    """Whether what a grant approved may still be sent."""
    current = StandingGrant.objects.filter(uses=approval, revoked_at__isnull=True, expires_at__gt=Now())
    grant = current.select_related("created_by").first()
    return grant is not None and people.permitted(grant.created_by, approval)


def as_json(grant: StandingGrant) -> dict[str, Any]:
    fields = ("agent", "tool", "when", "most", "used", "expires_at")
    return {field: getattr(grant, field) for field in fields}


def _need(actor: Actor, tenant: Tenant) -> None:
    actor.need("approvals:decide")
    if not (actor.sees(tenant.id) and actor.has_role(Role.APPROVER)):
        raise Refused("not_yours", "Standing grants are given and taken back by approvers of the tenant.", 403)
