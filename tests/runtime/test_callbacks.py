"""One signed message at each state that a caller waits for: written with the move, sent by couriers, at least once, under one id."""

import asyncio
import json
import logging
from collections import Counter
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models.functions import Now
from pydantic import ValidationError

from console import deliveries
from console.deliveries import WAITS_S, Answer, follows
from console.models import Delivery
from console.notify import PER_HOST
from console.webhooks import Unverified, verify
from runs import intake, lifecycle
from runs.models import Run, RunInput
from runs.states import PEOPLE, TERMINAL, RunState
from tenants import credentials
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import AuditEntry, Credential, EgressAllow, Tenant
from tools.egress import Egress

from .receiver import SECRET, Receiver, courier, receiving, settled, until
from .test_engine import decide
from .waiting import World, make_world
from .world import TICKET, call
from .world import World as EngineWorld

TOLD = ("succeeded", "failed", "cancelled", "waiting_approval", "waiting_budget", "needs_reconciliation", "paused", "quarantined")
NOT_TOLD = ("waiting_timer", "cancelling", "queued")


def hook(tenant: Tenant, receiver: Receiver, name: str = "hook-secret", secret: str = SECRET) -> dict[str, str]:
    """What an order says to be called back there."""
    credentials.store(tenant, name, "bearer", secret)
    EgressAllow.objects.get_or_create(host_port=receiver.host_port)
    return {"url": receiver.url, "secret_name": name}


def accepted(world: World, callback: dict[str, str] | None) -> Run:
    order = intake.Order.model_validate({"agent": world.agent.name, "input": "Please refund me", "callback": callback})
    return intake.submit(world.starter, order).run


def reaches(run: Run, state: str, **values: Any) -> None:
    """Through an engine's hands, as every such move."""
    if run.state == "queued":
        Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id())
    owner = new_id() if state == "cancelling" else None
    Run.objects.filter(pk=run.pk).update(state=state, owner=owner, **values)
    run.refresh_from_db()


def with_callbacks(receiver: Receiver, count: int = 1) -> tuple[World, list[Run]]:
    world = make_world()
    callback = hook(world.tenant, receiver)
    return world, [accepted(world, callback) for _ in range(count)]


def due() -> None:
    Delivery.objects.filter(state="pending").update(next_at=Now())


def verified(receiver: Receiver) -> list[dict[str, Any]]:
    """The messages that came, each checked as a receiver should."""
    told = []
    for headers, body in receiver.got:
        verify(headers, body, [SECRET], int(headers["webhook-timestamp"]))
        told.append(json.loads(body))
    return told


# what is told ---------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.4")
@pytest.mark.parametrize("state", TOLD)
async def test_each_end_and_each_wait_for_people_is_told_once(committed_db: None, state: str) -> None:
    async with receiving() as receiver:
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(reaches)(run, state, outcome="completed" if state == "succeeded" else None, seq=7, step=2)
        async with courier():
            await until(settled(1))
    (told,) = verified(receiver)
    delivery = await Delivery.objects.aget()
    assert receiver.ids == [str(delivery)] and str(delivery).startswith("msg_")
    assert (told["type"], told["data"]["run_id"], told["data"]["state"]) == (f"run.{state}", run.run_id, state)
    assert (told["data"]["seq"], told["data"]["step"], told["data"]["agent"]) == (7, 2, "support-triage")
    assert ("output" in told["data"]) == (state in ("succeeded", "failed", "cancelled"))
    assert (delivery.attempts, delivery.log[0]["status"], delivery.log[0]["error"]) == (1, 204, None)


def test_what_is_told_are_the_ends_and_the_waits_for_people() -> None:
    assert set(TOLD) == {*TERMINAL, *PEOPLE, RunState.QUARANTINED} and set(NOT_TOLD) | {"running"} == set(RunState) - set(TOLD)


@pytest.mark.parametrize("state", NOT_TOLD)
def test_other_moves_are_not_told(db: None, state: str) -> None:
    _, (run,) = with_callbacks(Receiver(9))
    reaches(run, "waiting_timer" if state == "queued" else state)
    if state == "queued":
        reaches(run, "queued")
    assert not Delivery.objects.exists()


def test_nobody_is_told_of_a_run_that_asked_for_no_callback(db: None) -> None:
    reaches(accepted(make_world(), None), "succeeded")
    assert not Delivery.objects.exists()


def test_a_move_that_is_taken_back_tells_nothing(db: None) -> None:
    from django.db import transaction

    _, (run,) = with_callbacks(Receiver(9))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        reaches(run, "failed")
        raise ZeroDivisionError
    assert not Delivery.objects.exists()


