"""Who is told, and what hostile and slow clients may do: nothing to others."""

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from console.csp import HEADERS
from tenants.models import Member
from tests.runtime import waiting

from .live_site import Site, queued, seqs, site, soon, sub, topic_of, world

pytestmark = pytest.mark.mission("P13.7")
__all__ = ["site", "world"]


# rights ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8000", "null", None])
async def test_a_page_of_another_origin_opens_no_socket(world: waiting.World, site: Site, origin: Any) -> None:
    assert await site.refusal(world.operator, origin=origin) == 403


async def test_nobody_opens_a_socket_without_a_session(world: waiting.World, site: Site) -> None:
    assert await site.refusal() == 403
    assert await site.refusal(cookie="sessionid=abc") == 403
    for path in ("/ws", "/nowhere"):  # what a refused handshake is answered with has the policy of every answer
        answered = await site.headers_of_refusal(path)
        assert {name: answered.get(name) for name in HEADERS} == HEADERS


async def test_another_tenants_run_is_an_unknown_topic_and_its_moves_are_not_heard(world: waiting.World, site: Site) -> None:
    theirs = await sync_to_async(lambda: waiting.queued(waiting.make_world("globex", "other-agent")))()
    ours = await queued(world)
    names = [topic_of(theirs), "run:agt_nonsense", "run:", "secrets"]
    async with site.open(world.operator) as page:
        said = await page.follow(*names, "runs", "approvals")
        assert [m["topic"] for m in said if m.get("op") == "error"] == names
        assert {m["code"] for m in said if m.get("op") == "error"} == {"unknown_topic"}
        await soon(theirs, 3)
        await soon(ours)
        got = await page.until(lambda m: m.get("k") == "run")
    assert got[-1]["d"]["id"] == ours.run_id
    assert theirs.run_id not in json.dumps(got)
    assert got[-1]["d"]["counts"]["runs"] == 1


async def test_a_platform_admin_follows_every_tenant(world: waiting.World, site: Site) -> None:
    theirs = await sync_to_async(lambda: waiting.queued(waiting.make_world("globex", "other-agent")))()
    await queued(world)
    admin = await sync_to_async(waiting.person)(world.tenant, "root", "admin", platform=True)
    async with site.open(admin) as page:
        await page.follow("runs")
        await soon(theirs)
        got = await page.until(lambda m: m.get("k") == "run")
    assert (got[-1]["d"]["id"], got[-1]["d"]["counts"]["runs"]) == (theirs.run_id, 2)


def remove(actor: Any) -> None:
    Member.objects.filter(user=actor.user).delete()


def demote(actor: Any) -> None:
    Member.objects.filter(user=actor.user).update(role="viewer")


def change_password(actor: Any) -> None:
    actor.user.set_password("another password")
    actor.user.save()


def switch_off(actor: Any) -> None:
    actor.user.is_active = False
    actor.user.save()


def sign_out(actor: Any) -> None:
    from console.models import ConsoleSession

    ConsoleSession.objects.all().delete()


@pytest.mark.parametrize(
    ("change", "code"), [(remove, 4403), (demote, 4403), (change_password, 4401), (switch_off, 4401), (sign_out, 4401)]
)
async def test_whoever_lost_their_rights_is_cut(world: waiting.World, site: Site, monkeypatch: Any, change: Any, code: int) -> None:
    monkeypatch.setattr("console.live.consumer.RECHECK_S", 0.05)
    run = await queued(world)
    async with site.open(world.operator) as page:
        await page.follow("runs", topic_of(run))
        await sync_to_async(change)(world.operator)
        assert await page.closed() == code


# hostile and slow clients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{", "bad_json"),
        ("[" * 5000, "bad_json"),
        ("\x00", "bad_json"),
        ("[]", "unknown_op"),
        ("1", "unknown_op"),
        ({"op": "shout"}, "unknown_op"),
        ({"op": ["sub"]}, "unknown_op"),
        ({"op": "sub"}, "bad_message"),
        ({"op": "sub", "topics": "runs"}, "bad_message"),
        ({"op": "sub", "topics": [{"t": 1}]}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": -1}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": 2**70}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": True}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": [1]}, "bad_message"),
        ({"op": "sub", "topics": ["run:\ud800"]}, "unknown_topic"),
        ({"op": "sub", "topics": [f"run:{n}" for n in range(51)]}, "too_many_topics"),
    ],
)
async def test_what_makes_no_sense_is_answered_with_a_typed_error_and_the_socket_goes_on(
    world: waiting.World, site: Site, said: Any, code: str
) -> None:
    async with site.open(world.operator) as page:
        await page.say(said)
        answer = await page.next()
        assert (answer["op"], answer["code"]) == ("error", code)
        await page.say({"op": "ping"})
        assert await page.next() == {"op": "pong"}


@pytest.mark.parametrize("said", [b"\x00\x01", json.dumps({"op": "ping", "pad": "x" * 17_000})])
async def test_binary_and_oversized_messages_end_the_socket(world: waiting.World, site: Site, said: Any) -> None:
    async with site.open(world.operator) as page:
        await page.say(said)
        assert await page.closed() == 4400


async def test_a_flood_of_messages_ends_the_socket(world: waiting.World, site: Site) -> None:
    async with site.open(world.operator) as page:
        for _ in range(25):
            await page.say({"op": "ping"})
        assert await page.closed() == 4400


async def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody(world: waiting.World, site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.live.consumer.WAITING", 50)
    run = await queued(world)
    async with site.open(world.operator, max_queue=1) as slow, site.open(world.operator) as quick:
        await sub(slow, run, 1)
        await sub(quick, run, 1)
        slow.socket.transport.pause_reading()
        got = []
        for _ in range(40):
            await soon(run, 25, "x" * 5_000)
            got += seqs(await quick.until(lambda m: m["seq"] % 25 == 1), topic_of(run))
        assert got == list(range(2, 1002))
        slow.socket.transport.resume_reading()
        assert await slow.closed() == 4408


async def test_any_other_path_is_refused(world: waiting.World, site: Site) -> None:
    site.url += "/else"
    assert await site.refusal(world.operator) == 403
