"""Deciding in real browsers: two people at once, other arguments, several at once, and the password again."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tenants.ids import decode
from tests.acceptance.stack import Stack
from tools.canonical import dumps

from .conftest import Complaints, SignedIn, violations

COMPLAINT = "URGENT: I was charged twice on acct_1001"
TOP = """sel => { const box = document.querySelector(sel).getBoundingClientRect(); return [box.top, box.left, box.height] }"""


@pytest.fixture
def two_people(stack: Stack) -> Iterator[None]:
    """A refund needs two people."""
    place = {"tool": "issue_refund", "tenant": "acme", "agent": "refund-agent", "decision": "ask", "approvers": 2}
    answer = stack.api("PUT", "/permissions", place | {"reason": "test"}, key="admin_api_key")
    assert answer.status in (200, 201), answer
    yield
    gone = stack.api("DELETE", f"/permissions?id={answer.body['id']}&reason=test", key="admin_api_key")
    assert gone.status in (200, 204), gone


def refund(stack: Stack) -> str:
    """A request whose model refunds 5.25 USD of a charge."""
    charges = stack.sandbox("POST", "/desk/charges/list", {"account_id": "acct_1001"})["charges"]
    given = {"account_id": "acct_1001", "charge_id": charges[0]["charge_id"], "amount": 5.25, "currency": "USD", "reason": "goodwill"}
    return "Please\n#sim " + json.dumps({"turns": [{"calls": [{"name": "issue_refund", "arguments": given}]}, {"text": "Done."}]})


def asked(stack: Stack, text: str = "", agent: str = "refund-agent") -> tuple[str, dict[str, Any]]:
    run_id = stack.submit(text or refund(stack), agent=agent)
    stack.until(run_id, "waiting_approval")
    return run_id, stack.approval_of(run_id)


def opened(page: Page, approval_id: str, query: str = "") -> None:
    page.goto(f"/approvals/{approval_id}/{query}")
    expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live")


def approve(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Approve")).first.click()
    page.locator("dialog[open]").get_by_role("button", name=re.compile("^Approve")).click()
    page.wait_for_url("**decided=**")


def refunds(stack: Stack, run_id: str) -> list[float]:
    """The amounts of the run's refunds that the desk has carried out."""
    applied = {one["args_sha256"] for one in stack.sandbox("GET", "/ledger")["effects"]}
    steps = stack.api("GET", f"/runs/{run_id}/steps", key="admin_api_key").body["items"]
    args = [call["args"] for step in steps for call in step["calls"] if call["name"] == "issue_refund"]
    return [one["amount"] for one in args if hashlib.sha256(dumps(one)).hexdigest() in applied]


@pytest.mark.mission("P10.4")
def test_a_refund_that_two_people_decide_is_sent_after_the_second(stack: Stack, signed_in: SignedIn, two_people: None) -> None:
    run_id, approval = asked(stack)
    first, second = signed_in("approver"), signed_in("admin")
    opened(second, approval["approval_id"])
    opened(first, approval["approval_id"])
    approve(first)
    opened(first, approval["approval_id"])
    expect(first.locator("#approvers")).to_contain_text("1 of 2, still needed: 1; not you")
    expect(second.locator("#approvers")).to_contain_text("1 of 2, still needed: 1")  # by itself, while it is open
    assert stack.until(run_id, "waiting_approval")["state"] == "waiting_approval"
    approve(second)
    assert stack.until(run_id)["state"] == "succeeded" and refunds(stack, run_id) == [5.25]


@pytest.mark.mission("P10.4")
def test_an_edited_amount_needs_the_first_approver_again(stack: Stack, signed_in: SignedIn, two_people: None) -> None:
    run_id, approval = asked(stack)
    first, editor = signed_in("approver"), signed_in("admin")
    opened(first, approval["approval_id"])
    approve(first)
    opened(editor, approval["approval_id"])
    editor.keyboard.press("e")
    amount = editor.get_by_label("amount", exact=True)
    expect(editor.get_by_label("account_id")).to_be_focused()
    amount.fill("3")
    expect(editor.locator("#edited-count")).to_have_text("1 edit, not recorded yet")
    assert violations(editor) == []
    editor.keyboard.press("Control+Enter")
    expect(editor.locator("main")).to_contain_text("Your edit needs another person.")
    expect(editor.locator("main")).to_contain_text("The earlier yes of approver no longer counts.")
    assert violations(editor) == [] and refunds(stack, run_id) == []
    new = stack.approval_of(run_id)
    assert (new["replaces"], new["edited_by"], new["args"]["amount"]) == (approval["approval_id"], "admin", 3)
    opened(first, approval["approval_id"])
    first.get_by_role("link", name="Open the new request").click()
    expect(first.locator("del").first).to_contain_text("5.25")
    expect(first.locator("ins").first).to_contain_text("3")
    approve(first)
    assert stack.until(run_id)["state"] == "succeeded" and refunds(stack, run_id) == [3]


