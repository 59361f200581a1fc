"""The stories that the demo tells, and the configuration that it tells them with."""

import json
import re
from typing import Any

import pytest

from console.sandbox.conversation import read_conversation
from console.sandbox.stories import decide
from tools.lint import findings
from tools.spec import ToolSpec

from .sandbox_desk import TOOLS, Client, demo, desk, play

__all__ = ["desk"]


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
