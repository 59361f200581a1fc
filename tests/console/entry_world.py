"""People at the door: passwords that cost nothing to compare, and codes of their apps."""

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.test import Client

from console.entry import factors
from console.models import ConsoleSession
from tenants.actors import Actor
from tests.runtime.waiting import World, make_world

PASSWORD = "correct horse battery"
LATELY = timedelta(minutes=2)


@pytest.fixture
def door(db: None, settings: Any) -> World:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    made = make_world()
    for actor in (made.operator, made.approver):
        actor.user.set_password(PASSWORD)
        actor.user.save()
    return made


def sign_in(
    actor: Actor, password: str = PASSWORD, *, client: Client | None = None, at: str = "127.0.0.1", **more: str
) -> tuple[Client, Any]:
    client = client or Client(headers={"User-Agent": "Tests/1"})
    said = {"username": actor.user.username, "password": password} | more
    return client, client.post("/sign-in/", said, REMOTE_ADDR=at)


def with_app(actor: Actor) -> str:
    """-> the secret of the person's authenticator app. The code of this moment is still unused."""
    secret = factors.opened(factors.fresh_secret())
    factors.add_app(actor.user, secret, code(secret))
    row = Authenticator.objects.get(user=actor.user, type="totp")
    Authenticator.objects.filter(pk=row.pk).update(data={"secret": row.data["secret"]})
    return secret


def code(secret: str, steps: int = 0) -> str:
    now = list(yield_hotp_counters_from_time())[1]
    return format_hotp_value(hotp_value(secret, now + steps))


def is_in(client: Client) -> bool:
    return client.get("/tools/").status_code == 200


def key_of(client: Client) -> str:
    return client.cookies["sessionid"].value


def age(client: Client, **columns: Any) -> None:
    ConsoleSession.objects.filter(pk=key_of(client)).update(**columns)
