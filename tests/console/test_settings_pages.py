"""Settings: what a person chooses follows them and nobody else; keys are shown once, and are no wider than whoever makes them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from console import allowlists, api_keys, preferences
from console.models import KeyAllowlist, Preference
from console.step_up import CHECKED
from console.templatetags.signalbox import when
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import ApiKey, AuditEntry, Member, Tenant
from tests.runtime.waiting import World, make_world, person

from .past import browser

SAID = {"zone": "Asia/Tokyo", "clock": "12", "times": "absolute", "theme": "dark", "density": "compact"}
TEXT = re.compile(r"sbx_[0-9A-Z]{12}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def proved(actor: Actor) -> Client:
    """A browser whose person has just proved that it is them."""
    client = browser(actor)
    session = client.session
    session[CHECKED] = timezone.now().timestamp()
    session.save()
    return client


def html(client: Client, address: str = "/tools/") -> str:
    return client.get(address).content.decode()


# preferences ------------------------------------------------------------------------------------------------------------------


def test_what_a_person_chooses_holds_in_every_browser_of_theirs_and_of_nobody_else(world: World) -> None:
    other = html(browser(world.approver))
    assert browser(world.operator).post("/settings/preferences/", SAID)["Location"] == "/settings/preferences/"
    page = html(browser(world.operator))
    head = page[: page.index("<head>")]
    assert all(said in head for said in ('data-zone="Asia/Tokyo"', 'data-theme="dark"', 'data-density="compact"', 'data-clock="12"'))
    assert 'data-absolute="1"' in head and 'data-single-keys="off"' in page
    changed = [line for line in html(browser(world.approver)).splitlines() if "data-zone" in line or "data-live=" in line]
    assert 'data-zone="UTC"' in changed[0] and "single-keys" not in changed[1] and 'data-theme="auto"' in other
    assert Preference.objects.count() == 1


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "posixrules", "", "UTC\0"])
def test_a_zone_that_is_not_there_is_refused_with_its_cure(world: World, zone: str) -> None:
    answer = browser(world.operator).post("/settings/preferences/", SAID | {"zone": zone})
    assert answer.status_code == 422 and not Preference.objects.exists()
    assert "zone" in answer.context["form"].errors
    assert "such as Europe/Berlin" in answer.content.decode() or zone in ("", "UTC\0")


@pytest.mark.parametrize("field", ["clock", "times", "theme", "density"])
def test_a_choice_that_is_not_offered_is_refused(world: World, field: str) -> None:
    assert browser(world.operator).post("/settings/preferences/", SAID | {field: "x"}).status_code == 422
    with pytest.raises(Refused) as refused:
        preferences.save(world.operator.user, **{field: "x"})
    assert (refused.value.code, refused.value.fields) == ("bad_preference", {"field": field})


def test_the_button_goes_to_utc_and_back_to_the_persons_own_zone(world: World) -> None:
    client = browser(world.operator)
    client.post("/settings/preferences/", SAID)
    zones = []
    for _ in range(2):
        assert client.post("/zone/", {"next": "/tools/"})["Location"] == "/tools/"
        zones.append(re.findall(r'data-zone="([^"]+)"', html(client))[0])
    assert zones == ["UTC", "Asia/Tokyo"]
    assert client.post("/theme/", {"theme": "light"}).status_code == 302 and 'data-theme="light"' in html(client)
    assert client.post("/theme/", {"theme": "pink"}).status_code == 422


def test_preferences_cost_no_query_of_their_own(world: World, django_assert_num_queries: Any) -> None:
    client = browser(world.operator)
    client.post("/settings/preferences/", SAID)
    client.get("/settings/preferences/")
    with django_assert_num_queries(4):  # the session, the person, their membership, the counts of the sidebar
        client.get("/settings/preferences/")


AT = datetime(2026, 1, 31, 22, 5, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (preferences.USUAL, "31 Jan 2026 22:05 UTC"),
        (preferences.Choice("Asia/Tokyo", in_utc=False), "1 Feb 2026 07:05"),
        (preferences.Choice("Asia/Tokyo", in_utc=False, clock="12"), "1 Feb 2026 07:05 am"),
        (preferences.Choice("local", in_utc=False, clock="12"), "31 Jan 2026 10:05 pm UTC"),
        (preferences.Choice("Gone/Away", in_utc=False), "31 Jan 2026 22:05 UTC"),
    ],
)
def test_a_moment_is_written_in_the_readers_zone_without_any_script(choice: preferences.Choice, text: str) -> None:
    with preferences.shown_as(choice):
        written = when(AT)
    assert (written["text"], written["at"]) == (text, "2026-01-31T22:05:09.000Z")


def test_notices_are_kept_and_load_their_script_only_where_they_are_wanted(world: World) -> None:
    client = browser(world.operator)
    assert "notices.js" not in html(client)
    assert client.post("/settings/notices/", {"title_count": "on", "desktop_notices": "on"}).status_code == 302
    page = html(client)
    assert "notices.js" in page and 'data-notices="/approvals/"' in page and '<title data-live-title="approvals">' in page
    client.post("/settings/notices/", {})
    assert "notices.js" not in html(client)


def test_the_workspace_says_what_holds_and_how_things_are(world: World) -> None:
    Member.objects.create(tenant=Tenant.objects.create(slug="globex"), user=world.operator.user)
    page = html(browser(world.operator), "/settings/workspace/")
    assert "for ever" in page and "No engine is alive" in page and "Go to globex" in page and "The database answers" in page
    assert browser(world.operator).get("/settings/")["Location"] == "/settings/preferences/"


# keys -------------------------------------------------------------------------------------------------------------------------


def typed(**values: Any) -> dict[str, Any]:
    return {"name": "ci", "scopes": ["runs:read", "runs:write"], "days": "90", "networks": ""} | values


def made(actor: Actor, **values: Any) -> tuple[ApiKey, str]:
    return api_keys.make(actor, values.pop("name", "ci"), ["runs:read"], 90, **values)


def test_the_secret_of_a_key_is_shown_once_and_only_its_hash_is_kept(world: World, caplog: Any) -> None:
    client = proved(world.operator)
    answer = client.post("/settings/keys/new/", typed())
    text = TEXT.findall(answer.content.decode())[0]
    assert answer["Cache-Control"] == "no-store"
    key = ApiKey.objects.get()
    assert (key.member.user, key.scopes) == (world.operator.user, ["runs:write", "runs:read"])
    assert timedelta(days=89) < key.expires_at - timezone.now() < timedelta(days=91)
    pages = html(client, "/settings/keys/") + html(client, f"/settings/keys/{key.pk}/") + html(client, "/tools/")
    secret = text.rpartition(key.pk + "_")[2]
    with connection.cursor() as cursor:
        cursor.execute("select to_jsonb(k)::text from tenants_apikey k union all select to_jsonb(a)::text from tenants_auditentry a")
        kept = str(cursor.fetchall())
    assert secret not in pages and secret not in kept and secret not in caplog.text and f"sbx_{key.pk}_…" in pages
    assert AuditEntry.objects.get(action="apikey.created").after["scopes"] == key.scopes
    assert client.get("/api/v1/runs", headers={"Authorization": f"Bearer {text}"}).status_code == 200
    assert client.post("/settings/keys/new/", typed()).status_code == 422, "loading the page again makes no second one"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scopes": ["config:write"]}, "You do not hold the scope config:write"),
        ({"scopes": ["runs:fly"]}, "You do not hold the scope runs:fly"),
        ({"scopes": []}, "This field is required"),
        ({"days": "9999"}, "Select a valid choice"),
        ({"networks": "203.0.113.9/24"}, "Write 203.0.113.0/24"),
        ({"networks": "home"}, "home is no network"),
        ({"networks": " ".join(f"10.0.{n}.0/24" for n in range(21))}, "at most 20 networks"),
    ],
)
def test_a_key_that_may_not_be_or_could_not_work_is_not_made(world: World, wrong: dict[str, Any], said: str) -> None:
    answer = proved(world.operator).post("/settings/keys/new/", typed(**wrong))
    assert answer.status_code == 422 and said in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_the_scopes_of_a_key_are_the_makers_whatever_asks(world: World) -> None:
    with pytest.raises(Refused) as refused:
        api_keys.make(world.operator, "ci", ["runs:read", "audit:read"], 90)
    assert refused.value.code == "scope_missing" and not ApiKey.objects.exists()


def test_a_viewer_makes_no_key_and_a_platform_admin_none_where_they_are_no_member(world: World) -> None:
    viewer = person(world.tenant, "vera", "viewer")
    assert "New key" not in html(browser(viewer), "/settings/keys/")
    assert proved(viewer).post("/settings/keys/new/", typed(scopes=["runs:read"])).status_code == 403
    with pytest.raises(Refused) as refused:
        api_keys.own(stranger(world))
    assert refused.value.code == "not_a_member"


def stranger(world: World) -> Actor:
    root = person(Tenant.objects.create(slug="elsewhere"), "root", "admin", platform=True)
    return Actor(root.user, world.tenant, "admin")


def test_making_and_revoking_ask_for_a_proof_of_the_last_minutes(world: World) -> None:
    key, _ = made(world.operator)
    client = browser(world.operator)
    for address, said in (("/settings/keys/new/", typed(name="b")), (f"/settings/keys/{key.pk}/", {"act": "revoke"})):
        assert client.post(address, said)["Location"].startswith("/settings/security/confirm/?next=")
    assert ApiKey.objects.filter(revoked_at=None).count() == 1


def test_others_keys_are_only_an_admins_to_see_and_to_revoke_and_another_tenants_are_not_there(world: World) -> None:
    key, text = made(world.operator)
    admin, other = person(world.tenant, "ada", "admin"), make_world("globex", "other-agent")
    for actor in (world.approver, other.operator, person(other.tenant, "boss", "admin")):
        for method in ("get", "post"):
            assert getattr(proved(actor), method)(f"/settings/keys/{key.pk}/", {"act": "revoke"}).status_code == 404
        assert key.pk not in html(browser(actor), "/settings/keys/")
    assert key.pk in html(browser(admin), "/settings/keys/")
    assert proved(admin).post(f"/settings/keys/{key.pk}/", {"act": "rotate", "hours": "24"}).status_code == 403
    assert ApiKey.objects.count() == 1
    assert proved(admin).post(f"/settings/keys/{key.pk}/", {"act": "revoke"})["Location"] == "/settings/keys/"
    assert Client().get("/api/v1/runs", headers={"Authorization": f"Bearer {text}"}).status_code == 401
    assert AuditEntry.objects.get(action="apikey.revoked").object_id == key.pk
    assert proved(world.operator).post(f"/settings/keys/{key.pk}/", {"act": "rotate", "hours": "24"}).status_code == 409


def test_a_rotated_key_works_beside_the_new_one_for_as_long_as_was_said(world: World) -> None:
    key, _ = made(world.operator, networks=["127.0.0.0/8"])
    answer = proved(world.operator).post(f"/settings/keys/{key.pk}/", {"act": "rotate", "hours": "1"})
    text = TEXT.findall(answer.content.decode())[0]
    new = ApiKey.objects.exclude(pk=key.pk).get()
    key.refresh_from_db()
    assert text.startswith(f"sbx_{new.pk}_") and (new.name, new.scopes) == (key.name, key.scopes)
    assert new.allowlist.networks == ["127.0.0.0/8"]
    assert timedelta(minutes=55) < key.expires_at - timezone.now() <= timedelta(hours=1)
    assert new.expires_at - timezone.now() > timedelta(days=88)
    again = proved(world.operator).post(f"/settings/keys/{key.pk}/", {"act": "rotate", "hours": "1"})
    assert again.status_code == 409 and "It has been rotated" in again.content.decode() and ApiKey.objects.count() == 2


def test_a_key_is_taken_from_its_networks_only(world: World, client: Client) -> None:
    _, text = made(world.operator, networks=["203.0.113.0/24", "2001:db8::/32"])
    asked = {at: client.get("/api/v1/runs", headers={"Authorization": f"Bearer {text}"}, REMOTE_ADDR=at).status_code for at in PLACES}
    assert asked == PLACES
    assert KeyAllowlist.objects.count() == 1


PLACES = {
    "203.0.113.7": 200, "::ffff:203.0.113.7": 200, "2001:db8::1": 200, "203.0.114.7": 401, "127.0.0.1": 401, "": 401, "unix": 401,
}  # fmt: skip


def test_networks_have_one_spelling_each() -> None:
    assert allowlists.read(["10.0.0.1", "10.0.0.1/32", "2001:DB8:0::/32"]) == ["10.0.0.1/32", "2001:db8::/32"]