def test_a_wrong_amount_is_told_at_its_field_and_stays_typed(stack: Stack, signed_in: SignedIn, complaints: Complaints) -> None:
    complaints.excuse("status of 422")
    _, approval = asked(stack)
    page = signed_in("approver")
    opened(page, approval["approval_id"], "?edit=1")
    page.get_by_label("amount", exact=True).fill("lots")
    page.get_by_role("button", name="Approve with edit").click()
    field = page.get_by_label("amount", exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_value("lots")
    expect(page.get_by_text("Type a number, such as 20 or 20.50.")).to_be_visible()
    assert violations(page) == [] and stack.approval_of(approval["run_id"])["digest"] == approval["digest"]


@pytest.mark.mission("P10.4")
def test_whoever_edits_while_another_decides_sees_who_and_loses_nothing(stack: Stack, signed_in: SignedIn) -> None:
    _, approval = asked(stack)
    editor, other = signed_in("admin"), signed_in("approver")
    opened(editor, approval["approval_id"], "?edit=1")
    editor.get_by_label("amount", exact=True).fill("3")
    editor.locator("#reason").fill("half is enough")
    opened(other, approval["approval_id"])
    other.keyboard.press("r")
    other.locator("dialog[open]").get_by_label("Reason").fill("not a duplicate")
    other.keyboard.press("Control+Enter")
    expect(editor.locator("#approval-status")).to_contain_text("approver rejected this")
    expect(editor.get_by_role("button", name="Approve with edit")).to_be_disabled()
    expect(editor.get_by_label("amount", exact=True)).to_have_value("3")
    expect(editor.locator("#reason")).to_have_value("half is enough")
    assert not editor.get_by_label("amount", exact=True).is_editable()


def test_without_scripts_arguments_are_edited_all_the_same(stack: Stack, signed_in: SignedIn) -> None:
    run_id, approval = asked(stack)
    page = signed_in("approver", java_script_enabled=False)
    page.goto(f"/approvals/{approval['approval_id']}/")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("amount", exact=True).fill("3")
    page.get_by_role("button", name="Approve with edit").click()
    expect(page.locator("main")).to_contain_text("Your edit needs another person.")
    assert stack.approval_of(run_id)["args"]["amount"] == 3


def test_alike_ones_are_chosen_in_the_list_and_decided_in_one_step(stack: Stack, signed_in: SignedIn) -> None:
    made = [asked(stack, COMPLAINT, "support-triage") for _ in range(2)]
    page = signed_in("approver")
    page.goto("/approvals/")
    for _, approval in made:
        page.locator(f"#pick-{approval['approval_id']}").check()
    page.mouse.move(900, 300)
    page.locator("body").evaluate("() => document.activeElement.blur()")
    before = page.evaluate(TOP, f"#row-{made[0][1]['approval_id']}")
    later = asked(stack, COMPLAINT, "support-triage")[1]["approval_id"]
    expect(page.locator("[data-live-new=approval-list]")).to_be_visible()  # what is chosen holds the list still
    assert page.evaluate(TOP, f"#row-{made[0][1]['approval_id']}") == before and page.locator(f"#row-{later}").count() == 0
    page.get_by_role("button", name="Decide 2 together").click()
    assert violations(page) == []
    page.get_by_role("button", name="Approve 2").click()
    expect(page.get_by_text("Recorded.")).to_have_count(2)
    assert violations(page) == []
    assert [stack.until(run_id)["state"] for run_id, _ in made] == ["succeeded", "succeeded"]


def test_a_grave_decision_asks_for_the_password_in_its_confirm_step(stack: Stack, signed_in: SignedIn, complaints: Complaints) -> None:
    complaints.excuse("status of 422")
    _, approval = asked(stack)
    with psycopg.connect(stack.urls.owner, autocommit=True) as connection:
        connection.execute("update approvals_approval set risk = 'high' where id = %s", [decode("apr", approval["approval_id"])])
    page = signed_in("approver", viewport={"width": 390, "height": 844})
    opened(page, approval["approval_id"])
    page.get_by_role("button", name=re.compile("^Approve")).first.click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Reason").fill("the customer asked in writing")
    dialog.get_by_label("Your password").fill("not it")
    assert violations(page) == []
    dialog.get_by_role("button", name=re.compile("^Approve")).click()
    expect(dialog.get_by_text("That is not your password.")).to_be_visible()
    expect(dialog.get_by_label("Reason")).to_have_value("the customer asked in writing")
    expect(dialog.get_by_label("Your password")).to_be_focused()
    dialog.get_by_label("Your password").fill(stack.dev["approver"]["password"])
    dialog.get_by_role("button", name=re.compile("^Approve")).click()
    page.wait_for_url("**decided=**")
    said = stack.api("GET", f"/approvals/{approval['approval_id']}", key="admin_api_key").body["decisions"]
    assert [(one["user"], one["verdict"], one["surface"]) for one in said] == [("approver", "approve", "page")]
