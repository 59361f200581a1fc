"""Faults that are put into the demo world, from outside: what is applied, what is answered, and when they end."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from .sandbox_desk import TICKET, TICKETS, Client, desk, request, user

__all__ = ["desk"]


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500)])
async def test_an_injected_status_applies_nothing_and_ends_after_its_times(desk: Client, fault: str, status: int) -> None:
    await desk.fault("create_ticket", fault, 2)
    assert [(await desk.post(TICKETS, TICKET, "a"))[0] for _ in range(2)] == [status, status]
    assert await desk.effects() == []
    assert (await desk.post(TICKETS, TICKET, "a"))[0] == 200


@pytest.mark.parametrize(("target", "path"), [("create_ticket", TICKETS), ("model", "/v1/chat/completions")])
async def test_too_many_requests_says_when_to_come_back(desk: Client, target: str, path: str) -> None:
    await desk.fault(target, "429")
    async with desk.session.post(desk.url + path, json={}) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert "error" in await response.json()


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize(("fault", "applied"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_dropped_connection_gives_no_answer_and_the_ledger_knows_what_happened(desk: Client, fault: str, applied: int) -> None:
    await desk.fault("create_ticket", fault)
    with pytest.raises(aiohttp.ClientConnectionError):
        await desk.post(TICKETS, TICKET, "a")
    assert len(await desk.effects()) == applied
    _, again = await desk.post(TICKETS, TICKET, "a")
    assert again.get("already_applied", False) == bool(applied)
    assert [entry["fault"] for entry in await desk.received()] == [fault, None]


async def test_a_malformed_answer_is_sent_after_the_write_is_applied(desk: Client) -> None:
    await desk.fault("create_ticket", "malformed")
    with pytest.raises(json.JSONDecodeError):
        await desk.post(TICKETS, TICKET, "a")
    assert len(await desk.effects()) == 1


async def test_a_malformed_model_answers_html_with_status_200(desk: Client) -> None:
    await desk.fault("model", "malformed")
    async with desk.session.post(desk.url + "/v1/chat/completions", json=request([user("hi")])) as response:
        assert (response.status, response.content_type) == (200, "text/html")


@pytest.mark.parametrize("target", ["create_ticket", "model"])
async def test_latency_answers_late_but_whole(desk: Client, target: str) -> None:
    await desk.fault(target, "latency", ms=30)
    answers = {"create_ticket": await desk.post(TICKETS, TICKET, "a"), "model": await desk.chat("hi")}
    assert [status for status, _ in answers.values()] == [200, 200]
    assert (await desk.send("GET", "/faults"))[1]["faults"][0]["hits"] == 1


@pytest.mark.mission("P4.1")
async def test_a_caller_that_gives_up_waiting_leaves_an_applied_write(desk: Client) -> None:
    await desk.fault("create_ticket", "latency", ms=5000)
    with pytest.raises(TimeoutError):
        async with desk.session.post(desk.url + TICKETS, json=TICKET, headers={"Idempotency-Key": "a"}, timeout=aiohttp.ClientTimeout(0.3)):
            pass
    assert (await desk.post("/desk/lookup", {"idem_key": "a"}))[1]["found"] is True


async def test_a_slow_drip_sends_the_body_in_pieces_and_ends(desk: Client) -> None:
    await desk.fault("create_ticket", "slow_drip", ms=200)
    async with desk.session.post(desk.url + TICKETS, json=TICKET) as response:
        pieces = [piece async for piece in response.content.iter_any()]
    assert len(pieces) > 5 and json.loads(b"".join(pieces))["status"] == "open"


async def test_a_hang_applies_nothing_and_ends_without_an_answer(desk: Client) -> None:
    await desk.fault("create_ticket", "hang", ms=30)
    with pytest.raises(aiohttp.ClientConnectionError):
        await desk.post(TICKETS, TICKET, "a")
    assert await desk.effects() == []


async def test_clearing_the_faults_lets_go_of_a_request_that_hangs(desk: Client) -> None:
    await desk.fault("model", "hang", -1, ms=60_000)

    async def ask() -> None:
        with pytest.raises(aiohttp.ClientConnectionError):
            await desk.chat("hi")

    asking = asyncio.create_task(ask())
    while not await desk.received():
        pass
    await desk.send("DELETE", "/faults")
    await asking
    assert (await desk.chat("hi"))[0] == 200


async def test_a_fault_with_a_match_leaves_other_requests_alone(desk: Client) -> None:
    await desk.fault("create_ticket", "500", -1, match="acct_1002")
    assert (await desk.post(TICKETS, TICKET))[0] == 200
    assert (await desk.post(TICKETS, TICKET | {"account_id": "acct_1002"}))[0] == 500


async def test_a_fault_without_end_lasts_until_it_is_cleared(desk: Client) -> None:
    await desk.fault("create_ticket", "500", -1)
    await desk.fault("model", "500", -1)
    assert {(await desk.post(TICKETS, TICKET))[0] for _ in range(5)} == {500}
    await desk.send("DELETE", "/faults?target=create_ticket")
    assert ((await desk.post(TICKETS, TICKET))[0], (await desk.chat("hi"))[0]) == (200, 500)
    await desk.send("DELETE", "/faults")
    assert (await desk.chat("hi"))[0] == 200


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"target": "create_tickets", "fault": "500", "times": 1}, "unknown target"),
        ({"target": "model", "fault": "explode", "times": 1}, "unknown fault"),
        ({"target": "model", "fault": "500", "times": 0}, "times"),
        ({"target": "model", "fault": "500", "times": True}, "times"),
        ({"target": "model", "fault": "hang", "times": 1, "ms": 120_001}, "ms"),
        ({"target": "model", "fault": "slow_drip", "times": 1, "ms": 60_001}, "ms"),
        ({"target": "model", "fault": "500", "times": 1, "ms": 5}, "ms"),
        ({"target": "model", "fault": "500", "times": 1, "match": 5}, "match"),
        ({"target": "model", "fault": "500", "times": 1, "matches": "x"}, "matches"),
        ([], "object"),
    ],
)
async def test_a_fault_that_is_not_known_is_refused(desk: Client, value: Any, says: str) -> None:
    status, body = await desk.send("PUT", "/faults", value)
    assert status == 422 and says in body["error"]
    assert (await desk.send("GET", "/faults"))[1] == {"faults": []}
