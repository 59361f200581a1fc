"""The frame of every page: who gets in, what the navigation holds, which tenant is looked at, and how refusals look."""

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import Client, RequestFactory

from console.api.identity import SESSION_TENANT
from console.pages import shell
from tenants.models import Member, Tenant, User
from tests.runtime.waiting import World, make_world, person, queued, waiting

from .past import HTMX, browser

PAGES = ["/", "/runs/", "/runs/new/", "/approvals/", "/tools/", "/evals/"]


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def groups(client: Client) -> dict[str, list[str]]:
    nav = client.get("/").context["nav"]
    return {group["title"]: [item["label"] for item in group["items"]] for group in nav}


def counts(client: Client) -> dict[str, int]:
    nav = client.get("/").context["nav"]
    return {item["label"]: item["count"] for group in nav for item in group["items"] if item["count"] is not None}


@pytest.mark.parametrize("address", [*PAGES, "/runs/agt_01J9M7R2000000000000000000/", "/tools/x/?part=calls"])
def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(db: None, address: str) -> None:
    answer = Client().get(address)
    assert answer.status_code == 302
    assert answer["Location"] == "/sign-in/?next=" + address.replace("/", "%2F").replace("?", "%3F").replace("=", "%3D")


def test_a_part_of_an_expired_session_sends_the_whole_page_to_sign_in(db: None) -> None:
    answer = Client().get("/?part=live", headers=HTMX | {"HX-Current-URL": "http://testserver/tools/?x=1"})
    assert (answer.status_code, answer["HX-Redirect"], answer.content) == (204, "/sign-in/?next=%2Ftools%2F%3Fx%3D1", b"")


def test_a_person_who_was_switched_off_is_signed_out(world: World) -> None:
    client = browser(world.operator)
    User.objects.filter(pk=world.operator.user.pk).update(is_active=False)
    assert client.get("/").status_code == 302


def test_somebody_without_a_tenant_is_told_and_can_sign_out(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create(username="nobody"))
    answer = client.get("/")
    assert answer.status_code == 403
    assert b"You belong to no active tenant" in answer.content and b'action="/sign-out/"' in answer.content


@pytest.mark.parametrize("address", PAGES)
def test_every_page_marks_itself_in_the_navigation(world: World, address: str) -> None:
    answer = browser(world.operator).get(address)
    assert answer.status_code == 200
    current = [item["url"] for group in answer.context["nav"] for item in group["items"] if item["current"]]
    assert current == ["/runs/" if address == "/runs/new/" else address]


def test_the_navigation_offers_what_the_person_may_open(world: World, settings: Any) -> None:
    client = browser(world.operator)
    operate = ["Overview", "Runs", "Approvals", "Incidents", "Agents", "Tools", "Models", "Spend", "Kill switches"]
    assert groups(client) == {
        "Operate": operate,
        "Improve": ["Releases", "Evals", "Memory"],
        "Govern": ["Changes", "Standing grants", "Channels", "First steps", "API docs", "Settings"],
    }
    User.objects.filter(pk=world.operator.user.pk).update(is_staff=True)
    settings.DEMO = True
    assert groups(client) == {
        "Operate": operate,
        "Improve": ["Releases", "Evals", "Memory"],
        "Govern": ["Admin", "Changes", "Standing grants", "Channels", "First steps", "API docs", "Settings"],
        "Demo": ["Demo"],
    }


def test_the_counts_are_those_of_the_persons_tenant(world: World) -> None:
    other = make_world("globex", "other")
    waiting(world)
    queued(world)
    waiting(other)
    assert counts(browser(world.operator)) == {"Runs": 2, "Approvals": 1, "Incidents": 0, "Kill switches": 0}
    assert counts(browser(other.operator)) == {"Runs": 1, "Approvals": 1, "Incidents": 0, "Kill switches": 0}
    assert counts(browser(person(world.tenant, "root", "admin", platform=True))) == {
        "Runs": 3,
        "Approvals": 2,
        "Incidents": 0,
        "Kill switches": 0,
    }


def test_the_frame_asks_two_questions_and_none_for_strangers(world: World, django_assert_num_queries: Any, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = AnonymousUser()
    with django_assert_num_queries(0):
        assert set(shell.context(request)) == {"environment", "zone"}
    request.actor = world.operator  # type: ignore[attr-defined]
    with django_assert_num_queries(0):
        frame = shell.context(request)
    with django_assert_num_queries(2):
        assert len(frame["nav"]) == 3
        assert list(frame["tenants"]) == []


def test_an_error_page_needs_no_database(client: Client) -> None:
    answer = client.get("/nothing")  # no `db` here: a query would raise
    assert answer.status_code == 404 and b"There is nothing here" in answer.content


def test_an_unknown_address_of_the_api_stays_a_problem_document(client: Client) -> None:
    answer = client.get("/api/v1/nothing")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


# -- tenants ------------------------------------------------------------------------------------------------------------------


def test_a_member_of_two_tenants_switches_between_them(world: World) -> None:
    other = Tenant.objects.create(slug="globex")
    Member.objects.create(tenant=other, user=world.operator.user, role="viewer")
    client = browser(world.operator)
    assert [tenant.slug for tenant in client.get("/").context["tenants"]] == ["acme", "globex"]
    answer = client.post("/tenant/", {"tenant": "globex"})
    assert (answer.status_code, answer["Location"]) == (302, "/")
    page = client.get("/")
    assert page.context["tenant"] == other and page.context["member_title"] == "Viewer · globex"


def test_a_platform_admin_acts_in_any_active_tenant(world: World) -> None:
    Tenant.objects.create(slug="globex")
    Tenant.objects.create(slug="gone", active=False)
    client = browser(person(world.tenant, "root", "admin", platform=True))
    assert [tenant.slug for tenant in client.get("/").context["tenants"]] == ["acme", "globex"]
    client.post("/tenant/", {"tenant": "globex"})
    assert client.session[SESSION_TENANT] == "globex"
    assert client.post("/tenant/", {"tenant": "gone"}).status_code == 403
    assert client.session[SESSION_TENANT] == "globex"


@pytest.mark.parametrize("wanted", ["globex", "gone", "", "../x"])
def test_nobody_switches_to_a_tenant_that_is_not_theirs(world: World, wanted: str) -> None:
    Tenant.objects.create(slug="globex")
    client = browser(world.operator)
    assert client.post("/tenant/", {"tenant": wanted}).status_code == 403
    assert SESSION_TENANT not in client.session
    assert client.get("/tenant/").status_code == 405


# -- refusals -----------------------------------------------------------------------------------------------------------------


def test_a_refusal_is_a_page_with_its_sentence_and_the_requests_id(world: World) -> None:
    viewer = person(world.tenant, "vera", "viewer")
    answer = browser(viewer).get("/runs/new/")
    assert answer.status_code == 403
    assert b"This needs the scope runs:write" in answer.content and answer["X-Request-Id"].encode() in answer.content
