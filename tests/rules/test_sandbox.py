"""The demo world from outside: faults, ledger, idempotency, scripted turns and the stories the demo tells."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import yaml

from console.sandbox.conversation import read_conversation
from console.sandbox.fixtures import start
from console.sandbox.handbook import search
from console.sandbox.stories import decide
from console.sandbox.world import args_sha256
from tools.lint import findings
from tools.spec import ToolSpec

TICKET = {"account_id": "acct_1001", "priority": "urgent", "summary": "charged twice"}
TICKETS = "/desk/tickets"
DEMO = Path(__file__).parents[2] / "console" / "sandbox" / "demo.yaml"


class Client:
    """Talks to one sandbox over a new connection each time, as separate callers would."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def send(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, Any]:
        return await self.send("POST", path, body, key)

    async def fault(self, target: str, fault: str, times: int = 1, **more: Any) -> None:
        status, answer = await self.send("PUT", "/faults", {"target": target, "fault": fault, "times": times, **more})
        assert status == 200, answer

    async def effects(self, query: str = "") -> list[dict[str, Any]]:
        return (await self.send("GET", "/ledger" + query))[1]["effects"]

    async def received(self) -> list[dict[str, Any]]:
        return (await self.send("GET", "/received"))[1]["requests"]

    async def chat(self, text: str, *tools: str, model: str = "sim-medium", **more: Any) -> tuple[int, Any]:
        return await self.post("/v1/chat/completions", request([user(text)], tools, model, **more))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def request(messages: list[Any], tools: tuple[str, ...] = (), model: str = "sim-medium", **more: Any) -> dict[str, Any]:
    offered = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in tools]
    return {"model": model, "messages": messages, **({"tools": offered} if offered else {}), **more}


@pytest.fixture
async def desk() -> AsyncIterator[Client]:
    runner, url = await start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield Client(session, url)
    await runner.cleanup()


def demo() -> dict[str, Any]:
    return yaml.safe_load(DEMO.read_text())


TOOLS = {tool["name"]: tool for tool in demo()["tools"]}


async def play(
    desk: Client, text: str, tools: tuple[str, ...], *, model: str = "sim-medium", **answers: dict[str, Any]
) -> tuple[list[str], str]:
    """Plays a whole conversation as an agent would; `answers` replaces the desk's result of a tool.

    Returns the names of the tools called, in order, and the final text. Checks every message against demo.yaml.
    """
    messages, called = [user(text)], []
    for turn in range(10):
        status, body = await desk.post("/v1/chat/completions", request(messages, tools, model))
        assert status == 200, body
        message = body["choices"][0]["message"]
        if not message.get("tool_calls"):
            assert body["choices"][0]["finish_reason"] == "stop"
            return called, message["content"]
        (call,) = message["tool_calls"]
        name, args = call["function"]["name"], json.loads(call["function"]["arguments"])
        jsonschema_rs.validate(TOOLS[name]["input_schema"], args)
        called.append(name)
        result = answers.get(name) or await use(desk, name, args, f"{text}/{turn}")
        messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}]
    raise AssertionError("the story does not end")


async def use(desk: Client, name: str, args: Any, key: str) -> dict[str, Any]:
    path = TOOLS[name]["adapter"]["url"].removeprefix("${SANDBOX_URL}")
    status, body = await desk.post(path, args, key)
    if status != 200:
        return {"ok": False, "error_type": "validation", "message": body["error"]}
    jsonschema_rs.validate(TOOLS[name]["output_schema"], body)
    return {"ok": True, **body}


# --- ledger and idempotency ---------------------------------------------------------------------------------------


async def test_a_write_enters_the_ledger_with_its_key_and_the_hash_of_its_arguments(desk: Client) -> None:
    status, body = await desk.post(TICKETS, TICKET, "key-1")
    (effect,) = await desk.effects()
    assert (status, body["status"]) == (200, "open")
    assert set(effect) == {"tool", "key", "args_sha256", "at"}
    assert (effect["tool"], effect["key"], effect["args_sha256"]) == ("create_ticket", "key-1", args_sha256(TICKET))


