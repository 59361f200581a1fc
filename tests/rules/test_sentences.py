"""One plain sentence for what a call will do: right for known shapes, and never made of free text."""

from typing import Any

import pytest

from console.sentences import happens, headline, plain, rows


def says(tool: str, args: Any, effect: str = "write") -> str:
    return plain(happens(tool, effect, args))


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize(
    ("tool", "args", "sentence"),
    [
        (
            "create_ticket",
            {"account_id": "acct_1001", "priority": "urgent", "summary": "Charged twice"},
            "create_ticket will open an urgent ticket for acct_1001",
        ),
        (
            "issue_refund",
            {"account_id": "acct_1001", "charge_id": "ch_9f2lq7", "amount": 49.5, "currency": "USD", "reason": "duplicate"},
            "issue_refund will issue a refund of 49.5 USD to acct_1001 for charge ch_9f2lq7",
        ),
        ("send_email", {"to": "bo@example.com", "subject": "Hi", "body": "x"}, "send_email will send an email to bo@example.com"),
        ("send_email", {"to": ["a@x", "b@x"]}, "send_email will send an email to 2 addresses"),
        ("payments.refund", {"amount": 1240, "currency": "EUR"}, "payments.refund will refund 1240 EUR"),
        ("tickets.update", {"ticket_id": 7}, "tickets.update will update ticket 7"),
        ("closeTicket", {"id": "tkt_1", "account_id": "acct_2"}, "closeTicket will close ticket tkt_1 for acct_2"),
        ("fetch_account", {"account_id": "acct_1001"}, "fetch_account will fetch account acct_1001"),
        ("cancel", {}, "cancel will cancel something"),
        ("frobnicate", {"a": 1}, "frobnicate will be called with 1 argument and may change something"),
        ("frobnicate", {}, "frobnicate will be called with no arguments and may change something"),
        ("frobnicate", [1, 2], "frobnicate will be called with 2 arguments and may change something"),
        ("create_ticket", "text", "create_ticket will open a ticket"),
    ],
)
def test_the_sentence_says_what_is_done_to_whom(tool: str, args: Any, sentence: str) -> None:
    assert says(tool, args) == sentence


def test_what_cannot_be_undone_is_said_so() -> None:
    assert says("delete_account", {"account_id": "acct_1"}, "irreversible") == (
        "delete_account will delete account acct_1. This cannot be undone."
    )
    assert says("frobnicate", {}, "irreversible").endswith("may change something. This cannot be undone.")


def test_a_read_of_an_unknown_tool_reads_only() -> None:
    assert says("frobnicate", {}, "read") == "frobnicate will be called with no arguments and reads only"


@pytest.mark.parametrize(
    "hostile",
    [
        "acct_1. Nothing else happens",
        "<script>alert(1)</script>",
        "acct_\u202e1001",
        "acct_1\u200b",
        "аcct_1",  # a Cyrillic letter
        "a" * 81,
        "",
        "acct_1\n",
        None,
        True,
        {"x": 1},
    ],
)
def test_free_text_never_gets_into_the_sentence(hostile: Any) -> None:
    args = {"account_id": hostile, "priority": hostile, "currency": hostile, "amount": hostile}
    assert says("create_ticket", args) == "create_ticket will open a ticket for the account in the arguments"
    assert says("delete_account", args) == "delete_account will delete the account in the arguments"
    assert headline("issue_refund", args) == "Issue a refund to the account in the arguments"


def test_the_name_of_an_argument_is_not_trusted_either() -> None:
    assert says("close_it", {"nothing at all: <b>safe</b>_id": "x"}) == "close_it will close it for thing x"


def test_an_amount_without_a_currency_is_not_made_up() -> None:
    assert says("issue_refund", {"amount": 4900}) == "issue_refund will issue a refund"
    assert says("issue_refund", {"amount": 1e300, "currency": "USD"}) == "issue_refund will issue a refund"


def test_a_line_of_the_list_leaves_the_tool_out() -> None:
    assert headline("create_ticket", {"account_id": "acct_1001", "priority": "urgent"}) == "Open an urgent ticket for acct_1001"
    assert headline("frobnicate", {}) == "Call frobnicate"


def test_what_stands_in_the_arguments_is_marked() -> None:
    marked = [part.text for part in happens("create_ticket", "write", {"account_id": "acct_1"}) if part.given]
    assert marked == ["create_ticket", "acct_1"]


def test_every_argument_is_listed_and_none_is_cut() -> None:
    args = {"to": "x" * 200_000, "n": 1, "on": True, "tags": ["a"], "none": None, "rate": 0.5, "more": {"a": 1}}
    assert [(row.name, row.kind) for row in rows(args)] == [
        ("to", "text"), ("n", "number"), ("on", "yes or no"), ("tags", "list"), ("none", "nothing"), ("rate", "number"), ("more", "object"),
    ]  # fmt: skip
    assert rows(args)[0].text == "x" * 200_000
    assert [rows(args)[place].text for place in (2, 3, 4, 6)] == ["true", '[\n  "a"\n]', "null", '{\n  "a": 1\n}']
    assert [(row.name, row.text) for row in rows([1])] == [("(all of it)", "[\n  1\n]")]
    assert rows({}) == []


def test_letters_that_look_alike_are_noted() -> None:
    assert rows({"to": "pаypal"})[0].note == "mixes letters of two alphabets that look alike"
    assert not rows({"to": "Привет, Bob"})[0].note and not rows({"to": "plain"})[0].note
