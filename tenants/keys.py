"""API keys: `sbx_<id>_<secret>`. A key acts as the member it belongs to, narrowed by its scopes."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.db.models import F, Q
from django.db.models.functions import Coalesce, Least
from django.utils import timezone

from .actors import Actor
from .errors import Refused
from .ids import ALPHABET
from .models import ApiKey, Member
from .roles import SCOPES

SHAPE = re.compile(r"sbx_([0-9A-HJKMNP-TV-Z]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
USE_IS_NOTED_EVERY = timedelta(minutes=1)
NOBODY = bytes(32)  # compared against when no key has this id, so that the work is the same


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def draw(key: ApiKey) -> str:
    """Give an unsaved key its id and secret. Returns the plain text, which exists nowhere else afterwards."""
    secret = secrets.token_urlsafe(32)
    key.id = "".join(secrets.choice(ALPHABET) for _ in range(12))
    key.sha256 = digest(secret)
    return f"sbx_{key.id}_{secret}"


def issue(member: Member, name: str, scopes: Iterable[str], expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Returns the stored key and its plain text `sbx_<id>_<secret>`. The caller audits.

    Raises Refused(422): `unknown_scope`, `no_scopes`, `already_expired`.
    """
    wanted = set(scopes)
    if unknown := sorted(wanted.difference(SCOPES)):
        raise Refused("unknown_scope", f"There is no scope {unknown[0]}.", scopes=list(SCOPES))
    if not wanted:
        raise Refused("no_scopes", "A key without scopes could do nothing: name at least one.", scopes=list(SCOPES))
    if expires_at is not None and expires_at <= timezone.now():
        raise Refused("already_expired", "The key would have expired before its first use.")
    key = ApiKey(member=member, name=name, scopes=[scope for scope in SCOPES if scope in wanted], expires_at=expires_at)
    text = draw(key)
    key.save(force_insert=True)
    return key, text


def verify(text: str, now: datetime | None = None, *, beside: str = "member", allows: Callable[[ApiKey], bool] | None = None) -> Actor:
    """The member behind a key's plain text. Raises Refused("unauthorized", 401), the same for every reason.

    `allows`: what else the caller asks of the key; `beside`: the relation that it looks at, read with the key.
    """
    now = now or timezone.now()
    match = SHAPE.fullmatch(text)
    key_id, secret = match.groups() if match else ("", "")
    key = ApiKey.objects.select_related("member__user", "member__tenant", beside).filter(id=key_id).first() if match else None
    same = hmac.compare_digest(bytes(key.sha256) if key else NOBODY, digest(secret))
    if key is None or not same or not _usable(key, now) or not (allows is None or allows(key)):
        why = "The API key is unknown, expired, revoked or not for your address, or its owner is not active."
        raise Refused("unauthorized", why, 401)
    _note_use(key, now)
    return Actor(key.member.user, key.member.tenant, key.member.role, frozenset(key.scopes))


def revoke(key: ApiKey, now: datetime | None = None) -> bool:
    """False: it was revoked before."""
    return ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now or timezone.now()) == 1


def run_out(key: ApiKey, at: datetime, now: datetime | None = None) -> bool:
    """It ends `at`, unless it ends sooner by itself. False: it has ended."""
    live = ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now or timezone.now()), pk=key.pk, revoked_at=None)
    return live.update(expires_at=Least(Coalesce(F("expires_at"), at), at)) == 1


def _usable(key: ApiKey, now: datetime) -> bool:
    in_time = key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
    return in_time and key.member.user.is_active and key.member.tenant.active


def _note_use(key: ApiKey, now: datetime) -> None:
    """At most one write a minute however busy the key is; the condition is repeated in SQL for those who race here."""
    before = now - USE_IS_NOTED_EVERY
    if key.last_used_at is None or key.last_used_at <= before:
        due = Q(last_used_at=None) | Q(last_used_at__lte=before)
        ApiKey.objects.filter(due, pk=key.pk).update(last_used_at=now)