@pytest.mark.mission("P3.4")
async def test_the_same_key_and_arguments_get_the_first_answer_and_one_effect(desk: Client) -> None:
    _, first = await desk.post(TICKETS, TICKET, "key-1")
    status, again = await desk.post(TICKETS, dict(reversed(TICKET.items())), "key-1")
    assert (status, again) == (200, first | {"already_applied": True})
    assert len(await desk.effects()) == 1


async def test_the_same_key_with_other_arguments_is_refused(desk: Client) -> None:
    await desk.post(TICKETS, TICKET, "key-1")
    status, body = await desk.post(TICKETS, TICKET | {"priority": "low"}, "key-1")
    assert status == 422 and "other arguments" in body["error"]
    assert len(await desk.effects()) == 1


async def test_equal_writes_with_different_keys_or_none_are_different_effects(desk: Client) -> None:
    tickets = {(await desk.post(TICKETS, TICKET, key))[1]["ticket_id"] for key in ("a", "b", None, None)}
    assert len(tickets) == len(await desk.effects()) == 4


async def test_mail_is_sent_again_for_the_same_key_because_its_service_knows_no_keys(desk: Client) -> None:
    mail = {"to": "a@b.example", "subject": "s", "body": "b"}
    for _ in range(2):
        assert (await desk.post("/desk/emails", mail, "key-1"))[0] == 200
    assert [effect["key"] for effect in await desk.effects()] == ["key-1", "key-1"]


async def test_the_ledger_can_be_asked_since_a_moment_in_seconds_or_as_a_time(desk: Client) -> None:
    await desk.post(TICKETS, TICKET, "a")
    (effect,) = await desk.effects()
    assert await desk.effects(f"?since={effect['at']}") == await desk.effects("?since=0.5") == [effect]
    assert await desk.effects("?since=2999-01-01T00:00:00+00:00") == await desk.effects("?since=99999999999") == []
    assert (await desk.send("GET", "/ledger?since=yesterday"))[0] == 422


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_lookup_tells_whether_a_key_was_applied(desk: Client, method: str) -> None:
    await desk.post(TICKETS, TICKET, "key-1")
    (effect,) = await desk.effects()

    async def look(key: str) -> Any:
        if method == "POST":
            return await desk.post("/desk/lookup", {"idem_key": key})
        return await desk.send("GET", f"/desk/lookup?idem_key={key}")

    assert await look("key-1") == (200, {"found": True, "tool": "create_ticket", "at": effect["at"]})
    assert await look("key-2") == (200, {"found": False, "tool": None, "at": None})


async def test_reset_clears_ledger_faults_keys_and_data(desk: Client) -> None:
    await desk.post("/desk/accounts/delete", {"account_id": "acct_1002"}, "key-1")
    await desk.fault("create_ticket", "500", -1)
    await desk.post("/reset", None)
    assert await desk.effects() == [] and await desk.received() == []
    assert (await desk.send("GET", "/faults"))[1] == {"faults": []}
    assert (await desk.post("/desk/accounts/fetch", {"account_id": "acct_1002"}))[0] == 200
    assert "already_applied" not in (await desk.post(TICKETS, TICKET, "key-1"))[1]


# --- the desk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "args", "field"),
    [
        (TICKETS, TICKET | {"priority": "now"}, "priority"),
        (TICKETS, TICKET | {"summary": "x" * 281}, "summary too long"),
        (TICKETS, TICKET | {"colour": "red"}, "colour"),
        (TICKETS, {"account_id": "acct_1001"}, "priority is missing"),
        (TICKETS, [], "object"),
        ("/desk/accounts/fetch", {"account_id": 1001}, "account_id"),
        ("/desk/docs/search", {"query": "refund", "limit": 50}, "limit"),
        ("/desk/emails", {"to": "nobody", "subject": "s", "body": "b"}, "to"),
    ],
)
async def test_bad_input_is_refused_with_a_sentence_and_changes_nothing(desk: Client, path: str, args: Any, field: str) -> None:
    status, body = await desk.post(path, args, "key-1")
    assert status == 422 and field in body["error"]
    assert await desk.effects() == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 50_000, b'{"account_id": NaN}'])
