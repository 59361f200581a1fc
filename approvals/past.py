"""What people did in the last weeks, as `approvals.health` counts it; and when somebody first had a request on their screen."""

from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import F, OuterRef, Subquery

from tenants.models import User

from .health import Missed, Said
from .models import Approval, ApprovalDecision, Opening

MOST = 20_000  # the latest ones


def opened(user: User, approval_id: UUID) -> None:
    """The first time counts."""
    statement = "insert into approvals_opening (approval_id, user_id) values (%s, %s) on conflict do nothing"
    with connection.cursor() as cursor:
        cursor.execute(statement, [approval_id, user.pk])


def said(tenant_id: UUID | None, since: datetime) -> list[Said]:
    """Verdicts on calls. No tenant: of all."""
    seen = Opening.objects.filter(approval=OuterRef("approval"), user=OuterRef("user")).values("at")[:1]
    rows = ApprovalDecision.objects.filter(at__gte=since, approval__kind=Approval.Kind.CALL)
    rows = rows if tenant_id is None else rows.filter(approval__tenant_id=tenant_id)
    found = rows.annotate(opened=Subquery(seen), edited=F("approval__edited_by_id")).select_related("user", "approval").order_by("-id")
    return [
        Said(
            person=one.user.username, tool=one.approval.tool, effect=one.approval.effect, approved=one.verdict == "approve",
            asked_at=one.approval.created_at, at=one.at, opened_at=one.opened, edited=one.edited == one.user_id,
            break_glass=one.break_glass,
        )
        for one in found.defer("approval__args", "approval__proposed", "approval__why", "approval__evidence")[:MOST]
    ]  # fmt: skip


def missed(tenant_id: UUID | None, since: datetime) -> list[Missed]:
    rows = Approval.objects.filter(state=Approval.State.EXPIRED, decided_at__gte=since, kind=Approval.Kind.CALL)
    rows = rows if tenant_id is None else rows.filter(tenant_id=tenant_id)
    return [Missed(tool) for tool in rows.order_by("-id").values_list("tool", flat=True)[:MOST]]
