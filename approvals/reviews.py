"""Verdicts that broke the glass are looked at afterwards, by an admin who did not give them. The only writer."""

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from tenants import audit
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.roles import Role

from .models import Approval, ApprovalDecision, GlassReview


def visible(actor: Actor) -> "QuerySet[GlassReview]":
    """Those that nobody has looked at first."""
    seen = Q() if actor.platform_admin else Q(tenant=actor.tenant)
    rows = GlassReview.objects.filter(seen).select_related("approval", "tenant", "reviewed_by")
    return rows.prefetch_related("approval__decisions__user").order_by("reviewed_at", "id")


@transaction.atomic
def reviewed(actor: Actor, approval: Approval, note: str) -> GlassReview:
    """Refuses: nothing_to_review, already_reviewed (by) 409; not_yours, own_decision 403; note_missing 422."""
    if not actor.has_role(Role.ADMIN) or not actor.sees(approval.tenant_id):
        raise Refused("not_yours", "Admins of the tenant look at decisions that broke the glass.", 403)
    actor.need("approvals:decide")
    row = GlassReview.objects.select_for_update(no_key=True).filter(approval=approval).first()
    if row is None:
        raise Refused("nothing_to_review", "This decision followed the rules: there is nothing to look at.", 409)
    if row.reviewed_at is not None:
        by = row.reviewed_by.username if row.reviewed_by else ""
        raise Refused("already_reviewed", f"{by} has looked at it already.", 409, by=by)
    if ApprovalDecision.objects.filter(approval=approval, user=actor.user, break_glass=True).exists():
        raise Refused("own_decision", "You decided this, so another admin looks at it.", 403)
    if not note.strip():
        raise Refused("note_missing", "Say what you found: the note is kept beside the decision.", 422, field="note")
    GlassReview.objects.filter(pk=row.pk).update(reviewed_by=actor.user, reviewed_at=Now(), note=note[:1000])
    audit.append(actor, "break_glass.reviewed", "approval", approval.approval_id, None, None, note, tenant=approval.tenant)
    row.refresh_from_db()
    return row
