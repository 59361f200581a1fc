"""Who may decide an approval, as the database says now: role, tenant, group, delegation. Asked again when it is consumed."""

from datetime import UTC, datetime, timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now

from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import Member, User
from tenants.roles import Role, at_least

from .models import Approval, Delegation, Group

__all__ = ["instant", "least_role", "may_decide", "new_id", "permitted", "seconds"]
ORDINARY = ("read", "write", Approval.Kind.BUDGET, Approval.Kind.ANSWER)


def least_role(approval: Approval) -> Role:
    """Operators, and for high risk or what cannot be undone approvers."""
    grave = approval.risk != "normal" or approval.effect not in ORDINARY
    return Role.APPROVER if grave else Role.OPERATOR


def may_decide(actor: Actor, approval: Approval, *, break_glass: bool = False) -> User | None:
    """Refuses those who may not, by the key's scopes and by what is true now: the request may have waited for the lock.

    -> the person they stand in for, where that is what lets them decide.
    """
    actor.need("approvals:decide")
    person = User.objects.get(pk=actor.user.pk)
    if not person.is_active:
        raise Refused("account_inactive", "This account is switched off.", 403)
    if approval.starter_id == person.pk:
        raise Refused("own_run", "You started this run, so somebody else must decide.", 403)
    least = Role.APPROVER if break_glass else least_role(approval)
    if actor.has_role(least) and permitted(person, approval, break_glass=break_glass):
        return None
    for delegation in _delegated(person, approval):
        if delegation.of_id != approval.starter_id and permitted(delegation.of, approval):
            return delegation.of
    if not (actor.has_role(least) and _has_role(person, approval, least)):
        raise Refused("role_missing", f"This needs the role {least} in its tenant, or a higher one.", 403, role=str(least))
    asked = groups_of(approval) or [approval.group]
    raise Refused("not_in_group", f"The group {' or '.join(asked)} decides this.", 403, group=approval.group)


def permitted(person: User, approval: Approval, *, break_glass: bool = False, of: User | None = None) -> bool:
    """Whether this person, as just read, may decide it. `of`: only as long as they stand in for that one."""
    if of is not None:
        stands_in = _delegated(person, approval).filter(of=of).exists()
        return person.is_active and stands_in and permitted(of, approval)
    if not person.is_active or not _has_role(person, approval, Role.APPROVER if break_glass else least_role(approval)):
        return False
    return break_glass or not approval.group or _in_group(person, approval)


def _has_role(person: User, approval: Approval, least: Role) -> bool:
    if person.is_platform_admin:
        return True
    role = Member.objects.filter(tenant_id=approval.tenant_id, user=person).values_list("role", flat=True).first()
    return role is not None and at_least(role, least)


def _in_group(person: User, approval: Approval) -> bool:
    """In the group that is asked, or, once half of the time is over, in the one it escalates to. A group that is gone decides nothing."""
    names = groups_of(approval)
    return Group.objects.filter(tenant_id=approval.tenant_id, name__in=names, people=person).exists()


def groups_of(approval: Approval) -> list[str]:
    """Which groups decide now, the one that was asked first. Empty: everybody with the role."""
    if not approval.group or approval.escalated_at is None:
        return [approval.group] if approval.group else []
    asked = Group.objects.filter(tenant_id=approval.tenant_id, name=approval.group).first()
    return [approval.group, *([asked.escalates_to] if asked and asked.escalates_to else [])]


def _delegated(person: User, approval: Approval) -> "QuerySet[Delegation]":
    """Delegations to this person that hold now. A delegate is a member of the tenant all the same."""
    if not Member.objects.filter(tenant_id=approval.tenant_id, user=person).exists():
        return Delegation.objects.none()
    rows = Delegation.objects.filter(tenant_id=approval.tenant_id, to=person, until__gt=Now(), revoked_at__isnull=True)
    return rows.select_related("of").order_by("id")


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
