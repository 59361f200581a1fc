"""The human gate: the only writer of approvals.

The run's row is the lock of everything under it, and this room does not know runs: every function here expects its caller to
hold that lock (`runs.signoff`, `runs.lifecycle`, the engine's own transaction) and to be inside that transaction.
Times are the database's; each check is a statement of its own after the lock, so `Now()` (the statement's time) is after it.
"""

from datetime import UTC, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Member, User
from tenants.roles import Role, at_least

from .models import Approval, ApprovalDecision

State = Approval.State
Verdict = ApprovalDecision.Verdict
OPEN = (State.PENDING, State.APPROVED)
REASON_MAX = 2000


class Outcome(StrEnum):
    REPEATED = "repeated"  # this person said exactly this before: nothing was written
    COUNTED = "counted"  # recorded; more people have to agree
    APPROVED = "approved"
    REJECTED = "rejected"


def request(
    *,
    tenant_id: UUID,
    run_id: UUID,
    step: int,
    ord: int,
    agent: str,
    tool: str,
    tool_version_id: UUID | None,
    effect: str,
    args: bytes,
    digest: str,
    risk: str,
    why: str,
    evidence: list[dict[str, Any]],
    starter_id: int | None,
    needed: int,
    expires_s: float,
    kind: str = Approval.Kind.CALL,
) -> Approval:
    """Ask people about one call, or about more of a run's budget.

    The open approval of that place is returned if its digest is the same, and voided otherwise.
    """
    asked = {"tool_version_id": tool_version_id, "effect": effect, "args": args}
    with transaction.atomic():
        waiting = Approval.objects.select_for_update(no_key=True).filter(run_id=run_id, step=step, ord=ord, state__in=OPEN)
        for one in waiting:
            if one.digest == digest:
                return one
            _close(one, State.VOID, void_reason=f"What would be sent has changed: {_moved(one, asked)}.")
        approval = Approval.objects.create(
            tenant_id=tenant_id, run_id=run_id, step=step, ord=ord, agent=agent, tool=tool, digest=digest, risk=risk, why=why,
            evidence=evidence, kind=kind, starter_id=starter_id, needed=max(1, needed), expires_at=Now() + timedelta(seconds=expires_s),
            **asked,
        )  # fmt: skip
        approval.refresh_from_db()
    return approval


def decide(actor: Actor, approval: Approval, *, verdict: str, digest: str, reason: str = "") -> Outcome:
    """Record one person's verdict on a locked approval; `approval` is brought up to date.

    Refuses with: not_found (another tenant's), unknown_verdict 422, scope_missing, account_inactive, role_missing, own_run 403,
    already_decided (winner, verdict, at), approval_void, stale_digest (digest) 409, approval_expired 410.
    """
    if not actor.sees(approval.tenant_id):
        raise NotFound("approval")
    if verdict not in Verdict.values:
        raise Refused("unknown_verdict", "The verdict is approve or reject.", 422, known=list(Verdict.values))
    _may_decide(actor, approval)
    if approval.decisions.filter(user=actor.user, verdict=verdict, digest=digest).exists():
        return Outcome.REPEATED
    _is_open(actor, approval)
    if approval.digest != digest:
        message = "What you were shown is not what would be sent. Read it again, then decide."
        raise Refused("stale_digest", message, 409, digest=approval.digest)
    ApprovalDecision.objects.create(approval=approval, user=actor.user, verdict=verdict, digest=digest, reason=storable(reason))
    if verdict == Verdict.REJECT:
        _close(approval, State.REJECTED)
        return Outcome.REJECTED
    if approval.decisions.filter(verdict=Verdict.APPROVE).count() < approval.needed:
        return Outcome.COUNTED
    _close(approval, State.APPROVED)
    return Outcome.APPROVED


def expire(approval: Approval) -> bool:
    """pending -> expired if its time has come. False: somebody decided first, or it is too early."""
    late = Approval.objects.filter(id=approval.id, state=State.PENDING, expires_at__lte=Now())
    return bool(late.update(state=State.EXPIRED, decided_at=Now()))