async def test_a_body_that_is_not_json_is_refused(desk: Client, raw: bytes) -> None:
    async with desk.session.post(desk.url + "/desk/accounts/fetch", data=raw) as response:
        assert response.status == 422 and "error" in await response.json()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"amount": 20.5}, 200),
        ({"amount": 49.01}, 422),
        ({"amount": 0.001}, 422),
        ({"amount": True}, 422),
        ({"currency": "EUR"}, 422),
        ({"charge_id": "ch_00000000"}, 404),
        ({"account_id": "acct_9999"}, 404),
    ],
)
async def test_a_refund_is_checked_against_the_charge(desk: Client, change: dict[str, Any], status: int) -> None:
    _, listed = await desk.post("/desk/charges/list", {"account_id": "acct_1001"})
    refund = {"charge_id": listed["charges"][-1]["charge_id"], "amount": 49, "currency": "USD", "reason": "duplicate"}
    answer = await desk.post("/desk/refunds", {"account_id": "acct_1001", **refund, **change}, "a")
    assert answer[0] == status, answer
    assert len(await desk.effects()) == (status == 200)


async def test_a_charge_is_never_refunded_beyond_its_amount(desk: Client) -> None:
    _, listed = await desk.post("/desk/charges/list", {"account_id": "acct_1001"})
    charge_id = listed["charges"][-1]["charge_id"]
    refund = {"account_id": "acct_1001", "charge_id": charge_id, "currency": "USD", "reason": "goodwill"}
    answers = [await desk.post("/desk/refunds", refund | {"amount": n}, f"key-{n}") for n in (40, 9.5, 9, 1)]
    assert [status for status, _ in answers] == [200, 422, 200, 409]


async def test_twenty_accounts_are_built_in_and_some_were_charged_twice(desk: Client) -> None:
    duplicated = []
    for number in range(1001, 1021):
        account_id = {"account_id": f"acct_{number}"}
        await use(desk, "fetch_account", account_id, "")
        invoices = [c["invoice"] for c in (await use(desk, "list_charges", account_id, ""))["charges"]]
        duplicated += [number] if len(invoices) > len(set(invoices)) else []
    assert duplicated == [1001, 1004, 1009, 1012, 1017]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("What is your refund policy?", "Refund policy"),
        ("how long does shipping take", "Shipping of hardware"),
        ("can I return a broken reader", "Returns of hardware"),
        ("delete an account", "Account deletion"),
        ("how long are logs retained", "Data retention"),
        ("outage credit", "Outage handling"),
        ("disputed or duplicate charges", "Refund policy"),
    ],
)
def test_the_handbook_finds_the_article(query: str, title: str) -> None:
    assert search(query)[0]["title"] == title


def test_the_handbook_finds_nothing_for_unknown_words() -> None:
    assert search("zebra giraffe") == search("what is the") == []


# --- faults -------------------------------------------------------------------------------------------------------


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


# --- the simulated model: wire and scripts ------------------------------------------------------------------------


def script(*turns: dict[str, Any]) -> str:
    return "Do as the script says.\n#sim " + json.dumps({"turns": turns})


async def test_the_model_says_that_it_is_simulated_and_counts_its_tokens(desk: Client) -> None:
    _, body = await desk.chat("Hello!", model="sim-small")
    text = body["choices"][0]["message"]["content"]
    assert body["model"] == "sim-small (simulated)" and text.endswith("This answer is simulated.")
    assert body["usage"]["completion_tokens"] == -(-len(text) // 4)
    assert body["usage"]["total_tokens"] == sum(body["usage"][k] for k in ("prompt_tokens", "completion_tokens"))
    assert (await desk.chat("Hello!", model="sim-small"))[1] == body


async def test_the_models_are_listed(desk: Client) -> None:
    _, body = await desk.send("GET", "/v1/models")
    assert [model["id"] for model in body["data"]] == ["sim-small", "sim-medium", "sim-large", "sim-script", "sim-looping"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (request([user("hi")], stream=True), 400),
        (request([user("hi")], model="other"), 404),
        (request([]), 400),
        ({"model": "sim-small", "messages": "hi"}, 400),
        ([], 400),
        (request([user("#sim {oops")]), 400),
        (request([user('#sim {"turns": [{"txet": "hi"}]}')]), 400),
        (request([user('#sim {"turns": [{"calls": [{"nmae": "x"}]}]}')]), 400),
    ],
)
async def test_a_request_the_model_cannot_take_is_an_error_in_its_shape(desk: Client, body: Any, status: int) -> None:
    got, answer = await desk.post("/v1/chat/completions", body)
    assert got == status and set(answer["error"]) == {"message", "type", "param", "code"}


