"""Second factors: a code from an authenticator app, a passkey, a recovery code. Their rows and their mathematics are allauth's.

Secrets are sealed with SEALING_KEYS. A code works once, in whichever process it arrives.
"""

import base64
import json
import time
from io import BytesIO
from typing import Any
from uuid import UUID

import qrcode
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value, yield_hotp_counters_from_time
from allauth.mfa.webauthn.internal import auth as webauthn
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare
from qrcode.image.svg import SvgPathImage

from console.api.identity import actor_for
from console.entry import guesses
from console.entry.required import Kind, kinds
from tenants import audit, credentials
from tenants.errors import Refused
from tenants.models import User

NOWHERE = UUID(int=0)  # factors belong to people, not to tenants
SEALED_AS = "second factor"


class Adapter(DefaultMFAAdapter):
    """`MFA_ADAPTER`: what allauth asks us."""

    def encrypt(self, text: str) -> str:
        return credentials.seal(NOWHERE, SEALED_AS, text).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return credentials.open(NOWHERE, SEALED_AS, encrypted_text.encode())

    def _get_site_name(self) -> str:
        return "Signalbox"


# authenticator apps -----------------------------------------------------------------------------------------------------------


def fresh_secret() -> str:
    """Sealed: it waits in the session until the app has shown that it knows it."""
    return Adapter().encrypt(generate_totp_secret())


def opened(sealed: str) -> str:
    return Adapter().decrypt(sealed)


def picture(user: User, secret: str) -> str:
    """The QR code, as the address of an image."""
    drawn = BytesIO()
    qrcode.make(Adapter().build_totp_url(user, secret), image_factory=SvgPathImage).save(drawn)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue()).decode()}"


def counter_of(secret: str, code: str) -> int | None:
    """The half minute that the code is for, if it is of now or of the ones beside it."""
    said = code.replace(" ", "")
    right = [n for n in yield_hotp_counters_from_time() if constant_time_compare(format_hotp_value(hotp_value(secret, n)), said)]
    return right[-1] if right else None


@transaction.atomic
def add_app(user: User, secret: str, code: str) -> None:
    """Refuses code_wrong 422, and app_there 409."""
    counter = counter_of(secret, code)
    if counter is None:
        raise Refused("code_wrong", "That code does not fit. Is the clock of the phone right?", 422, field="code")
    if Authenticator.objects.filter(user=user, type=Kind.TOTP).exists():
        raise Refused("app_there", "There is an authenticator app already: remove it first.", 409)
    row = TOTP.activate(user, secret).instance
    used(row, counter)
    noted(user, "second_factor.added", row)


def used(row: Authenticator, counter: int) -> bool:
    """Guarded: False when this code, or a later one, has been used."""
    fits = Q(data__counter__lt=counter) | Q(data__counter__isnull=True)
    there = Authenticator.objects.filter(fits, pk=row.pk)
    changed: int = there.update(data=row.data | {"counter": counter}, last_used_at=Now())
    return changed == 1


def fits(user: User, said: str) -> bool:
    """Whether it is a code of the person's app or one of their recovery codes, not used before; it is used now."""
    rows = {row.type: row for row in Authenticator.objects.filter(user=user, type__in=(Kind.TOTP, Kind.RECOVERY_CODES))}
    app, codes = rows.get(Kind.TOTP), rows.get(Kind.RECOVERY_CODES)
    counter = counter_of(Adapter().decrypt(app.data["secret"]), said) if app else None
    if app and counter is not None:
        return used(app, counter)
    if codes and RecoveryCodes(codes).validate_code(said):
        noted(user, "recovery_code.used", codes)
        return True
    return False


def check(user: User, said: str) -> None:
    """Refuses: code_missing, code_wrong 422. Tries are counted for the person, from wherever they come."""
    if not said.strip():
        raise Refused("code_missing", "Type the code of your authenticator app, or a recovery code.", 422, field="code")
    account = guesses.factor_of(user)
    shut = guesses.locked(account)
    if shut or not fits(user, said.strip()):
        raise Refused("code_wrong", "That code does not fit, or was used before.", 422, field="code")
    guesses.forget(account)


# passkeys ---------------------------------------------------------------------------------------------------------------------


def to_make(user: User) -> dict[str, Any]:
    """What the browser needs to make one, as it reads it. Its challenge waits in the session."""
    return plain(webauthn.begin_registration(user, passwordless=True))


def to_show(user: User | None) -> dict[str, Any]:
    """What the browser needs to use one: of this person, or of whoever has one for this place."""
    return plain(webauthn.begin_authentication(user))


def plain(options: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(options, default=dict))["publicKey"]
    return made


@transaction.atomic
def add_passkey(user: User, name: str, said: str) -> None:
    """Refuses passkey_wrong 422."""
    try:
        answer = json.loads(said)
        webauthn.complete_registration(webauthn.parse_registration_response(answer))
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError):
        raise Refused("passkey_wrong", "That did not work. Load the page again and try once more.", 422) from None
    row = webauthn.WebAuthn.add(user, name.strip()[:60] or "Passkey", answer).instance
    noted(user, "second_factor.added", row)


def shown_passkey(said: str, user: User | None = None) -> User:
    """Whose passkey it is; of `user` alone, when given. Refuses passkey_wrong 422."""
    try:
        answer = json.loads(said)
        person = user or webauthn.extract_user_from_response(answer)
        row = webauthn.complete_authentication(person, webauthn.parse_authentication_response(answer))
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError):
        raise Refused("passkey_wrong", "That passkey is not known here.", 422) from None
    row.record_usage()
    if not isinstance(person, User) or not person.is_active:
        raise Refused("passkey_wrong", "That passkey is not known here.", 422)
    return person


# recovery codes and the list --------------------------------------------------------------------------------------------------


@transaction.atomic
def fresh_codes(user: User) -> list[str]:
    """New recovery codes; the old ones work no longer. They are shown once."""
    Authenticator.objects.filter(user=user, type=Kind.RECOVERY_CODES).delete()
    made = RecoveryCodes.activate(user)
    noted(user, "recovery_codes.made", made.instance)
    return list(made.get_unused_codes())


def codes_left(user: User) -> int:
    row = Authenticator.objects.filter(user=user, type=Kind.RECOVERY_CODES).first()
    return len(RecoveryCodes(row).get_unused_codes()) if row else 0


def of(user: User) -> list[Authenticator]:
    return list(Authenticator.objects.filter(user=user).exclude(type=Kind.RECOVERY_CODES).order_by("created_at"))


@transaction.atomic
def remove(user: User, key: str) -> bool:
    """One of the person's own. With the last of them the recovery codes go."""
    row = Authenticator.objects.filter(user=user, pk=key if key.isdigit() else None).exclude(type=Kind.RECOVERY_CODES).first()
    if row is None:
        return False
    noted(user, "second_factor.removed", row)
    row.delete()
    if not kinds(user):
        Authenticator.objects.filter(user=user).delete()
    return True


def noted(user: User, action: str, row: Authenticator) -> None:
    audit.append(actor_for(user), action, "user", user.pk, after={"factor": row.type, "at": int(time.time())})


def reset(user: User) -> None:
    """All of them, recovery codes included. The caller audits and ends the sessions."""
    Authenticator.objects.filter(user=user).delete()
