"""Second factors: set up, asked for, used once, required, and asked again before what is grave."""

import json
import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client

from approvals.models import Approval
from console import step_up
from console.entry import factors, guesses
from tenants.errors import Refused
from tenants.models import AuditEntry, Member
from tests.runtime.waiting import DIGEST, World, person, waiting

from .entry_world import code, door, is_in, sign_in, with_app
from .past import HTMX, browser

__all__ = ["door"]


def fresh(actor: Any) -> Client:
    client = browser(actor)
    session = client.session
    step_up.note(session)
    session.save()
    return client


def test_an_app_is_added_by_a_code_that_shows_it_has_the_key_and_comes_with_recovery_codes(door: World) -> None:
    client = fresh(door.operator)
    page = client.get("/settings/security/app/").content.decode()
    secret = re.search(r'id="totp-key">([A-Z2-7]{32})<', page)
    assert secret and 'src="data:image/svg+xml;base64,' in page
    assert client.post("/settings/security/app/", {"code": "000000"}).status_code == 422 and not Authenticator.objects.exists()
    answer = client.post("/settings/security/app/", {"code": code(secret[1])})
    assert len(re.findall(r"<li>\d{10}</li>", answer.content.decode())) == 10
    row = Authenticator.objects.get(type="totp")
    assert secret[1] not in json.dumps(row.data) and factors.opened(row.data["secret"]) == secret[1]  # sealed
    assert secret[1] not in json.dumps(dict(client.session))
    assert AuditEntry.objects.filter(action="second_factor.added", object_id=door.operator.user.pk).exists()


def test_after_the_password_the_code_is_asked_for_and_nothing_opens_before(door: World) -> None:
    secret = with_app(door.operator)
    client, answer = sign_in(door.operator, next="/tools/?x=1")
    assert answer["Location"] == "/sign-in/second/" and not is_in(client)
    assert client.post("/sign-in/second/", {"code": "123"}).status_code == 422 and not is_in(client)
    before = client.cookies["sessionid"].value
    answer = client.post("/sign-in/second/", {"code": code(secret)})
    assert (answer.status_code, answer["Location"]) == (302, "/tools/?x=1") and is_in(client)
    assert client.cookies["sessionid"].value != before


def test_the_code_page_alone_leads_to_the_password(door: World) -> None:
    with_app(door.operator)
    assert Client().get("/sign-in/second/")["Location"] == "/sign-in/"
    client, _ = sign_in(door.operator)
    session = client.session
    session["entering"] |= {"at": session["entering"]["at"] - 601}
    session.save()
    assert client.post("/sign-in/second/", {"code": "x"})["Location"] == "/sign-in/"


def test_a_code_works_once_and_so_does_every_earlier_one(door: World) -> None:
    secret, user = with_app(door.operator), door.operator.user
    assert factors.fits(user, code(secret)) and not factors.fits(user, code(secret))
    assert not factors.fits(user, code(secret, -1)) and factors.fits(user, code(secret, 1))


def test_a_recovery_code_works_once(door: World) -> None:
    with_app(door.operator)
    first, *_ = factors.fresh_codes(door.operator.user)
    assert factors.fits(door.operator.user, first) and not factors.fits(door.operator.user, first)
    assert factors.codes_left(door.operator.user) == 9


def test_a_locked_second_factor_takes_no_right_code_either(door: World) -> None:
    secret, user = with_app(door.operator), door.operator.user
    for _ in range(guesses.MOST):
        with pytest.raises(Refused):
            factors.check(user, "000000")
    with pytest.raises(Refused):
        factors.check(user, code(secret))


def test_with_the_last_factor_the_recovery_codes_go(door: World) -> None:
    with_app(door.operator)
    factors.fresh_codes(door.operator.user)
    row = Authenticator.objects.get(type="totp")
    assert fresh(door.operator).post("/settings/security/remove/", {"factor": row.pk})["Location"] == "/settings/security/"
    assert not Authenticator.objects.exists()