@pytest.mark.mission("P1.4")
async def test_a_run_that_waits_for_approval_and_ends_is_told_twice_in_its_own_words(world: EngineWorld) -> None:
    async with receiving() as receiver:
        callback = await sync_to_async(hook)(world.tenant, receiver)
        await world.agent()
        run = await world.script(call("create_ticket", **TICKET), {"text": "Done."}, callback=callback, metadata={"ticket": "T-1"})
        await world.engine()
        await world.until(run, "waiting_approval")
        await decide(world, run)
        done = await world.until(run)
        async with courier():  # only now: the first message must not speak of what came later
            await until(settled(2))
    told = sorted(verified(receiver), key=lambda one: one["data"]["seq"])
    assert [one["type"] for one in told] == ["run.waiting_approval", "run.succeeded"]
    asked, ended = (one["data"] for one in told)
    assert (asked["state"], asked["outcome"]) == ("waiting_approval", None) and "output" not in asked
    assert (ended["outcome"], ended["output"], ended["seq"]) == ("completed", {"text": "Done."}, done.seq)
    assert ended["metadata"] == {"ticket": "T-1"} and ended["tools_called"] == ["create_ticket"] and ended["usage"]["writes"] == 1
    assert told[0]["timestamp"] < told[1]["timestamp"] and len(set(receiver.ids)) == 2


def test_a_retried_run_keeps_the_callback(db: None) -> None:
    world, (run,) = with_callbacks(Receiver(9))
    reaches(run, "failed", outcome="model_error")
    again = lifecycle.retry(world.operator, run.id)
    assert RunInput.objects.get(pk=again.id).callback == RunInput.objects.get(pk=run.id).callback is not None


# who may be called back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:9/hook", "egress_refused"), ("http://localhost/x", "egress_refused"), ("http://10.1.2.3/", "egress_refused"),
        ("http://169.254.169.254/latest/", "egress_refused"), ("http://[::1]:80/", "egress_refused"), ("http://0x7f.1/", "egress_refused"),
        ("https://hooks.example.com/x", "callback_secret_missing"),
    ],
)  # fmt: skip
def test_an_order_for_a_callback_that_cannot_be_made_is_refused(db: None, url: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        accepted(make_world(), {"url": url, "secret_name": "hook-secret"})
    assert (refused.value.code, refused.value.status) == (code, 422) and not Run.objects.exists()


def test_another_tenants_secret_is_no_secret(db: None) -> None:
    callback = hook(Tenant.objects.create(slug="globex"), Receiver(9))
    with pytest.raises(Refused, match="no credential hook-secret"):
        accepted(make_world(), callback)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://example.com/"}, {"url": "https://user:pass@example.com/"}, {"url": "https://user@example.com/"}, {"url": "x"},
        {"url": "https://example.com/" + "x" * 2000}, {"url": "https://example.com/#part"}, {"url": "https://example.com:99999/"},
        {"url": "http://exa mple.com/"}, {"url": "https://[::1/"}, {"secret_name": ""}, {"secret_name": "a\0b"}, {"secret_name": "x" * 101},
        {"surprise": 1}, {"url": None}, {"secret_name": None},
    ],
)  # fmt: skip
def test_a_callback_that_is_wrong_is_refused_before_anything_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        intake.Order.model_validate({"agent": "a", "input": "x", "callback": {"url": "https://example.com/", "secret_name": "s"} | wrong})


@pytest.mark.mission("P13.1")
@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_to_a_private_address_is_not_called(committed_db: None, address: str) -> None:
    async with receiving() as receiver:
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        url = f"http://hooks.example.com:{receiver.port}/hook"
        await RunInput.objects.filter(run_id=run.id).aupdate(callback={"url": url, "secret_name": "hook-secret"})
        await EgressAllow.objects.all().adelete()
        await sync_to_async(reaches)(run, "failed")
        async with courier(egress=Egress(lookup=lambda host, port: [address])):
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
    delivery = await Delivery.objects.aget()
    assert (delivery.state, delivery.log[0]["error"], delivery.log[0]["status"]) == ("pending", "refused", None)
    assert receiver.got == []


async def test_a_redirect_is_an_answer_and_not_followed(committed_db: None) -> None:
    async with receiving() as receiver, receiving() as elsewhere:
        receiver.status, receiver.answer = 307, {"headers": {"Location": elsewhere.url}}
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        await EgressAllow.objects.acreate(host_port=elsewhere.host_port)
        await sync_to_async(reaches)(run, "failed")
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
    assert (await Delivery.objects.aget()).log[0]["status"] == 307 and elsewhere.got == []


