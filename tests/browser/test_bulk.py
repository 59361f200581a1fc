"""Ticking runs and cancelling them together: what is asked about is what is shown, and the keys open the question only."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import Complaints, SignedIn, violations

COMPLAINT = "URGENT: I was charged twice on acct_1001"


def submitted(stack: Stack, number: int, user: str) -> list[str]:
    """Their ids, the oldest first; each waits for a person."""
    ids = [stack.submit(f"{COMPLAINT} {user} {n}") for n in range(number)]
    for run_id in ids:
        stack.until(run_id, "waiting_approval")
    return ids


def states(stack: Stack, ids: list[str]) -> set[str]:
    return {stack.api("GET", f"/runs/{run_id}").body["state"] for run_id in ids}


def ticked(page: Page) -> set[str]:
    return set(page.locator("input[form=bulk-runs]:checked").evaluate_all("all => all.map(one => one.value)"))


@pytest.mark.mission("P5.1")
def test_what_a_person_ticks_is_what_is_cancelled_and_no_key_does_it_alone(
    stack: Stack, signed_in: SignedIn, complaints: Complaints
) -> None:
    complaints.excuse("status of 422")  # the question without a reason
    ids = submitted(stack, 4, "bulk")
    page = signed_in("operator")
    page.goto("/runs/?q=bulk&state=waiting_approval")
    rows = page.locator("input[form=bulk-runs]")
    expect(rows).to_have_count(4)
    expect(page.locator("#bulk-runs")).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("x")  # the newest
    rows.nth(2).click(modifiers=["Shift"])
    assert ticked(page) == set(ids[1:])
    expect(page.locator("#bulk-runs")).to_contain_text("3 runs selected")
    page.keyboard.press("j")  # out of the box, whose list waits while it has the focus
    stack.api("POST", f"/runs/{ids[0]}/cancel")  # a live morph, while there is a selection
    expect(page.locator(f"#row-{ids[0]}")).to_have_class("gone")
    assert ticked(page) == set(ids[1:])

    page.keyboard.press("c")
    dialog = page.locator("#bulk-dialog")
    expect(dialog.locator("h2")).to_have_text("Cancel 3 runs?")
    expect(page.get_by_role("button", name="Keep them running")).to_be_focused()
    shown = set(dialog.locator("li").evaluate_all("all => all.map(one => one.id.replace('item-', ''))"))
    assert shown == set(ids[1:]) and violations(page) == []
    assert states(stack, ids[1:]) == {"waiting_approval"}
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    page.locator("#bulk-runs [data-key=c]").click()
    page.get_by_label("Reason").press("Control+Enter")
    expect(dialog.locator("[aria-invalid=true]")).to_be_focused()
    page.get_by_label("Reason").fill("Wrong release")
    page.get_by_label("Reason").press("Control+Enter")
    page.wait_for_url("**/runs/bulk/blk_*/")
    stack.python("from console import bulk_work; bulk_work.round()")  # as the jobs do
    expect(page.get_by_role("link", name="Cancelled: 3")).to_be_visible(timeout=60_000)
    assert violations(page) == []
    assert set(re.findall(r'id="item-(agt_\w+)"', page.content())) == set(ids[1:])
    assert states(stack, ids[1:]) == {"cancelled"}

    page.goto("/runs/?q=bulk&state=cancelled")
    page.locator("#pick-all").click()
    page.get_by_role("link", name="Select all 4 matching").click()
    expect(page.locator("main")).to_contain_text("State is Cancelled, text holds “bulk”, rehearsals left out.")
    page.get_by_role("button", name="List them to cancel").click()
    expect(page.locator("h1")).to_have_text("None of these can be cancelled")
    assert violations(page) == []
