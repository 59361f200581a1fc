"""Channels: what happens is written to the outbox with it and told by the courier, signed, without quoting anybody."""

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core import mail
from django.db import connection, transaction
from django.db.models.functions import Now
from pydantic import ValidationError

from approvals import gate, groups
from approvals.models import Approval
from console import channels, notices, webhooks
from console.channels import ChannelSpec
from console.models import Channel, Delivery
from runs import reminders, signoff
from runs.models import Run
from tenants import credentials
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, EgressAllow, User

from .receiver import SECRET, Receiver, courier, receiving, settled, until
from .test_approvers import part_over, soon
from .waiting import DIGEST, World, ask, make_late, make_world, person, queued, running, waiting

EVIL = '<!channel> @here <@U1> [x](http://evil.example.com) "quoted" \\ \n*bold*'


def told() -> list[str]:
    """The events in the outbox so far, oldest first. What is told at the end of a transaction is told now."""
    with connection.cursor() as cursor:
        cursor.execute("set constraints all immediate")
    return list(Delivery.objects.order_by("id").values_list("event", flat=True))


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def channel(world: World, receiver: Receiver | None = None, *, name: str = "desk", admin: Actor | None = None, **values: Any) -> Channel:
    actor = admin or person(world.tenant, f"ada-{name}", "admin")
    credentials.store(world.tenant, "hook-secret", "bearer", SECRET)
    credentials.store(world.tenant, "hook-url", "bearer", receiver.url if receiver else "https://hooks.example.com/services/T0/B0/xyz")
    if receiver:
        EgressAllow.objects.get_or_create(host_port=receiver.host_port)
    given: dict[str, Any] = {"kind": "webhook", "url_secret": "hook-url", "secret_name": "hook-secret", "events": notices.EVENTS} | values
    return channels.put(actor, world.tenant, name, ChannelSpec.model_validate(given))[0]


def decide(actor: Actor, approval: Approval, verdict: str = "approve", **more: Any) -> Any:
    return signoff.decide(actor, approval.id, verdict=verdict, digest=DIGEST, **more)


# what is told -----------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X2")
def test_a_request_is_told_when_it_opens_and_when_it_is_decided(world: World) -> None:
    channel(world)
    _, approval = waiting(world)
    assert told() == ["run.waiting_approval", "approval.requested"]
    decide(world.operator, approval)
    assert told()[2:] == ["approval.decided"]


def test_reminders_escalation_and_expiry_are_told_once(world: World) -> None:
    channel(world, events=notices.APPROVAL_EVENTS)
    groups.put(None, world.tenant, "heads", [])
    groups.put(None, world.tenant, "desk", [], "heads")
    _, approval = waiting(world, group="desk", expires_s=600)
    assert told() == ["approval.requested"]
    part_over(approval, 0.6)
    reminders.sweep()
    reminders.sweep()
    make_late(approval)
    signoff.expire_due()
    assert sorted(told()) == ["approval.escalated", "approval.expired", "approval.reminder", "approval.requested"]


def test_broken_glass_is_told(world: World) -> None:
    channel(world, events=["approval.break_glass"])
    _, approval = waiting(world, needed=2)
    decide(world.approver, approval, break_glass=True, reason="the house is on fire")
    assert told() == ["approval.break_glass"]


def test_what_a_standing_grant_answers_is_not_told(world: World) -> None:
    from approvals import standing

    channel(world, events=notices.APPROVAL_EVENTS)
    terms: dict[str, Any] = {"agent": "support-triage", "tool": "create_ticket", "most": 1, "reason": "routine", "expires_at": soon()}
    standing.give(world.approver, tenant=world.tenant, **terms)
    approval = ask(queued(world))
    assert gate.use_grant(approval, lambda condition, args: True)
    assert told() == []


def test_an_event_is_told_to_the_channels_of_its_tenant_that_listen_and_are_on(world: World) -> None:
    other = make_world("globex", "other-agent")
    channel(other)
    channel(world, name="off", enabled=False)
    channel(world, name="deaf", events=["run.failed"])
    ada = User.objects.get(username="ada-deaf")
    heard = channel(world, name="heard", events=["approval.requested"], admin=Actor(ada, world.tenant, "admin"))
    waiting(world)
    assert told() == ["approval.requested"]
    delivery = Delivery.objects.get()
    assert (delivery.channel, delivery.tenant, delivery.kind) == (heard, world.tenant, "webhook")
    assert delivery.url == f"channel://{heard.pk}/" and "hooks.example.com" not in json.dumps(delivery.body)