# what the secret is for -----------------------------------------------------------------------------------------------


async def test_the_secret_is_in_no_row_no_log_and_no_message(committed_db: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    plain = "correct-horse-battery-staple"
    async with receiving() as receiver:
        receiver.status, receiver.answer = 500, {"text": f"your secret is {plain}"}
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(credentials.store)(await Tenant.objects.aget(), "hook-secret", "bearer", plain)
        await sync_to_async(reaches)(run, "failed")
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
            await Credential.objects.filter(name="hook-secret").aupdate(sealed=b"nothing that opens")
            await sync_to_async(due)()
            await until(lambda: Delivery.objects.filter(attempts=2).exists())
    rows = str([row async for row in Delivery.objects.values()]) + str([row async for row in AuditEntry.objects.values()])
    assert plain not in rows and plain not in caplog.text and len(receiver.got) == 1
    assert all(plain not in str(headers) and plain.encode() not in body for headers, body in receiver.got)
    verify(*receiver.got[0], [plain], int(receiver.got[0][0]["webhook-timestamp"]))
    assert [line["error"] for line in (await Delivery.objects.aget()).log] == [None, "secret_unusable"]


@pytest.mark.parametrize(("secret", "error"), [(None, "secret_missing"), ("whsec_***", "secret_unusable"), ("whsec_", "secret_unusable")])
async def test_without_a_usable_secret_nothing_is_sent_until_there_is_one(committed_db: None, secret: str | None, error: str) -> None:
    async with receiving() as receiver:
        world, (run,) = await sync_to_async(with_callbacks)(receiver)
        if secret is None:
            await Credential.objects.all().adelete()
        else:
            await sync_to_async(credentials.store)(world.tenant, "hook-secret", "bearer", secret)
        await sync_to_async(reaches)(run, "failed")
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
            assert receiver.got == [] and (await Delivery.objects.aget()).log[0]["error"] == error
            await sync_to_async(credentials.store)(world.tenant, "hook-secret", "bearer", SECRET)
            await sync_to_async(due)()
            await until(settled(1))
    assert len(verified(receiver)) == 1


# trouble --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "attempts", "state"),
    [
        (200, None, 1, "delivered"), (204, None, 3, "delivered"), (202, "reset", 1, "delivered"), (299, None, 11, "delivered"),
        (500, None, 1, "pending"), (404, None, 1, "pending"), (302, None, 1, "pending"), (429, None, 10, "pending"),
        (None, "timeout", 10, "pending"), (410, None, 1, "failed"), (500, None, 11, "failed"), (None, "refused", 11, "failed"),
    ],
)  # fmt: skip
def test_what_follows_from_an_answer(status: int | None, error: str | None, attempts: int, state: str) -> None:
    assert follows(Answer(status, error, 5), attempts, 0.5)[0] == state


def test_the_waits_grow_to_a_day_and_are_never_longer_than_told() -> None:
    longest = [follows(Answer(500, None, 1), n, 1.0)[1] for n in range(1, len(WAITS_S) + 1)]
    shortest = [follows(Answer(500, None, 1), n, 0.0)[1] for n in range(1, len(WAITS_S) + 1)]
    assert longest == [float(wait) for wait in WAITS_S] and 23 * 3600 < sum(longest) <= 24 * 3600
    assert all(less == pytest.approx(0.8 * more) for less, more in zip(shortest, longest, strict=True))


@pytest.mark.mission("P1.4")
async def test_a_receiver_that_was_away_gets_every_message_under_its_first_id(committed_db: None) -> None:
    async with receiving(up=False) as receiver:
        _, runs = await sync_to_async(with_callbacks)(receiver, 12)
        for run in runs:
            await sync_to_async(reaches)(run, "failed")
        ids = {str(one) async for one in Delivery.objects.all()}
        async with courier():
            for attempt in (1, 2, 3):
                await until(lambda n=attempt: Delivery.objects.filter(attempts=n).count() == 12)  # type: ignore[misc]
                if attempt == 3:
                    receiver.status = 503
                    await receiver.up()
                await sync_to_async(due)()
            await until(lambda: Delivery.objects.filter(attempts=4).count() == 12)
            receiver.status = 200
            await sync_to_async(due)()
            await until(settled(12))
    assert Counter(receiver.ids) == dict.fromkeys(ids, 2)
    for delivery in [one async for one in Delivery.objects.all()]:
        assert [line["error"] or line["status"] for line in delivery.log] == ["connect", "connect", "connect", 503, 200]


