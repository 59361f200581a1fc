"""The main story, seen in browsers while it happens: nothing is reloaded, nothing is lost."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import Complaints, SignedIn

COMPLAINT = "URGENT: I was charged twice on acct_1001"
LOOK_UP = [{"calls": [{"name": "search_docs", "arguments": {"query": text}}], "latency_ms": 700} for text in ("refunds", "invoices")]
SLOW = "#sim " + json.dumps({"turns": [*LOOK_UP, {"text": "Both are in the handbook.", "latency_ms": 700}]})
RELOADS = "window.sb_same_page"


def mark(page: Page) -> None:
    """A reload would lose the mark."""
    page.evaluate(f"{RELOADS} = true")


def assert_same_page(page: Page) -> None:
    assert page.evaluate(RELOADS) is True


def live(page: Page) -> None:
    expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live")


def seqs(page: Page) -> list[int]:
    """The numbers of the events in the tail, as they stand."""
    return [int(text.lstrip("#")) for text in page.locator("#tail .ev .q").all_text_contents()]


def await_last(page: Page, seq: int) -> None:
    expect(page.locator("#tail .ev .q").last).to_have_text(f"#{seq}")


@pytest.mark.mission("P13.7")
def test_a_run_that_is_submitted_appears_in_the_list_without_a_reload(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("operator")
    page.goto("/runs/")
    live(page)
    mark(page)
    run_id = stack.submit("How long does a refund take?")
    row = page.locator(f"a[href$='/runs/{run_id}/']").first
    expect(row).to_be_visible()
    expect(page.locator("tr", has=row)).to_contain_text("Succeeded")
    assert_same_page(page)


@pytest.mark.mission("P13.7")
def test_the_events_of_a_run_appear_on_its_page_as_they_happen(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("operator")
    run_id = stack.submit("How do I pay?\n" + SLOW)
    page.goto(f"/runs/{run_id}/")
    live(page)
    mark(page)
    at_first = len(seqs(page))
    last = stack.until(run_id)["seq"]
    await_last(page, last)
    assert at_first < last
    assert seqs(page) == list(range(1, last + 1))
    expect(page.locator("main")).to_contain_text("Succeeded")
    assert_same_page(page)


@pytest.mark.mission("P10.4")
def test_a_write_waits_a_person_approves_it_in_the_browser_and_the_answer_arrives(stack: Stack, signed_in: SignedIn) -> None:
    watcher, decider = signed_in("operator"), signed_in("approver")
    run_id = stack.submit(COMPLAINT)
    watcher.goto(f"/runs/{run_id}/")
    live(watcher)
    mark(watcher)
    expect(watcher.locator("main")).to_contain_text("Waiting for approval")
    assert not [e for e in stack.sandbox("GET", "/ledger")["effects"] if e.get("run_id") == run_id]
    decider.goto(f"/approvals/{stack.approval_of(run_id)['approval_id']}/")
    decider.get_by_role("button", name=re.compile("^Approve")).first.click()
    decider.get_by_role("dialog").get_by_role("button", name=re.compile("^Approve")).click()
    expect(watcher.locator("main")).to_contain_text("Succeeded")
    expect(watcher.locator("main")).to_contain_text("I opened the urgent ticket")
    assert_same_page(watcher)
    events = stack.api("GET", f"/runs/{run_id}/events").body["items"]
    decided = next(event for event in events if event["event"] == "approval_decided")
    assert decided["data"]["by"] == "approver"


def test_the_same_from_the_keyboard_alone(stack: Stack, signed_in: SignedIn) -> None:
    run_id = stack.submit(COMPLAINT)
    stack.until(run_id, "waiting_approval")
    page = signed_in("approver")
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/approvals/")
    row = page.locator(f"a[href$='{stack.approval_of(run_id)['approval_id']}/']").first
    for _ in range(60):
        if row.evaluate("row => row === document.activeElement"):
            break
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/approvals/apr_*/")
    page.keyboard.press("a")
    expect(page.locator("dialog[open]")).to_contain_text("Approve")
    assert stack.until(run_id, "waiting_approval")
    page.keyboard.press("Control+Enter")
    assert stack.until(run_id)["state"] == "succeeded"


def test_whoever_started_a_run_is_told_that_somebody_else_must_decide(stack: Stack, signed_in: SignedIn) -> None:
    run_id = stack.submit(COMPLAINT)
    stack.until(run_id, "waiting_approval")
    page = signed_in("operator")
    page.goto(f"/approvals/{stack.approval_of(run_id)['approval_id']}/")
    expect(page.locator("main")).to_contain_text("You started this run, so somebody else must decide.")
    expect(page.get_by_role("button", name=re.compile("^(Approve|Reject)"))).to_have_count(0)


@pytest.mark.mission("P13.7")
def test_a_restarted_web_process_costs_an_open_page_no_event(stack: Stack, signed_in: SignedIn, complaints: Complaints) -> None:
    complaints.excuse(r"WebSocket connection to|net::ERR_CONNECTION_REFUSED|Failed to load resource|Failed to fetch")
    run_id = stack.submit(COMPLAINT)
    stack.until(run_id, "waiting_approval")
    page = signed_in("approver")
    page.goto(f"/runs/{run_id}/")
    live(page)
    mark(page)
    stack.kill("web")
    expect(page.locator("[data-live-state]").first).not_to_have_attribute("data-state", "live")
    stack.start("web")
    stack.await_ready()
    decide(stack, run_id)
    last = stack.until(run_id)["seq"]
    await_last(page, last)
    assert seqs(page) == list(range(1, last + 1))
    assert_same_page(page)


def decide(stack: Stack, run_id: str, verdict: str = "approve") -> None:
    approval: dict[str, Any] = stack.approval_of(run_id)
    said = {"verdict": verdict, "digest": approval["digest"]}
    answer = stack.api("POST", f"/approvals/{approval['approval_id']}/decision", said, key="admin_api_key")
    assert answer.status == 200, answer