def test_an_event_that_is_taken_back_is_not_told(world: World) -> None:
    channel(world)
    run = running(world)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        ask(run)
        raise ZeroDivisionError
    assert told() == []


@pytest.mark.parametrize("state", ["failed", "quarantined", "succeeded"])
def test_the_ends_of_runs_are_told(world: World, state: str) -> None:
    channel(world, events=[f"run.{state}"])
    run = running(world)
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome="completed")
    assert told() == [f"run.{state}"]


# how it is told ---------------------------------------------------------------------------------------------------------------


def asked_and_told(receiver: Receiver, **values: Any) -> Approval:
    """A request in a new world with one channel to the receiver."""
    world = make_world()
    channel(world, receiver, **({"events": ["approval.requested"]} | values))
    return waiting(world, args=b'{"card":"4111 1111 1111 1111"}', why="because of 4111")[1]


@pytest.mark.mission("X2")
@pytest.mark.parametrize("kind", ["webhook", "slack", "teams"])
async def test_a_notice_is_signed_names_things_and_quotes_nothing(committed_db: None, kind: str) -> None:
    async with receiving() as receiver:
        approval = await sync_to_async(asked_and_told)(receiver, kind=kind)
        async with courier():
            await until(settled(1))
    ((headers, body),) = receiver.got
    now = int(headers["webhook-timestamp"])
    assert webhooks.verify(headers, body, [SECRET], now) == str(await Delivery.objects.aget())
    for told_of in (approval.tool, approval.agent, approval.effect, approval.digest, f"/approvals/{approval.approval_id}/"):
        assert told_of.encode() in body
    assert b"4111" not in body, "arguments and reasons stay at home"
    said = json.loads(body)
    if kind == "webhook":
        assert (said["type"], said["data"]["approval_id"]) == ("approval.requested", approval.approval_id)
    elif kind == "slack":
        assert {"text", "blocks"} == set(said) and said["blocks"][1]["elements"][0]["url"].endswith(f"/approvals/{approval.approval_id}/")
    else:
        card = said["attachments"][0]["content"]
        assert card["type"] == "AdaptiveCard" and card["actions"][0]["type"] == "Action.OpenUrl"


@pytest.mark.mission("X2")
async def test_what_was_changed_late_or_seen_before_is_not_believed(committed_db: None) -> None:
    async with receiving() as receiver:
        await sync_to_async(asked_and_told)(receiver, kind="slack")
        async with courier():
            await until(settled(1))
    ((headers, body),) = receiver.got
    now = int(headers["webhook-timestamp"])
    message = webhooks.verify(headers, body, [SECRET], now)
    tries: list[tuple[dict[str, str], bytes, int, tuple[str, ...]]] = [
        (headers, body.replace(b"create_ticket", b"delete_ticket"), now, ()),
        (headers | {"webhook-id": message + "x"}, body, now, ()),
        (headers | {"webhook-timestamp": str(now + 1)}, body, now, ()),
        (headers, body, now + webhooks.SKEW_S + 1, ()),
        (headers, body, now - webhooks.SKEW_S - 1, ()),
        (headers, body, now, (message,)),
    ]
    for given, text, at, seen in tries:
        with pytest.raises(webhooks.Unverified):
            webhooks.verify(given, text, [SECRET], at, seen)


@pytest.mark.mission("X2")
async def test_a_notice_arrives_after_an_outage_and_the_log_says_how_often_it_was_tried(committed_db: None) -> None:
    async with receiving(up=False) as receiver:
        await sync_to_async(asked_and_told)(receiver, kind="slack")
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
            receiver.status = 503
            await receiver.up()
            await Delivery.objects.aupdate(next_at=Now())
            await until(lambda: Delivery.objects.filter(attempts=2).exists())
            receiver.status = 200
            await Delivery.objects.aupdate(next_at=Now())
            await until(settled(1))
    delivery = await Delivery.objects.aget()
    assert [(line["status"], line["error"]) for line in delivery.log] == [(None, "connect"), (503, None), (200, None)]
    assert len(set(receiver.ids)) == 1