def consume(approval: Approval, digest: str) -> bool:
    """approved -> consumed, in the transaction that writes the intent. `digest` is recomputed from what will be sent.

    False: send nothing. If the digest has moved, or too few of the approvers may still decide, the approval is void from
    here on, so that `request` asks anew.
    """
    approved = Approval.objects.filter(id=approval.id, state=State.APPROVED)
    current = approved.select_for_update(no_key=True).first()
    if current is None:
        return False
    if current.digest != digest:
        _close(current, State.VOID, void_reason="What would be sent has changed.")
        return False
    voices = current.decisions.filter(verdict=Verdict.APPROVE).select_related("user")
    if sum(_permitted(voice.user, current) for voice in voices) < current.needed:
        _close(current, State.VOID, void_reason="Somebody who approved this may no longer decide it.")
        return False
    return bool(approved.filter(digest=digest).update(state=State.CONSUMED))


def void(run_id: UUID, reason: str) -> list[UUID]:
    """Close every open approval of a run that will not need them any more; their ids."""
    waiting = Approval.objects.filter(run_id=run_id, state__in=OPEN)
    ids = list(waiting.order_by("id").values_list("id", flat=True))
    waiting.filter(id__in=ids).update(state=State.VOID, void_reason=reason[:200], decided_at=Now())
    return ids


def withdraw(approval_id: UUID, reason: str) -> bool:
    """Void one open approval whose call will not be sent after all. False: it was closed already."""
    waiting = Approval.objects.filter(id=approval_id, state__in=OPEN)
    return bool(waiting.update(state=State.VOID, void_reason=reason[:200], decided_at=Now()))


def least_role(approval: Approval) -> Role:
    """Who may decide: operators, and for high risk or what cannot be undone approvers."""
    grave = approval.risk != "normal" or approval.effect not in ("read", "write", Approval.Kind.BUDGET, Approval.Kind.ANSWER)
    return Role.APPROVER if grave else Role.OPERATOR


def storable(reason: str) -> str:
    """What a person typed, without what the database cannot hold. Refuses more than REASON_MAX characters."""
    if len(reason) > REASON_MAX:
        raise Refused("reason_too_long", f"A reason has at most {REASON_MAX} characters.", 422)
    return reason.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _may_decide(actor: Actor, approval: Approval) -> None:
    """By the key's scopes, and by what the database says about the person now: the request may have waited for the lock."""
    actor.need("approvals:decide")
    person = User.objects.get(pk=actor.user.pk)
    if not person.is_active:
        raise Refused("account_inactive", "This account is switched off.", 403)
    if approval.starter_id == person.pk:
        raise Refused("own_run", "You started this run, so somebody else must decide.", 403)
    least = least_role(approval)
    if not (actor.has_role(least) and _permitted(person, approval)):
        raise Refused("role_missing", f"This needs the role {least} in its tenant, or a higher one.", 403, role=str(least))


def _permitted(person: User, approval: Approval) -> bool:
    """Whether this person, as just read, holds the role that the approval asks for."""
    if not person.is_active or person.is_platform_admin:
        return person.is_active
    role = Member.objects.filter(tenant_id=approval.tenant_id, user=person).values_list("role", flat=True).first()
    return role is not None and at_least(role, least_role(approval))


def _is_open(actor: Actor, approval: Approval) -> None:
    """Pending, in time, and this person has not spoken yet."""
    decisions = approval.decisions.select_related("user").order_by("-id")
    winner = (decisions if approval.state != State.PENDING else decisions.filter(user=actor.user)).first()
    if approval.state == State.VOID:
        raise Refused("approval_void", f"Nobody needs to decide this any more. {approval.void_reason}".strip(), 409)
    overdue = Approval.objects.filter(id=approval.id, expires_at__lte=Now()).exists()
    if approval.state == State.EXPIRED or (approval.state == State.PENDING and overdue):
        raise Refused("approval_expired", "The time to decide is over.", 410)
    if winner is not None:
        at = winner.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = f"{winner.user.username} has already decided: {winner.verdict}."
        raise Refused("already_decided", message, 409, winner=winner.user.username, verdict=winner.verdict, at=at)


def _close(approval: Approval, state: State, **more: Any) -> None:
    """Move an open approval that the caller has locked; the object follows its row."""
    Approval.objects.filter(id=approval.id, state__in=OPEN).update(state=state, decided_at=Now(), **more)
    approval.refresh_from_db()


def _moved(approval: Approval, asked: dict[str, Any]) -> str:
    """Which fields differ from those a person was shown. What is in no column of its own is the destination or the key."""
    names = {"tool_version_id": "tool version", "effect": "effect", "args": "arguments"}
    moved = [label for name, label in names.items() if _plain(getattr(approval, name)) != _plain(asked[name])]
    return ", ".join(moved) or "destination or key"


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytes | memoryview) else value
