"""The demo world from outside: its ledger, what it takes, and what it refuses."""

from typing import Any

import pytest

from console.sandbox.handbook import search
from console.sandbox.world import args_sha256

from .sandbox_desk import TICKET, TICKETS, Client, desk, use

__all__ = ["desk"]


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