async def test_the_address_is_the_channels_own_when_it_is_sent(committed_db: None) -> None:
    async with receiving(up=False) as wrong, receiving() as right:
        await sync_to_async(asked_and_told)(wrong)
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
            tenant = (await Delivery.objects.select_related("tenant").aget()).tenant
            await sync_to_async(credentials.store)(tenant, "hook-url", "bearer", right.url)
            await EgressAllow.objects.aget_or_create(host_port=right.host_port)
            await Delivery.objects.aupdate(next_at=Now())
            await until(settled(1))
    assert len(right.got) == 1


@pytest.mark.parametrize(("spoil", "error"), [("channel", "channel_gone"), ("secret", "secret_missing"), ("url", "url_unusable")])
async def test_what_cannot_be_sent_says_why(committed_db: None, spoil: str, error: str) -> None:
    async with receiving() as receiver:
        await sync_to_async(asked_and_told)(receiver)
        if spoil == "channel":
            await Delivery.objects.aupdate(channel=None)
        elif spoil == "secret":
            from tenants.models import Credential

            await Credential.objects.filter(name="hook-secret").adelete()
        else:
            tenant = (await Delivery.objects.select_related("tenant").aget()).tenant
            await sync_to_async(credentials.store)(tenant, "hook-url", "bearer", "http://[::1/")
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
    assert (await Delivery.objects.aget()).log[0]["error"] == error and not receiver.got


@pytest.mark.mission("P13.1")
async def test_an_address_inside_is_not_called(committed_db: None) -> None:
    async with receiving() as receiver:
        await sync_to_async(asked_and_told)(receiver)
        await EgressAllow.objects.all().adelete()
        async with courier():
            await until(lambda: Delivery.objects.filter(attempts=1).exists())
    assert (await Delivery.objects.aget()).log[0]["error"] == "refused" and not receiver.got


async def test_a_letter_goes_to_every_address_with_a_link_that_only_shows(committed_db: None) -> None:
    values = {"kind": "email", "url_secret": "", "secret_name": "", "addresses": ["ops@example.com", "lead@example.com"]}
    approval = await sync_to_async(asked_and_told)(Receiver(9), **values)
    async with courier():
        await until(settled(1))
    (letter,) = mail.outbox
    assert letter.to == ["ops@example.com", "lead@example.com"] and letter.subject == "Approval needed: create_ticket by support-triage"
    assert f"/approvals/{approval.approval_id}/" in letter.body and "4111" not in letter.body
    assert (await Delivery.objects.aget()).log[0]["status"] == 250
    await approval.arefresh_from_db()
    assert approval.state == Approval.State.PENDING


async def test_a_mail_server_that_is_not_there_is_tried_again(committed_db: None, settings: Any) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", "127.0.0.1", 9
    values = {"kind": "email", "url_secret": "", "secret_name": "", "addresses": ["ops@example.com"]}
    await sync_to_async(asked_and_told)(Receiver(9), **values)
    async with courier():
        await until(lambda: Delivery.objects.filter(attempts=1).exists())
    delivery = await Delivery.objects.aget()
    assert (delivery.log[0]["error"], delivery.state) == ("connect", "pending")


# words that somebody chose ----------------------------------------------------------------------------------------------------


def evil(**values: Any) -> notices.Notice:
    given: dict[str, Any] = {
        "event": "approval.requested", "at": "2026-01-01T00:00:00Z", "title": EVIL, "facts": (("Tool", EVIL),), "data": {}, "link": "https://a/",
    } | values  # fmt: skip
    return notices.Notice(**given)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts(part)]


TEMPLATES = {
    "slack": {"text": "New: {title}", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "*{tool}* {link}"}}]},
    "teams": {"type": "message", "text": "{title} {tool}"},
}


