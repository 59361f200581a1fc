"""Channels on the pages and over HTTP: making, testing, changing, deleting, sending again, and who may."""

import re
from typing import Any

import pytest

from console.models import Channel, Delivery
from tenants import credentials
from tenants.actors import Actor
from tenants.models import AuditEntry
from tests.runtime.receiver import SECRET
from tests.runtime.waiting import World, make_world, person, waiting

from .callers import caller, refusal
from .past import browser

ADDRESS = "https://hooks.example.com/services/T0/B0/xyz"
SPEC: dict[str, Any] = {
    "kind": "slack", "url_secret": "hook-url", "secret_name": "hook-secret", "events": ["approval.requested", "run.failed"],
}  # fmt: skip


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    credentials.store(made.tenant, "hook-secret", "bearer", SECRET)
    credentials.store(made.tenant, "hook-url", "bearer", ADDRESS)
    return made


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


def typed(**values: Any) -> dict[str, Any]:
    """What the form of a new channel posts."""
    given = {"act": "save", "name": "desk", "kind": "slack", "url_secret": "hook-url", "secret_name": "hook-secret", "enabled": "on"}
    return given | {"events": ["approval.requested"]} | values


def words(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode()))


# the API ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X2")
def test_a_channel_is_put_read_tested_and_deleted_over_http(admin: Actor) -> None:
    call = caller(admin)
    made = call.put("/channels/desk", SPEC | {"reason": "people asked"})
    assert made.status_code == 201, made.content
    assert made.json() | {"created_at": None} == SPEC | {
        "name": "desk", "tenant": "acme", "url": "", "addresses": [], "template": None, "enabled": True, "created_at": None,
    }  # fmt: skip
    assert call.put("/channels/desk", SPEC | {"enabled": False}).status_code == 200
    assert call.get("/channels").json()["items"] == [call.get("/channels/desk").json()]
    assert call.get("/channels/desk").json()["enabled"] is False
    tested = call.post("/channels/desk/test")
    assert (tested.status_code, tested.json()["event"], tested.json()["state"]) == (202, "channel.test", "pending")
    (sent,) = call.get("/channels/desk/deliveries").json()["items"]
    assert sent["delivery_id"] == tested.json()["delivery_id"] and sent["url"].startswith("channel://")
    assert call("DELETE", "/channels/desk").status_code == 204
    assert refusal(call.get("/channels/desk")) == (404, "not_found")
    actions = list(AuditEntry.objects.filter(object_kind="channel").order_by("id").values_list("action", flat=True))
    assert actions == ["channel.created", "channel.updated", "channel.tested", "channel.deleted"]


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"events": ["x"]}, (422, "validation")), ({"url": "https://a.example.com/"}, (422, "validation")), ({"x": 1}, (422, "validation")),
        ({"url_secret": "gone"}, (422, "secret_missing")), ({"events": []}, (422, "validation")),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_refused_over_http(admin: Actor, wrong: dict[str, Any], answer: tuple[int, str]) -> None:
    assert refusal(caller(admin).put("/channels/desk", SPEC | wrong)) == answer
    assert not Channel.objects.exists()


def test_others_look_and_change_nothing(world: World, admin: Actor) -> None:
    caller(admin).put("/channels/desk", SPEC)
    for actor in (world.operator, world.approver):
        call = caller(actor)
        assert call.get("/channels/desk").status_code == 200
        assert refusal(call.put("/channels/desk", SPEC)) == (403, "scope_missing")
        assert refusal(call.post("/channels/desk/test")) == (403, "scope_missing")
        assert refusal(call("DELETE", "/channels/desk")) == (403, "scope_missing")
    stranger = person(make_world("globex", "other-agent").tenant, "gus", "admin")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")):
        assert refusal(caller(stranger)(method, f"/channels/desk{path}")) == (404, "not_found")
    assert Channel.objects.count() == 1


# the pages --------------------------------------------------------------------------------------------------------------------


def test_before_there_is_a_channel_the_page_says_so(world: World) -> None:
    page = words(browser(world.operator).get("/channels/").content)
    assert "Nobody is told of anything yet" in page and "Make channel" not in page


