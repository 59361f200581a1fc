"""Invitations: an admin makes a link, and whoever opens it within a week chooses a password and is a member. Once."""

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from console.models.entry import Invitation
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Member, Tenant, User
from tenants.roles import ORDER
from tenants.scope import settle

LASTS = timedelta(days=7)


@transaction.atomic
def make(actor: Actor, username: str, email: str, role: str) -> tuple[Invitation, str]:
    """-> the invitation and its secret, which exists nowhere else. Refuses {username,email,role}_invalid, username_taken."""
    username, email = username.strip(), email.strip()
    checked(username, email, role)
    if User.objects.filter(username__iexact=username).exists():
        raise Refused("username_taken", "Somebody has this username. Choose another.", 422, field="username")
    secret = secrets.token_urlsafe(32)
    said = {"username": username, "email": email, "role": role, "made_by": actor.user}
    made = Invitation.objects.create(tenant=actor.tenant, sha256=digest(secret), expires_at=Now() + LASTS, **said)
    audit.append(actor, "invitation.made", "invitation", made.pk, after={"username": username, "role": role})
    return made, secret


def checked(username: str, email: str, role: str) -> None:
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError:
        raise Refused("username_invalid", "A username has letters, digits and @ . + - _ only.", 422, field="username") from None
    if len(username) > 150:
        raise Refused("username_invalid", "A username has 150 characters at most.", 422, field="username")
    try:
        validate_email(email) if email else None
    except ValidationError:
        raise Refused("email_invalid", "That is not an e-mail address.", 422, field="email") from None
    if role not in ORDER:
        raise Refused("role_invalid", "Choose a role.", 422, field="role")


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def open_ones(tenant: Tenant) -> QuerySet[Invitation]:
    return Invitation.objects.filter(tenant=tenant, ended_at=None, expires_at__gt=Now()).order_by("-id")


def find(secret: str) -> Invitation:
    """Raises NotFound: unknown, used, withdrawn, too old, or of a tenant that is off. The same for all."""
    usable = Invitation.objects.filter(ended_at=None, expires_at__gt=Now(), tenant__active=True)
    found = usable.select_related("tenant").filter(sha256=digest(secret)).first()
    if found is None:
        raise NotFound("invitation")
    return found


@transaction.atomic
def withdraw(actor: Actor, key: str) -> bool:
    gone = open_ones(actor.tenant).filter(pk=int(key) if key.isdigit() else 0).update(ended_at=Now())
    if gone:
        audit.append(actor, "invitation.withdrawn", "invitation", key)
    return bool(gone)


@transaction.atomic
def accept(secret: str, password: str) -> User:
    """Refuses password_weak, username_taken 422. Raises NotFound, also for the second of two at once."""
    found = find(secret)
    if Invitation.objects.filter(pk=found.pk, ended_at=None, expires_at__gt=Now()).update(ended_at=Now()) != 1:
        raise NotFound("invitation")
    user = User(username=found.username, email=found.email)
    strong(password, user)
    if User.objects.filter(username__iexact=found.username).exists():
        raise Refused("username_taken", "Somebody has taken this username since. Ask for another invitation.", 422)
    user.set_password(password)
    user.save()
    member = Member.objects.create(tenant=found.tenant, user=user, role=found.role)
    settle((found.tenant_id,))
    audit.append(user, "member.joined", "member", member.pk, after={"username": user.username, "role": member.role}, tenant=found.tenant)
    return user


def strong(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as weak:
        raise Refused("password_weak", " ".join(weak.messages), 422, field="password") from None