def test_nobody_removes_the_factor_of_somebody_else(door: World) -> None:
    with_app(door.approver)
    row = Authenticator.objects.get(type="totp")
    assert fresh(door.operator).post("/settings/security/remove/", {"factor": row.pk}).status_code == 404
    assert Authenticator.objects.filter(pk=row.pk).exists()


CHANGES = ["password", "app", "passkey", "codes", "remove"]


@pytest.mark.parametrize("change", CHANGES)
def test_the_door_is_changed_only_by_who_has_proved_lately_who_they_are(door: World, change: str) -> None:
    address = f"/settings/security/{change}/"
    answer = browser(door.operator).post(address, {"new": "a" * 20, "again": "a" * 20})
    assert answer["Location"] == f"/settings/security/confirm/?next={address.replace('/', '%2F')}"
    client = browser(door.operator)
    assert client.post("/settings/security/confirm/", {"password": "wrong", "next": address}).status_code == 422
    assert client.post("/settings/security/confirm/", {"password": "correct horse battery", "next": address})["Location"] == address
    assert client.get(address).get("Location", "") in ("", "/settings/security/")


# required ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "held"), [("viewer", False), ("operator", True), ("approver", True), ("admin", True)])
def test_where_it_is_required_nothing_opens_above_viewer_without_a_second_factor(door: World, settings: Any, role: str, held: bool) -> None:
    settings.REQUIRE_MFA = True
    actor = person(door.tenant, "new", role)
    client = browser(actor)
    assert (client.get("/tools/").get("Location") == "/settings/security/") is held
    assert (client.get("/tools/", headers=HTMX).get("HX-Redirect") == "/settings/security/") is held
    answer = client.get("/api/v1/runs")
    assert (answer.status_code == 403 and answer.json()["code"] == "second_factor_needed") is held
    assert "Set up a second factor first" in client.get("/settings/security/").content.decode() or not held
    with_app(actor)
    assert is_in(client) and client.get("/api/v1/runs").status_code == 200


def test_the_admin_waits_for_the_second_factor_too(door: World, settings: Any) -> None:
    settings.REQUIRE_MFA = True
    actor = person(door.tenant, "new", "admin")
    actor.user.is_staff = True
    actor.user.save()
    assert browser(actor).get("/admin/")["Location"] == "/settings/security/"


def test_the_last_factor_stays_where_one_is_required(door: World, settings: Any) -> None:
    settings.REQUIRE_MFA = True
    with_app(door.operator)
    row = Authenticator.objects.get(type="totp")
    assert fresh(door.operator).post("/settings/security/remove/", {"factor": row.pk}).status_code == 409
    assert Authenticator.objects.filter(pk=row.pk).exists()


# grave decisions --------------------------------------------------------------------------------------------------------------


def test_a_grave_decision_asks_for_the_second_factor_of_who_has_one(door: World) -> None:
    secret = with_app(door.approver)
    approval = waiting(door, risk="high")[1]
    client, path = browser(door.approver), f"/approvals/{approval.approval_id}/"
    page = client.get(path).content.decode()
    assert 'autocomplete="one-time-code"' in page and 'type="password"' not in page
    said = {"verdict": "approve", "digest": DIGEST, "reason": "seen"}
    assert client.post(path, said | {"password": "correct horse battery"}).status_code == 422
    assert Approval.objects.get(pk=approval.pk).state == "pending"
    assert client.post(path, said | {"password": code(secret)}).status_code == 303
    assert Approval.objects.get(pk=approval.pk).state == "approved"


def test_an_admin_resets_a_lost_factor_and_only_of_members_who_are_nobody_elsewhere(door: World) -> None:
    with_app(door.operator)
    boss = person(door.tenant, "boss", "admin")
    member = Member.objects.get(user=door.operator.user)
    client = browser(boss)
    door.operator.user.is_platform_admin = True
    door.operator.user.save()
    assert client.post("/settings/members/", {"act": "reset", "member": member.pk}).status_code == 403
    door.operator.user.is_platform_admin = False
    door.operator.user.save()
    assert client.post("/settings/members/", {"act": "reset", "member": member.pk})["Location"] == "/settings/members/"
    assert not Authenticator.objects.exists() and AuditEntry.objects.filter(action="second_factor.reset", actor="boss").exists()