@pytest.mark.mission("X2")
@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("kind", ["slack", "teams"])
def test_no_words_break_a_message_or_call_everybody(kind: str, template: bool) -> None:
    made = notices.body(kind, evil(), TEMPLATES[kind] if template else None)
    assert json.loads(json.dumps(made)) == made
    for text in texts(made):
        assert "@here" not in text and "\n" not in text and (kind == "slack" or "](http" not in text)
    marked = made["text"] if kind == "slack" or template else ""
    assert "<" not in marked
    if kind == "slack" and not template:
        assert made["blocks"][0]["text"]["type"] == "plain_text"


def test_a_webhook_carries_words_as_they_are() -> None:
    assert notices.body("webhook", evil())["data"]["title"] == EVIL


def test_a_template_is_filled_with_what_there_is() -> None:
    filled = notices.body("slack", evil(title="T", facts=()), {"text": "{title}|{tool}|{unknown}|{x y}", "n": [1, None, {"a": "{event}"}]})
    assert filled == {"text": "T||{unknown}|{x y}", "n": [1, None, {"a": "approval.requested"}]}
    assert notices.unknown({"a": ["{title}", {"b": "{secret} {x y}"}]}) == ["secret"]


# who may make one -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "pager"}, {"events": []}, {"events": ["approval.asked"]}, {"url": "ftp://example.com/"}, {"url": "https://a.example.com/"},
        {"url_secret": ""}, {"secret_name": ""}, {"addresses": ["a@example.com"]}, {"kind": "slack", "url": "https://hooks.slack.com/x"},
        {"kind": "teams", "url_secret": ""}, {"kind": "email"}, {"kind": "email", "url_secret": "", "secret_name": ""}, {"surprise": 1},
        {"kind": "email", "url_secret": "", "secret_name": "", "addresses": ["no address"]}, {"template": {"a": "{password}"}},
        {"template": {"a": "x" * 20_000}},
    ],
)  # fmt: skip
def test_a_channel_that_is_wrong_is_refused_before_anything_is_written(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"kind": "webhook", "url_secret": "hook-url", "secret_name": "hook-secret", "events": ["run.failed"]}
    ChannelSpec.model_validate(right)
    with pytest.raises(ValidationError):
        ChannelSpec.model_validate(right | wrong)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"url_secret": "gone"}, "secret_missing"), ({"secret_name": "gone"}, "secret_missing"), ({"name": "1 2"}, "bad_channel"),
        ({"url": "http://127.0.0.1:1/x", "url_secret": ""}, "egress_refused"),
        ({"url": "http://10.0.0.1/", "url_secret": ""}, "egress_refused"),
    ],
)  # fmt: skip
def test_a_channel_names_secrets_that_are_there_and_leads_outside(world: World, values: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        channel(world, **values)
    assert (refused.value.code, refused.value.status) == (code, 422) and not Channel.objects.exists()


def test_only_admins_make_channels_and_every_change_is_on_record(world: World) -> None:
    with pytest.raises(Refused) as refused:
        channel(world, admin=world.approver)
    assert refused.value.status == 403
    ada = person(world.tenant, "ada", "admin")
    made = channel(world, admin=ada)
    channel(world, admin=ada)
    channel(world, admin=ada, events=["run.failed"])
    waiting(world)
    channels.delete(ada, made)
    assert list(AuditEntry.objects.filter(object_kind="channel").values_list("action", flat=True).order_by("id")) == [
        "channel.created", "channel.updated", "channel.deleted",
    ]  # fmt: skip
    assert SECRET not in json.dumps(list(AuditEntry.objects.values_list("after", flat=True)))


def test_deleting_a_channel_gives_up_what_was_to_be_sent(world: World) -> None:
    ada = person(world.tenant, "ada", "admin")
    made = channel(world, admin=ada)
    waiting(world)
    assert told()
    channels.delete(ada, made)
    assert set(Delivery.objects.values_list("state", "channel")) == {("failed", None)}


async def test_a_test_message_goes_the_same_way(committed_db: None) -> None:
    async with receiving() as receiver:
        world = await sync_to_async(make_world)()
        ada = await sync_to_async(person)(world.tenant, "ada", "admin")
        made = await sync_to_async(channel)(world, receiver, admin=ada, kind="slack", enabled=False)
        await sync_to_async(channels.test)(ada, made)
        async with courier():
            await until(settled(1))
    assert json.loads(receiver.got[0][1])["text"] == "Test of the channel desk"