async def test_an_answer_longer_than_allowed_is_cut_and_says_so(desk: Client) -> None:
    _, body = await desk.chat("hello", max_tokens=5)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("model", ["sim-small", "sim-medium", "sim-large", "sim-script", "sim-looping"])
async def test_scripted_turns_come_in_order_for_every_model(desk: Client, model: str) -> None:
    first = {"calls": [{"name": "create_ticket", "arguments": TICKET}, {"name": "nope", "arguments_raw": "not json"}]}
    messages = [user("before"), {"role": "assistant", "content": "x"}, user(script(first, {"text": "done"}))]
    texts = []
    for _ in range(3):
        _, body = await desk.post("/v1/chat/completions", request(messages, (), model))
        messages.append(body["choices"][0]["message"])
        texts.append(messages[-1]["content"])
    calls = messages[3]["tool_calls"]
    assert [c["function"]["name"] for c in calls] == ["create_ticket", "nope"]
    assert json.loads(calls[0]["function"]["arguments"]) == TICKET and calls[1]["function"]["arguments"] == "not json"
    assert calls[0]["id"] != calls[1]["id"]
    assert texts == [None, "done", "The script is over."]


async def test_a_script_can_break_every_rule_of_the_wire(desk: Client) -> None:
    async def choice(**turn: Any) -> Any:
        return (await desk.chat(script(turn)))[1]["choices"][0]

    cut = await choice(text="cut", finish_reason="length")
    assert (cut["message"]["content"], cut["finish_reason"]) == ("cut", "length")
    assert (await choice(empty=True))["message"]["content"] is None
    assert (await choice(text="no", refusal="I will not"))["message"]["refusal"] == "I will not"
    assert (await desk.chat(script({"no_choices": True})))[1]["choices"] == []
    assert "usage" not in (await desk.chat(script({"text": "x", "usage": None})))[1]
    assert (await desk.chat(script({"text": "x", "usage": {"prompt_tokens": -5}})))[1]["usage"] == {"prompt_tokens": -5}
    assert (await desk.chat(script({"status": 500})))[0] == 500
    assert (await desk.chat(script({"text": "late", "latency_ms": 20})))[0] == 200
    ids = [{"name": "a", "id": "same"}, {"name": "b", "id": "same"}, {"name": "c", "id": None}]
    assert [c.get("id") for c in (await choice(calls=ids))["message"]["tool_calls"]] == ["same", "same", None]


async def test_a_script_can_answer_html_and_name_a_time_to_come_back(desk: Client) -> None:
    url = desk.url + "/v1/chat/completions"
    async with desk.session.post(url, json=request([user(script({"raw": "<html>busy"}))])) as response:
        assert (response.status, await response.text()) == (200, "<html>busy")
    async with desk.session.post(url, json=request([user(script({"status": 429, "retry_after": 3}))])) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize("alone", [False, True])
async def test_a_repeated_turn_never_ends(desk: Client, alone: bool) -> None:
    call = {"calls": [{"name": "search_docs", "arguments": {"query": "again"}}]}
    turns = [{"text": "never"}, call, {"repeat": True}] if alone else [{"text": "never"}, call | {"repeat": True}]
    messages = [user(script(*turns)), *({"role": "assistant", "content": "x"} for _ in range(7))]
    _, body = await desk.post("/v1/chat/completions", request(messages))
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "search_docs"


# --- the stories --------------------------------------------------------------------------------------------------

TRIAGE = ("search_docs", "fetch_account", "create_ticket")
REFUNDS = ("fetch_account", "list_charges", "issue_refund", "search_docs")
CARE = ("fetch_account", "search_docs", "send_email", "delete_account")


@pytest.mark.parametrize("question", ["What is your refund policy?", "How long do you keep request logs?"])
async def test_a_question_about_a_policy_is_answered_from_the_handbook(desk: Client, question: str) -> None:
    called, text = await play(desk, question, TRIAGE)
    assert called == ["search_docs"] and "30 days" in text and await desk.effects() == []


