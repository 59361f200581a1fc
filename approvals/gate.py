"""The human gate: the only writer of approvals.

The run's row is the lock of everything under it, and this room does not know runs: every function here expects its caller to
hold that lock (`runs.signoff`, `runs.lifecycle`, the engine's own transaction) and to be inside that transaction.
Times are the database's; each check is a statement of its own after the lock, so `Now()` (the statement's time) is after it.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from . import people, standing
from .digest import moved
from .models import Approval, ApprovalDecision, GlassReview

State = Approval.State
Verdict = ApprovalDecision.Verdict
OPEN = (State.PENDING, State.APPROVED)
REASON_MAX = 2000
BREAK_GLASS_REASON_MIN = 10
Voice = tuple[int, int | None]  # who said yes, and in whose name


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
    sealed: Mapping[str, str | None] | None = None,
    group: str = "",
    replaces: UUID | None = None,
    preview: Mapping[str, Any] | None = None,
) -> Approval:
    """Ask people about one call, one answer, or more of a run's budget.

    The open approval of that place is returned if its digest is the same, and voided otherwise.
    """
    asked = {"tool_version_id": tool_version_id, "effect": effect, "args": args}
    with transaction.atomic():
        waiting = Approval.objects.select_for_update(no_key=True).filter(run_id=run_id, step=step, ord=ord, state__in=OPEN)
        for one in waiting:
            if one.digest == digest:
                return one
            _close(one, State.VOID, void_reason=f"What would be sent has changed: {_moved(one, asked, sealed or {})}."[:200])
            replaces = one.id
        approval = Approval.objects.create(
            tenant_id=tenant_id, run_id=run_id, step=step, ord=ord, agent=agent, tool=tool, digest=digest, risk=risk, why=why,
            evidence=evidence, kind=kind, starter_id=starter_id, needed=max(1, needed), sealed=dict(sealed or {}), group=group,
            replaces=replaces, preview=preview, expires_at=Now() + people.seconds(expires_s), **asked,
        )  # fmt: skip
        approval.refresh_from_db()
    return approval


def decide(
    actor: Actor, approval: Approval, *, verdict: str, digest: str, reason: str = "", surface: str = "", break_glass: bool = False
) -> Outcome:
    """Record one person's verdict on a locked approval; `approval` is brought up to date.

    `break_glass`: approve alone what needs more people or a group, for a reason that others review afterwards.
    Refuses with: not_found (another tenant's), unknown_verdict, reason_missing 422, scope_missing, account_inactive, role_missing,
    not_in_group, own_run 403, already_decided (winner, verdict, at), approval_void, stale_digest (digest) 409, approval_expired 410.
    """
    if not actor.sees(approval.tenant_id):
        raise NotFound("approval")
    if verdict not in Verdict.values:
        raise Refused("unknown_verdict", "The verdict is approve or reject.", 422, known=list(Verdict.values))
    standing_for = people.may_decide(actor, approval, break_glass=break_glass)
    if approval.decisions.filter(user=actor.user, verdict=verdict, digest=digest).exists():
        return Outcome.REPEATED
    _is_open(actor, approval)
    _is_shown(approval, digest)
    if break_glass and len(reason.strip()) < BREAK_GLASS_REASON_MIN:
        message = f"Breaking the glass needs a reason of at least {BREAK_GLASS_REASON_MIN} characters: others will read it."
        raise Refused("reason_missing", message, 422, field="reason")
    ApprovalDecision.objects.create(
        approval=approval, user=actor.user, verdict=verdict, digest=digest, reason=storable(reason), surface=surface,
        break_glass=break_glass, for_user=standing_for,
    )  # fmt: skip
    if break_glass:
        GlassReview.objects.create(approval=approval, tenant_id=approval.tenant_id)
    if verdict == Verdict.REJECT:
        _close(approval, State.REJECTED)
        return Outcome.REJECTED
    if not (break_glass or agreed(approval)):
        return Outcome.COUNTED
    _close(approval, State.APPROVED)
    return Outcome.APPROVED


def edit(
    actor: Actor, approval: Approval, *, args: bytes, sealed: Mapping[str, str | None], digest: str, shown: str, reason: str
) -> Approval:
    """Replace a locked request by one with other arguments; earlier yeses are gone, the editor's counts for the new one.

    `shown`: the digest that the editor saw; `sealed`, `digest`: of what would be sent now. -> the new request, approved if that is
    enough already. The editor alone never is. Refuses as `decide`.
    """
    if not actor.sees(approval.tenant_id):
        raise NotFound("approval")
    standing_for = people.may_decide(actor, approval)
    _is_open(actor, approval, again=True)
    _is_shown(approval, shown)
    old = approval.id
    _close(approval, State.VOID, void_reason=f"{actor.user.username} edited the arguments."[:200])
    made = Approval.objects.get(pk=old)
    made.pk, made._state.adding = None, True
    made.id = people.new_id()
    made.state, made.void_reason, made.decided_at = State.PENDING, "", None
    made.proposed = approval.proposed or approval.args
    if made.preview and "after" in made.preview:  # of the other arguments
        made.preview = {name: made.preview[name] for name in ("at", "before")}
    made.args, made.sealed, made.digest, made.replaces, made.edited_by = args, dict(sealed), digest, old, actor.user
    made.save(force_insert=True)
    made.refresh_from_db()
    ApprovalDecision.objects.create(
        approval=made, user=actor.user, verdict=Verdict.APPROVE, digest=digest, reason=storable(reason), for_user=standing_for
    )
    if agreed(made):
        _close(made, State.APPROVED)
    return made


def agreed(approval: Approval) -> bool:
    """Enough people said yes."""
    return _enough(approval, set(approval.decisions.filter(verdict=Verdict.APPROVE).values_list("user_id", "for_user_id")))


def _enough(approval: Approval, said: set[Voice]) -> bool:
    """So many people, and not only the one who wrote what they agree to. Somebody and their delegate are one voice."""
    return len({of or user for user, of in said}) >= approval.needed and _seconded(approval, said)


def _seconded(approval: Approval, said: set[Voice]) -> bool:
    """Whether somebody besides the editor agrees, and not in the editor's name."""
    editor = approval.edited_by_id
    return editor is None or any(editor not in voice for voice in said)


def expire(approval: Approval) -> bool:
    """pending -> expired if its time has come. False: somebody decided first, or it is too early."""
    late = Approval.objects.filter(id=approval.id, state=State.PENDING, expires_at__lte=Now())
    return bool(late.update(state=State.EXPIRED, decided_at=Now()))


def consume(approval: Approval, digest: str, sealed: Mapping[str, str | None] | None = None) -> bool:
    """approved -> consumed, in the transaction that writes the intent. `digest` is recomputed from what will be sent.

    False: send nothing. If anything has moved, or those who approved may no longer decide, the approval is void from here on, its
    reason says why, and `request` asks anew.
    """
    approved = Approval.objects.filter(id=approval.id, state=State.APPROVED)
    current = approved.select_for_update(no_key=True).first()
    if current is None:
        return False
    if why := _spoiled(current, digest, sealed):
        _close(current, State.VOID, void_reason=why[:200])
        approval.refresh_from_db()
        return False
    return bool(approved.filter(digest=digest).update(state=State.CONSUMED))


def _spoiled(current: Approval, digest: str, sealed: Mapping[str, str | None] | None) -> str:
    """Why an approval cannot be used any more; empty when it can."""
    if current.digest != digest:
        drift = moved(current.sealed, sealed or {}) if current.sealed and sealed else ""
        return f"What would be sent has changed: {drift}." if drift else "What would be sent has changed."
    if sealed and not _as_shown(current, sealed):
        return "What people were shown is not what would be sent: arguments."
    late = Approval.objects.filter(id=current.id, decided_at__lte=Now() - people.seconds(settings.APPROVAL_EXECUTE_WITHIN_S))
    if late.exists():
        return "It was approved too long ago."
    if current.grant_id is not None:
        return "" if standing.holds(current) else "The standing grant was withdrawn."
    voices = list(current.decisions.filter(verdict=Verdict.APPROVE).select_related("user", "for_user"))
    if any(voice.break_glass and people.permitted(voice.user, current, break_glass=True) for voice in voices):
        return ""
    held = {(voice.user_id, voice.for_user_id) for voice in voices if people.permitted(voice.user, current, of=voice.for_user)}
    return "" if _enough(current, held) else "Somebody who approved this may no longer decide it."


def _as_shown(current: Approval, sealed: Mapping[str, str | None]) -> bool:
    """The digest covers what would be sent; these are the bytes that were on people's screens."""
    return hashlib.sha256(bytes(current.args)).hexdigest() == sealed["args_sha256"]


def use_up(approval: Approval) -> bool:
    """approved -> consumed, where what was approved happens in the transaction of the last yes."""
    used = bool(Approval.objects.filter(id=approval.id, state=State.APPROVED).update(state=State.CONSUMED))
    approval.refresh_from_db()
    return used


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


def use_grant(approval: Approval, fits: standing.Fits) -> bool:
    """pending -> approved by a standing grant that fits, one of its uses taken. False: people decide."""
    grant = standing.take(approval, fits)
    if grant is None:
        return False
    Approval.objects.filter(id=approval.id, state=State.PENDING).update(state=State.APPROVED, grant=grant, decided_at=Now())
    approval.refresh_from_db()
    return True


def remind(approval: Approval, number: int) -> bool:
    """Count a reminder. False: it was counted before, or nobody has to decide any more."""
    waiting = Approval.objects.filter(id=approval.id, state=State.PENDING, expires_at__gt=Now(), reminders__lt=number)
    return bool(waiting.update(reminders=number))


def escalate(approval: Approval) -> bool:
    """From now on those that its group escalates to may decide it too. False: they may already, or nobody has to any more."""
    waiting = Approval.objects.filter(id=approval.id, state=State.PENDING, expires_at__gt=Now(), escalated_at__isnull=True)
    return bool(waiting.update(escalated_at=Now()))


def storable(reason: str) -> str:
    """What a person typed, without what the database cannot hold. Refuses more than REASON_MAX characters."""
    if len(reason) > REASON_MAX:
        raise Refused("reason_too_long", f"A reason has at most {REASON_MAX} characters.", 422)
    return reason.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _is_shown(approval: Approval, digest: str) -> None:
    if approval.digest != digest:
        message = "What you were shown is not what would be sent. Read it again, then decide."
        raise Refused("stale_digest", message, 409, digest=approval.digest)


def _is_open(actor: Actor, approval: Approval, *, again: bool = False) -> None:
    """Pending, in time, and this person has not spoken yet (`again`: or may, for a new version)."""
    decisions = approval.decisions.select_related("user").order_by("-id")
    mine = decisions.none() if again else decisions.filter(user=actor.user)
    winner = (decisions if approval.state != State.PENDING else mine).first()
    if approval.state == State.VOID:
        raise Refused("approval_void", f"Nobody needs to decide this any more. {approval.void_reason}".strip(), 409)
    overdue = Approval.objects.filter(id=approval.id, expires_at__lte=Now()).exists()
    if approval.state == State.EXPIRED or (approval.state == State.PENDING and overdue):
        raise Refused("approval_expired", "The time to decide is over.", 410)
    if winner is not None:
        message = f"{winner.user.username} has already decided: {winner.verdict}."
        at = people.instant(winner.at)
        raise Refused("already_decided", message, 409, winner=winner.user.username, verdict=winner.verdict, at=at)
    if approval.grant_id is not None:
        raise Refused("already_decided", "A standing grant has already approved this.", 409, winner="standing grant", verdict="approve")


def _close(approval: Approval, state: State, **more: Any) -> None:
    """Move an open approval that the caller has locked; the object follows its row."""
    Approval.objects.filter(id=approval.id, state__in=OPEN).update(state=state, decided_at=Now(), **more)
    approval.refresh_from_db()


def _moved(approval: Approval, asked: dict[str, Any], sealed: Mapping[str, str | None]) -> str:
    """Which fields differ from those a person was shown."""
    if approval.sealed and sealed:
        return moved(approval.sealed, sealed) or "something"
    names = {"tool_version_id": "tool version", "effect": "effect", "args": "arguments"}
    found = [label for name, label in names.items() if _plain(getattr(approval, name)) != _plain(asked[name])]
    return ", ".join(found) or "destination or key"


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytes | memoryview) else value
