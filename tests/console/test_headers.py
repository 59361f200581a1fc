"""The strict policy is on every answer: pages, errors, the admin, the API, and where nobody is signed in."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.test import Client
from django.urls import path

from console import errors
from console.csp import HEADERS
from console.deploy_checks import warnings
from tenants.models import Controls, Member, Tenant, User
from tests.acceptance.crawl import PLACE, routes
from tests.crash.figures import figure

ROOT = Path(__file__).resolve().parents[2]

ADDRESSES = (
    "/", "/runs/", "/runs/new/", "/approvals/", "/tools/", "/unknowns/", "/switches/", "/switches/new/", "/sign-in/", "/nothing",
    "/sign-in/second/", "/sign-in/passkey/", "/sign-in/oidc/", "/sign-in/oidc/callback/", "/invitation/x/", "/settings/members/",
    "/settings/security/", "/settings/security/confirm/", "/settings/security/password/", "/settings/security/app/",
    "/settings/security/passkey/", "/settings/security/codes/", "/settings/security/remove/", "/settings/preferences/", "/settings/keys/",
    "/runs/agt_no/",
    "/admin/login/", "/admin/", "/api/v1/docs/", "/api/v1/runs", "/api/v1/nothing", "/healthz", "/readyz", "/static/theme.js",
)  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_policy(db: None, address: str, known: bool) -> None:
    client = Client()
    if known:
        tenant = Tenant.objects.create(slug="acme")
        Controls.objects.get_or_create(tenant=tenant)
        person = User.objects.create(username="ann", is_staff=True)
        Member.objects.create(tenant=tenant, user=person, role="admin")
        client.force_login(person)
    answer = client.get(address)
    assert answer.status_code < 500 or address == "/readyz"
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert address.startswith("/static/") or answer.headers["X-Request-Id"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_address_of_the_installation_carries_the_policy(db: None, settings: Any, scheme: str) -> None:
    """By the URLconf, so that an address of tomorrow is looked at too. What people see of it: `tests/console/test_rights.py`."""
    safe = scheme == "https"
    if safe:  # as `console.settings` has it where PUBLIC_URL is https: the last test but one shows that
        settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
        settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    client, found, began = Client(raise_request_exception=False), routes(), time.monotonic()
    cookies, misses = Counter[str](), []
    for route in found:
        answer = client.get(PLACE.sub("x", route.pattern), secure=safe)
        misses += [(route.pattern, what) for what in missing(answer, safe)]
        cookies.update(answer.cookies.keys())
    assert misses == [] and len(found) > 200 and cookies
    figure("T59", f"headers, policy and cookies at every address of the URLconf, over {scheme}", n=len(found),
           seconds=time.monotonic() - began, cookies=sum(cookies.values()), misses=len(misses))  # fmt: skip


def missing(answer: Any, safe: bool) -> list[str]:
    """What an answer lacks, in words."""
    wanted = HEADERS | {"X-Frame-Options": "DENY"}
    lacks = [name for name, value in wanted.items() if answer.headers.get(name) != value]
    lacks += [] if answer.headers.get("X-Request-Id") else ["X-Request-Id"]
    for name, cookie in answer.cookies.items():
        plain = cookie["samesite"] == "Lax" and cookie["path"] == "/" and not cookie["domain"]
        hidden = bool(cookie["httponly"]) or name.endswith(("csrf", "csrftoken"))
        kept = not safe or (cookie["secure"] and name.startswith("__Host-"))
        lacks += [] if plain and hidden and kept else [f"cookie {cookie.OutputString()}"]
    return lacks


def fails(request: Any) -> Any:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(("address", "status"), [("/fails/", 500), ("/api/fails", 500), ("/nowhere", 404), ("/api/nowhere", 404)])
def test_what_fails_and_what_is_not_there_carries_the_policy(db: None, settings: Any, address: str, status: int) -> None:
    addresses = ModuleType("failing")
    addresses.urlpatterns = [path("fails/", fails), path("api/fails", fails)]  # type: ignore[attr-defined]
    addresses.handler404, addresses.handler500 = errors.not_found, errors.server_error  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = addresses
    answer = Client(raise_request_exception=False).get(address)
    assert (answer.status_code, missing(answer, False)) == (status, [])


def test_over_https_browsers_are_told_to_stay_there(db: None, settings: Any) -> None:
    client = Client()
    assert "Strict-Transport-Security" not in client.get("/sign-in/").headers
    settings.SECURE_HSTS_SECONDS = 60
    for address in ("/sign-in/", "/healthz", "/static/theme.js"):
        assert client.get(address).headers["Strict-Transport-Security"] == "max-age=60"


PRODUCTION = {
    "PUBLIC_URL": "https://signalbox.example", "SECRET_KEY": "kJ7q-" * 12, "SEALING_KEYS": "a", "AUDIT_SIGNING_KEYS": "b",
    "DATABASE_URL": "postgresql://web@db/x", "DATABASE_ENGINE_URL": "postgresql://engine@db/x",
    "DATABASE_OWNER_URL": "postgresql://owner@db/x", "SIGNALBOX_MANIFEST": "1", "SIGNALBOX_DEMO": "", "SIGNALBOX_ROLE": "",
}  # fmt: skip
SHOW = """
from django.conf import settings as s
print([s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY, s.DEBUG])
"""


def deployed(tmp_path: Path, *command: str, **change: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | PRODUCTION | {"SIGNALBOX_HOME": str(tmp_path)} | change
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_production_installation_has_nothing_to_warn_of(tmp_path: Path) -> None:
    done = deployed(tmp_path, "manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert (done.returncode, done.stderr) == (0, "") or "no issues" in done.stdout, done.stderr
    shown = deployed(tmp_path, "-c", "import django; django.setup()" + SHOW, DJANGO_SETTINGS_MODULE="console.settings")
    assert shown.stdout.strip() == "['__Host-session', '__Host-csrf', True, True, True, False]", shown.stderr


def test_each_thing_that_production_lacks_is_named(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    settings.PUBLIC_URL, settings.DEMO = PRODUCTION["PUBLIC_URL"], False
    settings.WEB_URL, settings.ENGINE_URL, settings.OWNER_URL = "a", "b", "c"
    assert list(warnings()) == []
    settings.PUBLIC_URL, settings.DEMO, settings.ENGINE_URL = "http://127.0.0.1", True, "a"
    monkeypatch.delenv("SEALING_KEYS")
    assert [one.id for one in warnings()] == [f"signalbox.W00{n}" for n in (1, 2, 3, 4)]