async def test_after_the_last_attempt_it_is_given_up_and_a_person_may_send_it_again(committed_db: None) -> None:
    async with receiving() as receiver:
        receiver.status = 500
        world, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(reaches)(run, "failed")
        await Delivery.objects.aupdate(attempts=len(WAITS_S))
        async with courier():
            await until(lambda: Delivery.objects.filter(state="failed").exists())
            receiver.status = 200
            delivery = await Delivery.objects.aget()
            await sync_to_async(deliveries.redeliver)(world.operator, str(delivery))
            await until(settled(1))
    await delivery.arefresh_from_db()
    assert receiver.ids == [str(delivery)] * 2 and (delivery.attempts, len(delivery.log)) == (1, 2)
    entry = await AuditEntry.objects.aget(action="delivery.redelivered")
    assert (entry.object_id, entry.before["state"], entry.actor) == (str(delivery), "failed", world.operator.user.username)


async def test_a_receiver_that_is_gone_for_good_is_not_asked_again(committed_db: None) -> None:
    async with receiving() as receiver:
        receiver.status = 410
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(reaches)(run, "failed")
        async with courier():
            await until(lambda: Delivery.objects.filter(state="failed").exists())
    assert len(receiver.got) == 1


async def test_what_a_courier_had_in_hand_when_it_died_is_sent_by_another(committed_db: None) -> None:
    async with receiving() as receiver:
        receiver.hold.clear()
        _, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(reaches)(run, "failed")
        async with courier(lease_s=1.0, patience_s=0.0):
            while not receiver.got:
                await asyncio.sleep(0.01)
        assert (await Delivery.objects.aget()).attempts == 0  # nothing is known of it
        receiver.hold.set()
        async with courier():
            await until(settled(1))
    assert len(receiver.ids) == 2 and len(set(receiver.ids)) == 1


async def test_several_couriers_send_each_message_once(committed_db: None) -> None:
    async with receiving() as receiver:
        _, runs = await sync_to_async(with_callbacks)(receiver, 40)
        async with courier(), courier(), courier():
            for run in runs:
                await sync_to_async(reaches)(run, "failed")
            await until(settled(40))
    assert Counter(receiver.ids) == {str(one): 1 async for one in Delivery.objects.all()}


async def test_a_dead_receiver_holds_up_nobody_else(committed_db: None) -> None:
    async with receiving() as dead, receiving() as living:
        dead.hold.clear()
        world, runs = await sync_to_async(with_callbacks)(dead, 30)
        callback = await sync_to_async(hook)(world.tenant, living)
        other = await sync_to_async(accepted)(world, callback)
        for run in (*runs, other):
            await sync_to_async(reaches)(run, "failed")
        async with courier():
            await until(settled(1))
            assert len(living.got) == 1 and len(dead.got) == PER_HOST
            dead.hold.set()
            await until(settled(31))


async def test_an_answer_that_comes_after_a_person_asked_again_settles_nothing(committed_db: None) -> None:
    async with receiving() as receiver:
        receiver.hold.clear()
        world, (run,) = await sync_to_async(with_callbacks)(receiver)
        await sync_to_async(reaches)(run, "failed")
        (leased,) = await sync_to_async(deliveries.lease)({}, each=4, most=4, lease_s=60)
        assert await sync_to_async(deliveries.lease)({}, each=4, most=4, lease_s=60) == []
        await sync_to_async(deliveries.redeliver)(world.operator, leased.message_id)
        assert await sync_to_async(deliveries.record)(leased, Answer(410, None, 3)) == "pending"
        receiver.hold.set()
        async with courier():
            await until(settled(1))
    assert [line["status"] for line in (await Delivery.objects.aget()).log] == [410, 204]


def test_the_last_twenty_answers_are_kept(db: None) -> None:
    _, (run,) = with_callbacks(Receiver(9))
    reaches(run, "failed")
    for n in range(25):
        Delivery.objects.update(next_at=Now(), attempts=0)
        (leased,) = deliveries.lease({}, each=4, most=4, lease_s=0)
        deliveries.record(leased, Answer(500 + n, None, n))
    assert [line["status"] for line in Delivery.objects.get().log] == list(range(505, 525))


def test_a_message_that_was_touched_on_its_way_is_refused(db: None) -> None:
    from console.notify import render

    _, (run,) = with_callbacks(Receiver(9))
    reaches(run, "failed")
    (leased,) = deliveries.lease({}, each=4, most=4, lease_s=60)
    request = render(leased).request
    assert request is not None
    assert verify(request.headers, request.content, [SECRET], leased.now) == leased.message_id
    with pytest.raises(Unverified):
        verify(request.headers, request.content.replace(b"failed", b"passed"), [SECRET], leased.now)
