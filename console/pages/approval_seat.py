"""What one person may do about requests. For showing only: `runs.signoff` checks all of it again, under the lock."""

from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from approvals import people
from approvals.models import Approval, ApprovalDecision, Delegation, Group
from console import step_up
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Member
from tenants.roles import ORDER, Role

State, Verdict = Approval.State, ApprovalDecision.Verdict


class Seat:
    """A person at the inbox. What is the same for all requests is read once, when the first one needs it."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    @cached_property
    def groups(self) -> set[tuple[UUID, str]]:
        return set(Group.objects.filter(people=self.actor.user).values_list("tenant_id", "name"))

    @cached_property
    def stands_in(self) -> bool:
        """For somebody, by delegation."""
        mine = Delegation.objects.filter(to=self.actor.user, until__gt=Now(), revoked_at__isnull=True)
        return mine.exists()

    def hindrance(self, found: Approval) -> str:
        """Why this person cannot decide it now: closed, own_run, spoken, role or group; empty if they can."""
        if found.state != State.PENDING or overdue(found):
            return "closed"
        if found.starter_id == self.actor.user.pk:
            return "own_run"
        if any(one.user_id == self.actor.user.pk for one in found.decisions.all()):
            return "spoken"
        return self.standing(found)

    def standing(self, found: Approval) -> str:
        has_role = self.actor.can("approvals:decide") and self.actor.has_role(people.least_role(found))
        if has_role and (not found.group or (found.tenant_id, found.group) in self.groups):
            return ""
        if not self.stands_in and not (has_role and found.escalated_at):
            return "group" if has_role else "role"
        try:
            people.may_decide(self.actor, found)
        except Refused as refused:
            return "group" if refused.code == "not_in_group" else "role"
        return ""

    def may_edit(self, found: Approval) -> bool:
        """Also somebody who has approved it as it is. `found.tool_version_id`: its schema is needed."""
        if found.kind != Approval.Kind.CALL or found.tool_version_id is None:
            return False
        hindered = self.hindrance(found)
        return not hindered or (hindered == "spoken" and not self.standing(found))

    def may_break(self, found: Approval) -> bool:
        """Decide alone what more people, or a group, are asked about."""
        hindered = self.hindrance(found)
        approver = self.actor.can("approvals:decide") and self.actor.has_role(Role.APPROVER)
        return approver and (hindered == "group" or (not hindered and needed(found) - approved(found) > 1))

    def others(self, found: Approval) -> list[str]:
        """Names of a few people who may decide instead."""
        roles = ORDER[ORDER.index(people.least_role(found)) :]
        rows: QuerySet[Member, Any] = Member.objects.filter(tenant_id=found.tenant_id, role__in=roles, user__is_active=True)
        if asked := people.groups_of(found):
            rows = rows.filter(user__approver_groups__tenant_id=found.tenant_id, user__approver_groups__name__in=asked).distinct()
        spoken = [one.user_id for one in found.decisions.all()]
        rows = rows.exclude(user_id__in=[self.actor.user.pk, found.starter_id or 0, *spoken])
        return list(rows.order_by("user__username").values_list("user__username", flat=True)[:4])


def needs_reason(found: Approval, verdict: str) -> bool:
    return verdict == Verdict.REJECT or (verdict == Verdict.APPROVE and step_up.is_grave(found))


def needed(found: Approval) -> int:
    """People who have to agree: whoever wrote the arguments is never the only one."""
    return max(found.needed, 2) if found.edited_by_id else found.needed


def approved(found: Approval) -> int:
    """Voices: somebody and their delegate are one."""
    return len({one.for_user_id or one.user_id for one in found.decisions.all() if one.verdict == Verdict.APPROVE})


def overdue(found: Approval) -> bool:
    return found.state == State.PENDING and found.expires_at <= timezone.now()
