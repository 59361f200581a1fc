"""The identity provider opens the door to who is a user already, by an e-mail address that it has verified."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPErrorProcessor, Request, build_opener

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from oidc_provider_mock import run_server_in_thread

from tenants.models import User
from tests.runtime.waiting import World

from .entry_world import door, is_in, with_app

pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config")  # within the mock
__all__ = ["door"]


class Stay(HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with build_opener(Stay).open(Request(url, body, named, method=method), timeout=30) as answer:
        return answer.status, answer.headers, answer.read()


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def provider(issuer: str, settings: Any, door: World) -> str:
    app = {"provider_id": "oidc", "name": "Example", "client_id": "signalbox", "secret": "s", "settings": {"server_url": issuer}}
    settings.OIDC_ISSUER, settings.OIDC_NAME = issuer, "Example"
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}
    User.objects.filter(pk=door.operator.user.pk).update(email="otto@example.com")
    return issuer


def come(provider: str, **claims: Any) -> tuple[Client, Any]:
    """Through the provider and back, as somebody with these claims."""
    client = Client()
    away = client.get("/sign-in/oidc/?next=/tools/")
    assert away.status_code == 302 and away["Location"].startswith(provider)
    ask(f"{provider}/users/somebody", "PUT", json.dumps(claims).encode(), Content_Type="application/json")
    said = b"sub=somebody&action=authorize"
    _, headers, _ = ask(away["Location"], "POST", said, Content_Type="application/x-www-form-urlencoded")
    back = urlsplit(headers["Location"])
    assert back.path == "/sign-in/oidc/callback/" and "code" in parse_qs(back.query)
    return client, client.get(f"{back.path}?{back.query}")


def test_a_user_with_the_verified_address_comes_in(provider: str) -> None:
    client, answer = come(provider, email="Otto@example.com", email_verified=True)
    assert (answer.status_code, answer["Location"]) == (302, "/tools/") and is_in(client)


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "otto@example.com", "email_verified": False},
        {"email": "otto@example.com"},
        {"email": "otto@example.com", "email_verified": "true"},
        {"email": "nobody@example.com", "email_verified": True},
        {"email": "", "email_verified": True},
        {"email_verified": True},
    ],
)
def test_nobody_else_does_and_nobody_is_made(provider: str, claims: dict[str, Any]) -> None:
    before = User.objects.count()
    client, answer = come(provider, **claims)
    assert answer["Location"] == "/sign-in/?refused=1" and not is_in(client) and User.objects.count() == before
    assert "That way in is not known here." in client.get(answer["Location"]).content.decode()


@pytest.mark.parametrize("change", ["two", "off"])
def test_an_address_of_two_users_or_of_one_who_is_off_opens_nothing(provider: str, door: World, change: str) -> None:
    if change == "two":
        User.objects.filter(pk=door.approver.user.pk).update(email="OTTO@example.com")
    else:
        User.objects.filter(pk=door.operator.user.pk).update(is_active=False)
    client, answer = come(provider, email="otto@example.com", email_verified=True)
    assert answer["Location"] == "/sign-in/?refused=1" and not is_in(client)


def test_the_second_factor_is_asked_for_all_the_same(provider: str, door: World) -> None:
    with_app(door.operator)
    client, answer = come(provider, email="otto@example.com", email_verified=True)
    assert answer["Location"] == "/sign-in/second/" and not is_in(client) and Authenticator.objects.exists()


def test_an_answer_that_nobody_asked_for_opens_nothing(provider: str) -> None:
    client = Client()
    assert client.get("/sign-in/oidc/callback/?code=x&state=y")["Location"] == "/sign-in/?refused=1"


def test_a_link_of_another_site_does_not_begin_it(provider: str) -> None:
    answer = Client().get("/sign-in/oidc/", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer["Location"] == "/sign-in/"


def test_a_provider_that_is_away_is_a_refusal(provider: str, settings: Any) -> None:
    app = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"][0]
    app["settings"] = {"server_url": "http://127.0.0.1:9"}
    assert Client().get("/sign-in/oidc/")["Location"] == "/sign-in/?refused=1"


def test_without_a_provider_there_is_no_such_address(db: None) -> None:
    assert Client().get("/sign-in/oidc/").status_code == 404 == Client().get("/sign-in/oidc/callback/").status_code
    assert "identity provider" not in Client().get("/sign-in/").content.decode()