async def test_an_urgent_complaint_leads_to_a_ticket_that_the_answer_names(desk: Client) -> None:
    called, text = await play(desk, "URGENT: acct_1004 was charged twice this month!", TRIAGE)
    assert called == ["fetch_account", "search_docs", "create_ticket"]
    assert re.search(r"tkt_[0-9a-f]{8}", text)
    assert [effect["tool"] for effect in await desk.effects()] == ["create_ticket"]


async def test_a_complaint_without_an_account_is_about_the_first_one(desk: Client) -> None:
    _, text = await play(desk, "I have a complaint about a charge", TRIAGE)
    assert "acct_1001" in text


async def test_a_refund_goes_to_the_later_of_two_equal_charges(desk: Client) -> None:
    called, text = await play(desk, "Please refund acct_1012, they were charged twice", REFUNDS)
    assert called == ["fetch_account", "list_charges", "issue_refund"] and re.search(r"rf_[0-9a-f]{8}", text)
    _, listed = await desk.post("/desk/charges/list", {"account_id": "acct_1012"})
    assert [c["status"] for c in listed["charges"]] == ["paid", "paid", "paid", "refunded"]


async def test_no_duplicate_means_no_refund(desk: Client) -> None:
    called, text = await play(desk, "Refund acct_1002 please", REFUNDS)
    assert called == ["fetch_account", "list_charges"] and "no duplicate" in text


async def test_a_deletion_reads_the_account_first(desk: Client) -> None:
    called, text = await play(desk, "Please delete the account acct_1003", CARE)
    assert called == ["fetch_account", "delete_account"] and "is deleted" in text


async def test_a_deletion_of_no_named_account_asks_which(desk: Client) -> None:
    called, text = await play(desk, "Delete my account", CARE)
    assert called == [] and "Which account" in text


async def test_a_question_that_names_an_account_and_a_policy_changes_nothing(desk: Client) -> None:
    called, _ = await play(desk, "What is the refund policy for acct_1001?", REFUNDS)
    assert called == ["search_docs"]


async def test_an_agent_that_cannot_refund_opens_a_ticket_for_somebody_who_can(desk: Client) -> None:
    called, _ = await play(desk, "Please refund acct_1004", TRIAGE)
    assert called[-1] == "create_ticket"


async def test_a_message_goes_to_the_address_on_the_account(desk: Client) -> None:
    called, text = await play(desk, "Send acct_1001 an email that their invoice is paid", CARE)
    assert called == ["fetch_account", "send_email"] and "billing@harbour.example" in text


async def test_a_question_about_an_account_is_answered_from_it(desk: Client) -> None:
    called, text = await play(desk, "What is the plan of acct_1003?", CARE)
    assert called == ["fetch_account"] and "business" in text


@pytest.mark.mission("P6.2")
@pytest.mark.parametrize(
    "result",
    [
        {"ok": False, "error_type": "approval_rejected", "message": "the approver said no"},
        {"ok": False, "error_type": "policy_denied", "message": "the approver said no"},
        {"ok": True, "status": "drafted", "message": "the approver said no"},
        {"ok": False, "error_type": "timeout", "message": "the approver said no"},
    ],
)
async def test_a_write_that_did_not_happen_is_told_truthfully(desk: Client, result: dict[str, Any]) -> None:
    called, text = await play(desk, "urgent: charged twice", TRIAGE, create_ticket=result)
    assert called[-1] == "create_ticket" and "The ticket was not created: the approver said no." in text


@pytest.mark.mission("P3.5")
async def test_an_unknown_write_is_claimed_neither_way(desk: Client) -> None:
    unknown = {"ok": False, "error_type": "unknown", "message": "the connection was lost"}
    _, text = await play(desk, "Refund acct_1001", REFUNDS, issue_refund=unknown)
    assert "not known yet" in text and "refunded" not in text


@pytest.mark.parametrize("tool", ["fetch_account", "list_charges"])
async def test_a_refund_stops_when_what_it_rests_on_cannot_be_read(desk: Client, tool: str) -> None:
    down = {"ok": False, "error_type": "transient_upstream", "message": "the service is down"}
    called, text = await play(desk, "Refund acct_1001", REFUNDS, **{tool: down})
    assert called[-1] == tool and "nothing was refunded: the service is down." in text


