"""Second factors in a real browser: an authenticator app, and a passkey of a device that Chromium plays."""

import json
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from playwright.sync_api import BrowserContext, Page, expect

from tests.acceptance.stack import Stack

from .conftest import violations

PASSWORD = "correct horse battery"
PERSON = """
from tenants.models import Member, Tenant, User
for name in ("tina", "pia"):
    user = User.objects.create_user(name, password={password!r})
    Member.objects.create(user=user, tenant=Tenant.objects.order_by("created_at").first(), role="viewer")
print("made")
"""
DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture(scope="module", autouse=True)
def people(stack: Stack) -> None:
    stack.python(PERSON.format(password=PASSWORD))


def arrives(stack: Stack, page: Page, name: str) -> None:
    """A new person at the sign-in page, by the name that passkeys accept: an address of numbers has none."""
    page.goto(at(stack, "/settings/security/"))
    knock(page, name)
    expect(page.get_by_role("heading", name="Security")).to_be_visible()


def at(stack: Stack, path: str) -> str:
    return stack.base_url.replace("127.0.0.1", "localhost") + path


def knock(page: Page, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def code(secret: str, steps: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, list(yield_hotp_counters_from_time())[1] + steps))


def leave(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.mission("P10.4")
def test_a_person_sets_up_an_app_and_signs_in_with_its_code(stack: Stack, open_context: Any) -> None:
    context: BrowserContext = open_context()
    page = context.new_page()
    arrives(stack, page, "tina")
    page.get_by_role("link", name="Add an app").click()
    secret = page.locator("#totp-key").inner_text()
    assert violations(page) == []
    page.get_by_label("Code").fill(code(secret))
    page.get_by_role("button", name="Add the app").click()
    expect(page.locator("#codes li")).to_have_count(10)
    page.get_by_role("link", name="I have kept them").click()
    assert violations(page) == []
    leave(page)
    knock(page, "tina")
    expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Code").fill(code(secret, 1))  # the one of now was used to set it up
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@pytest.mark.mission("P10.4")
def test_a_person_makes_a_passkey_and_signs_in_with_nothing_else(stack: Stack, open_context: Any) -> None:
    context: BrowserContext = open_context()
    page = context.new_page()
    device = context.new_cdp_session(page)
    device.send("WebAuthn.enable")
    device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})
    arrives(stack, page, "pia")
    page.get_by_role("link", name="Add a passkey").click()
    assert json.loads(page.locator("form[data-passkey]").get_attribute("data-options") or "")["rp"]["id"] == "localhost"
    page.get_by_role("button", name="Make a passkey").click()
    expect(page.locator("#codes li")).to_have_count(10)
    leave(page)
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    leave(page)
    knock(page, "pia")
    page.get_by_role("button", name="Use a passkey").click()  # as the second factor
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
