"""The password or second factor once more, before something grave in a session: a page that was left open is not its owner.

API keys are not asked: a key is a credential of its own, made for this.
"""

import time

from django.contrib.auth import logout
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest

from approvals.models import Approval
from approvals.people import ORDINARY
from console.entry import factors, required
from console.models import ConsoleSession
from tenants import audit
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import User

CHECKED, TRIES = "password_at", "password_tries"  # session keys: Unix seconds of the last check; tries since
FRESH_S = 300
MOST_TRIES = 5


def is_grave(approval: Approval) -> bool:
    """High risk, or what cannot be undone."""
    return approval.risk != "normal" or approval.effect not in ORDINARY


def asked_of(session: SessionBase, approval: Approval) -> bool:
    """Whether approving it in this session needs the password."""
    return is_grave(approval) and not is_fresh(session)


def is_fresh(session: SessionBase) -> bool:
    return 0 <= time.time() - float(session.get(CHECKED, 0)) < FRESH_S


def note(session: SessionBase) -> None:
    """The password was right just now."""
    session[CHECKED], session[TRIES] = time.time(), 0


def need(session: SessionBase, approval: Approval) -> None:
    """For the API in a session, which has no field for it. Refuses password_needed 403."""
    if asked_of(session, approval):
        raise Refused("password_needed", "This needs your password or second factor again: decide it on its page, or with an API key.", 403)


def proof_of(user: User) -> str:
    """What is asked of this person: a "code" where they have a second factor (a recovery code is one), else the "password"."""
    return "code" if required.kinds(user) else "password"


def check(request: HttpRequest, actor: Actor, typed: str) -> None:
    """Refuses: password_missing, password_wrong 422; signed_out 401, once it was wrong too often: the session has ended."""
    proof = proof_of(actor.user)
    if not typed:
        raise Refused("password_missing", f"Type your {proof}: this is a grave decision.", 422, field="password")
    tries = taken(request.session)
    if tries <= MOST_TRIES and is_right(actor.user, proof, typed):
        note(request.session)
        return
    if tries >= MOST_TRIES:
        audit.append(actor, "session.ended", "user", actor.user.pk, reason=f"The {proof} was wrong too often before a grave decision.")
        logout(request)
        raise Refused("signed_out", f"The {proof} was wrong too often, so you are signed out.", 401)
    raise Refused("password_wrong", f"That is not your {proof}.", 422, field="password")


def is_right(user: User, proof: str, typed: str) -> bool:
    if proof == "password":
        return user.check_password(typed)
    try:
        factors.check(user, typed)
    except Refused:
        return False
    return True


def taken(session: SessionBase) -> int:
    """One try, counted before the password is looked at, so that tries at once are all counted. -> how many so far."""
    with transaction.atomic():
        if not ConsoleSession.objects.select_for_update().filter(pk=session.session_key).exists():
            return MOST_TRIES + 1
        stored = type(session)(session.session_key)
        stored[TRIES] = int(stored.get(TRIES, 0)) + 1
        stored.save()
    return int(stored[TRIES])