async def test_a_search_that_finds_nothing_is_tried_once_more_in_other_words(desk: Client) -> None:
    called, text = await play(desk, "What is the zebra giraffe?", TRIAGE, search_docs={"ok": True, "passages": []})
    assert called == ["search_docs", "search_docs"] and "nothing about this" in text


@pytest.mark.parametrize("text", ["What is your refund policy?", "urgent: charged twice", "Refund acct_1001", "delete acct_1003", "hello"])
async def test_without_tools_the_model_answers_at_once(desk: Client, text: str) -> None:
    called, answer = await play(desk, text, ())
    assert called == [] and answer.endswith("This answer is simulated.")


async def test_tools_taken_away_on_the_way_end_the_story_truthfully(desk: Client) -> None:
    called, text = await play(desk, "urgent: charged twice", ("fetch_account", "search_docs"))
    assert called == ["fetch_account", "search_docs"] and "The ticket was not created" in text


# --- the demo's configuration -------------------------------------------------------------------------------------


@pytest.mark.mission("P2.2")
@pytest.mark.parametrize("name", TOOLS)
def test_the_demo_s_schemas_are_closed_and_pass_the_lint(name: str) -> None:
    for schema in (TOOLS[name]["input_schema"], TOOLS[name]["output_schema"]):
        assert schema["additionalProperties"] is False
    block = {key: part for key, part in TOOLS[name].items() if key != "name"}
    block["adapter"] = {"kind": "http", "url": "https://desk.example.com/"}
    for probe in ("verify", "preview"):
        block.pop(probe, None)
    assert findings(name, ToolSpec.model_validate(block)) == ()


def test_the_demo_names_only_what_it_defines() -> None:
    document = demo()
    models = {model["name"] for model in document["models"]}
    for agent in document["agents"]:
        release = agent["release"]
        assert set(release["tools"]) <= set(TOOLS)
        planner = release["models"]["planner"]
        assert {planner["model"], *planner["fallback"]} <= set(release["budget"]["allowed_models"]) <= models
    assert {row["tool"] for row in document["permissions"]} <= set(TOOLS)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("URGENT: I was charged twice on acct_1001", ["fetch_account"] * 3 + ["create_ticket"] * 2),
        ("Please look at acct_1001", ["fetch_account"] * 3),
        ("Hello!", []),
    ],
)
async def test_the_planner_that_got_worse_asks_three_times_and_opens_one_more_ticket(desk: Client, text: str, calls: list[str]) -> None:
    tools = ("fetch_account", "create_ticket")
    good, worse = await play(desk, text, tools), await play(desk, text, tools, model="sim-looping")
    assert good[0] == list(dict.fromkeys(calls))
    assert worse[0] == calls
    tickets = [effect["args_sha256"] for effect in await desk.effects() if effect["tool"] == "create_ticket"]
    assert len(set(tickets)) == calls.count("create_ticket")  # the first of them twice: each planner opened it


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("How much tea is in stock?", [("check_stock", {"item": "tea"})]),
        ("Check the cups, then order 250.", [("check_stock", {"item": "cups"}), ("order_item", {"item": "cups", "quantity": 100})]),
        ("Good morning", []),
    ],
)
def test_a_tool_of_ones_own_is_called_when_its_name_shares_a_word_with_the_question(text: str, calls: list[Any]) -> None:
    item = {"enum": ["tea", "cups"]}
    shapes = {"check_stock": {"item": item}, "order_item": {"item": item, "quantity": {"type": "integer", "minimum": 1, "maximum": 100}}}
    parameters = {name: {"type": "object", "required": list(fields), "properties": fields} for name, fields in shapes.items()}
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters[name]}} for name in shapes]
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    for name, arguments in calls:
        turn = decide(read_conversation({"messages": messages, "tools": tools}))
        assert turn == {"calls": [{"name": name, "arguments": arguments}]}
        call = {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": name, "content": '{"ok": true, "left": 3}'})
    last = decide(read_conversation({"messages": messages, "tools": tools}))["text"]
    assert last == (" ".join(f"{name}: left 3." for name, _ in calls) or last) and "calls" not in last