def test_an_admin_makes_a_channel_and_sends_a_test(admin: Actor) -> None:
    client = browser(admin)
    answer = client.post("/channels/", typed(), follow=True)
    assert answer.redirect_chain == [("/channels/desk/", 302)]
    assert "Nothing was sent here yet" in words(answer.content) and ADDRESS.encode() not in answer.content
    answer = client.post("/channels/desk/", {"act": "test"}, follow=True)
    page = words(answer.content)
    assert "A test message is on its way" in page and "channel.test" in page and "Not sent yet" in page
    assert b'hx-trigger="every 3s"' in answer.content, "it asks again while something is due"
    assert "On" in words(client.get("/channels/").content) and "1 event" in words(client.get("/channels/").content)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"events": []}, "This field is required"), ({"kind": "webhook", "secret_name": ""}, "secret_name to sign with"),
        ({"template": "{"}, "This is not JSON"), ({"template": '{"a": "{secret}"}'}, "Nothing fills {secret}"),
        ({"template": "[]"}, "Input should be a valid dictionary"), ({"name": "1 2"}, "name begins with a letter"),
        ({"kind": "email", "url_secret": "", "secret_name": "", "addresses": "nobody"}, "Nobody is no e-mail address"),
        ({"kind": "webhook", "url_secret": "", "url": "http://127.0.0.1:1/x"}, "not a public address"),
        ({"kind": "webhook", "url_secret": "", "url": "ftp://x"}, "URL"),
    ],
)  # fmt: skip
def test_a_form_that_is_wrong_comes_back_with_what_was_typed(admin: Actor, values: dict[str, Any], said: str) -> None:
    answer = browser(admin).post("/channels/", typed(**values))
    assert answer.status_code == 422 and not Channel.objects.exists()
    assert said.lower() in words(answer.content).lower(), words(answer.content)
    if "name" not in values:
        assert b'value="desk"' in answer.content


def test_a_channel_is_changed_and_deleted_on_its_page(admin: Actor) -> None:
    client = browser(admin)
    client.post("/channels/", typed(template='{"text": "{title}"}'))
    page = client.get("/channels/desk/").content.decode()
    assert "{title}" in page and page.count("checked") == 2  # the event, and that it is on
    client.post("/channels/desk/", {**typed(events=["run.failed"]), "enabled": ""})
    channel = Channel.objects.get()
    assert (channel.events, channel.enabled, channel.template) == (["run.failed"], False, None)
    assert client.post("/channels/desk/", typed(events=[])).status_code == 422
    answer = client.post("/channels/desk/", {"act": "delete"}, follow=True)
    assert "desk is gone" in words(answer.content) and not Channel.objects.exists()


def test_a_second_channel_of_a_name_does_not_replace_the_first(admin: Actor) -> None:
    client = browser(admin)
    client.post("/channels/", typed())
    answer = client.post("/channels/", typed(events=["run.failed"]))
    assert answer.status_code == 422 and "a channel of this name already" in words(answer.content)
    assert Channel.objects.get().events == ["approval.requested"]


def test_what_was_given_up_is_sent_again_from_the_page(world: World, admin: Actor) -> None:
    client = browser(admin)
    client.post("/channels/", typed(events=["run.waiting_approval"]))
    waiting(world)
    log = [{"at": "2026-01-31T12:00:00.123Z", "status": None, "error": "connect", "ms": 1}]
    Delivery.objects.update(state="failed", attempts=11, log=log)
    page = words(client.get("/channels/desk/").content)
    assert "Given up run.waiting_approval 11 No connection" in page and "Redeliver" in page
    assert "1" in words(client.get("/channels/").content)
    operator = browser(world.operator)
    answer = operator.post("/channels/desk/", {"act": "redeliver", "delivery": str(Delivery.objects.get())}, follow=True)
    assert "It is being sent again" in words(answer.content)
    assert list(Delivery.objects.values_list("state", "attempts")) == [("pending", 0)]


@pytest.mark.parametrize("act", ["save", "test", "delete"])
def test_operators_change_nothing_on_the_pages(world: World, admin: Actor, act: str) -> None:
    browser(admin).post("/channels/", typed())
    client = browser(world.operator)
    assert client.post("/channels/desk/", typed(act=act, events=["run.failed"])).status_code == 403
    assert client.post("/channels/", typed(name="other")).status_code == 403
    assert [one.events for one in Channel.objects.all()] == [["approval.requested"]] and not Delivery.objects.exists()
    assert "Approval: requested" in words(client.get("/channels/desk/").content)


def test_another_tenants_channel_is_not_there(admin: Actor) -> None:
    browser(admin).post("/channels/", typed())
    stranger = person(make_world("globex", "other-agent").tenant, "gus", "admin")
    client = browser(stranger)
    assert client.get("/channels/desk/").status_code == 404
    assert client.post("/channels/desk/", {"act": "delete"}).status_code == 404
    assert "desk" not in words(client.get("/channels/").content)


@pytest.mark.mission("X2")
def test_a_link_in_a_notice_only_shows(world: World) -> None:
    _, approval = waiting(world)
    for path in ("", "?confirm=approve", "?verdict=approve&digest=" + approval.digest):
        assert browser(world.operator).get(f"/approvals/{approval.approval_id}/{path}").status_code == 200
    approval.refresh_from_db()
    assert approval.state == "pending" and not approval.decisions.exists()
