"""What people see of callbacks, and sending one again: run page, API, admin."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from console.models import Delivery
from runs.models import Run, RunInput
from runs.states import RunState
from tenants.models import AuditEntry, Credential
from tests.runtime.waiting import World, make_world, person, queued, running

from .callers import caller, refusal
from .past import browser

CALLBACK = {"url": "https://hooks.example.com/runs?x=<b>", "secret_name": "hook-secret"}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def told(world: World, reached: str = RunState.FAILED, **values: Any) -> tuple[Run, Delivery]:
    """A run that got to `reached`, with what its caller is told of it."""
    run = running(world)
    RunInput.objects.filter(pk=run.pk).update(callback=CALLBACK)
    Run.objects.filter(pk=run.pk).update(state=reached, owner=None)
    delivery = Delivery.objects.get(run_id=run.pk)
    Delivery.objects.filter(pk=delivery.pk).update(**values)
    delivery.refresh_from_db()
    return run, delivery


def attempt(status: int | None, error: str | None) -> dict[str, Any]:
    return {"at": "2026-01-31T12:00:00.123Z", "status": status, "error": error, "ms": 12}


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition('id="callbacks"')[2].partition("</section>")[0]))


def page_of(client: Client, run: Run, query: str = "") -> str:
    answer = client.get(f"/runs/{run.run_id}/{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


# the page -------------------------------------------------------------------------------------------------------------


def test_a_run_without_a_callback_has_no_such_section(world: World) -> None:
    assert 'id="callbacks"' not in page_of(browser(world.operator), queued(world))


@pytest.mark.mission("P1.4")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Pending run.failed 0 Not sent yet"),
        ({"attempts": 2, "log": [attempt(None, "connect"), attempt(503, None)]}, "Pending run.failed 2 HTTP 503"),
        ({"attempts": 1, "log": [attempt(None, "timeout")]}, "No answer in time"),
        ({"attempts": 1, "log": [attempt(None, "refused")]}, "Not sent: the address is not allowed"),
        ({"attempts": 1, "log": [attempt(None, "secret_missing")]}, "Not sent: the secret is missing"),
        ({"attempts": 1, "log": [attempt(204, None)], "state": "delivered"}, "Delivered run.failed 1 HTTP 204"),
        ({"attempts": 11, "log": [attempt(None, "<new>")], "state": "failed"}, "Given up run.failed 11 &lt;new&gt;"),
    ],
)
def test_the_page_says_how_each_callback_stands(world: World, values: dict[str, Any], said: str) -> None:
    run, _ = told(world, **values)
    page = page_of(browser(world.operator), run)
    assert said in words(page) and "x=&lt;b&gt;" in words(page) and "signed with hook-secret" in words(page)
    part = page_of(browser(world.operator), run, "?part=callbacks")
    assert said in words(part)
    assert ("every 3s" in part) == (values.get("state") is None), "it asks again only while something is due"


def test_before_anything_was_told_the_page_says_when_it_will_be(world: World) -> None:
    run = queued(world)
    RunInput.objects.filter(pk=run.pk).update(callback=CALLBACK)
    assert "Nothing was sent yet" in words(page_of(browser(world.operator), run))


def test_an_operator_sends_it_again_from_the_page_and_that_is_on_record(world: World) -> None:
    run, delivery = told(world, attempts=11)
    Delivery.objects.update(state="failed", next_at=timezone.now() + timedelta(hours=9))
    client = browser(world.operator)
    assert "Redeliver" in words(page_of(client, run))
    answer = client.post(f"/runs/{run.run_id}/", {"act": "redeliver", "delivery": str(delivery)}, follow=True)
    assert b"run.failed is being sent again" in answer.content
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("pending", 0) and delivery.next_at <= timezone.now()
    assert AuditEntry.objects.get(action="delivery.redelivered").actor == world.operator.user.username


def test_a_viewer_sees_it_and_cannot_send_it(world: World) -> None:
    run, delivery = told(world, attempts=1)
    client = browser(person(world.tenant, "vera", "viewer"))
    assert "Send now" not in words(page_of(client, run))
    client.post(f"/runs/{run.run_id}/", {"act": "redeliver", "delivery": str(delivery)})
    delivery.refresh_from_db()
    assert delivery.attempts == 1 and not AuditEntry.objects.filter(action="delivery.redelivered").exists()


# the API --------------------------------------------------------------------------------------------------------------


def test_the_api_lists_what_was_told_oldest_first(world: World) -> None:
    run, delivery = told(world, RunState.WAITING_APPROVAL)
    Delivery.objects.update(attempts=1, log=[attempt(204, None)], state="delivered", delivered_at=timezone.now())
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLED, outcome="cancelled")
    first, second = caller(world.operator).get(f"/runs/{run.run_id}/deliveries").json()["items"]
    assert (first["delivery_id"], first["event"], first["state"]) == (str(delivery), "run.waiting_approval", "delivered")
    assert (first["attempts"], first["log"], first["next_at"]) == (1, [attempt(204, None)], None) and first["delivered_at"]
    assert (second["event"], second["state"], second["run_id"]) == ("run.cancelled", "pending", run.run_id) and second["next_at"]
    assert "body" not in first


def test_the_api_sends_one_again(world: World) -> None:
    _, delivery = told(world, attempts=3)
    answer = caller(world.operator).post(f"/deliveries/{delivery}/redeliver")
    assert (answer.status_code, answer.json()["delivery_id"], answer.json()["attempts"]) == (202, str(delivery), 0)


@pytest.mark.mission("P13.1")
def test_another_tenants_delivery_does_not_exist(world: World) -> None:
    run, delivery = told(world)
    stranger = make_world("globex", "other-agent").approver
    assert refusal(caller(stranger).get(f"/runs/{run.run_id}/deliveries")) == (404, "not_found")
    for one in (str(delivery), "msg_x", "agt_" + str(delivery)[4:], str(delivery.id)):
        assert refusal(caller(stranger).post(f"/deliveries/{one}/redeliver")) == (404, "not_found")
    delivery.refresh_from_db()
    assert not AuditEntry.objects.filter(action="delivery.redelivered").exists()


def test_a_retried_run_shows_callbacks_of_its_own(world: World) -> None:
    Credential.objects.create(tenant=world.tenant, name="hook-secret", sealed=b"x")
    run, _ = told(world, RunState.FAILED)
    again = caller(world.operator).post(f"/runs/{run.run_id}/retry").json()["run_id"]
    assert caller(world.operator).get(f"/runs/{again}/deliveries").json()["items"] == []


# the admin ------------------------------------------------------------------------------------------------------------


def test_the_admin_shows_a_tenants_messages_and_changes_none(world: World) -> None:
    _, delivery = told(world, attempts=2)
    foreign = make_world("globex", "other-agent")
    told(foreign)
    world.operator.user.is_staff = True
    world.operator.user.save()
    client = browser(world.operator)
    page = client.get("/admin/console/delivery/").content.decode()
    assert str(delivery) in page and page.count("msg_") == 1
    assert client.get(f"/admin/console/delivery/{delivery.pk}/change/").status_code == 200
    assert client.get("/admin/console/delivery/add/").status_code == 403
    assert client.post(f"/admin/console/delivery/{delivery.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"/admin/console/delivery/{delivery.pk}/change/", {"url": "https://elsewhere.example.com"})
    delivery.refresh_from_db()
    assert delivery.url == CALLBACK["url"]
