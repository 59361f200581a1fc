"""The keyboard, its help and the palette: help shows what works here, single keys open and never decide, an id or a name leads there."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations

COMPLAINT = "URGENT: I was charged twice on acct_1001"
SETTLED = "[data-live-state][data-state=live]"
UNMARKED = """() => {
  const at = document.activeElement, css = getComputedStyle(at);
  return at === document.body || (css.outlineStyle !== "none" && parseFloat(css.outlineWidth) > 0) || css.boxShadow !== "none";
}"""


@pytest.fixture(scope="module")
def waiting(stack: Stack) -> str:
    run = stack.submit(COMPLAINT)
    stack.until(run, "waiting_approval")
    return run


def opened(page: Page, address: str) -> None:
    page.goto(address)
    page.locator(SETTLED).first.wait_for()


def palette(page: Page, text: str) -> Any:
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Search pages and names, or paste an id")
    expect(field).to_be_focused()
    field.fill(text)
    return page.locator("#palette")


def test_help_lists_what_works_on_this_page_and_the_keys_do_it(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("approver")
    opened(page, "/runs/")
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help_.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(help_.get_by_role("heading", name="Run", exact=True)).to_have_count(0)
    expect(help_).to_contain_text("o Overview, r Runs, a Approvals, i Incidents, t Tools")
    expect(help_.get_by_role("link", name="Settings")).to_have_attribute("href", "/settings/")
    assert violations(page) == []
    page.keyboard.press("c")  # ignored in a dialog
    page.keyboard.press("Escape")
    row = page.locator(f"#row-{waiting} [data-row]")
    for _ in range(60):
        page.keyboard.press("j")
        if row.evaluate("row => row === document.activeElement"):
            break
    page.keyboard.press("x")
    expect(page.locator(f"#row-{waiting} input[type=checkbox]")).to_be_checked()
    page.keyboard.press("x")
    row.focus()
    page.keyboard.press("Control+c")
    page.keyboard.press("Shift+C")
    assert page.url.endswith("/runs/")
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name=re.compile("^Cancel (this|1) run"))).to_be_visible()

    opened(page, f"/runs/{waiting}/")
    page.keyboard.press("?")
    expect(help_.get_by_role("heading", name="Run", exact=True)).to_be_visible()
    expect(help_).to_contain_text("Cancel the run: it asks first")
    expect(help_).not_to_contain_text("Try again: it asks first")  # it is not over
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    expect(page.locator("#tree [role=treeitem][aria-level='2']:visible")).to_have_count(0)
    page.keyboard.press("e")
    expect(page.locator("#tree [role=treeitem][aria-level='2']:visible").first).to_be_visible()
    page.keyboard.press("j")
    assert page.evaluate("!!document.activeElement.closest('#tree')")
    page.keyboard.press("c")
    expect(page.locator("dialog#cancel-run")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("!!document.activeElement.closest('#tree')")  # focus is back where it was
    for letter, path in {"o": "/", "t": "/tools/", "i": "/incidents/", "r": "/runs/", "a": "/approvals/"}.items():
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(f"{stack.base_url}{path}")
    assert stack.until(waiting, "waiting_approval")["state"] == "waiting_approval"


def test_the_palette_finds_pages_by_other_words_names_and_ids_and_works_by_touch(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("operator")
    opened(page, "/tools/")
    box = palette(page, "billing")
    expect(box.get_by_role("option", name=re.compile("^Spend"))).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/spend/")
    box = palette(page, "issue_ref")
    expect(box.get_by_role("option", name="issue_refund Tool")).to_have_attribute("aria-selected", "true")
    assert violations(page) == []
    page.keyboard.press("Enter")
    page.wait_for_url("**/tools/issue_refund/")
    box = palette(page, "")
    expect(box.get_by_role("option", name="issue_refund Recent")).to_be_visible()
    expect(box.get_by_role("option", name="New run Do")).to_be_attached()
    box.get_by_role("combobox").fill("no such thing")
    expect(box.get_by_role("status")).to_contain_text("Nothing is called that.")
    assert violations(page) == []
    box.get_by_role("combobox").fill(f"see {waiting.lower()} please")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{waiting}/")
    box = palette(page, "cancel")
    expect(box.get_by_role("option", name="Cancel run This page")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("dialog#cancel-run")).to_be_visible()  # it asks, as its button does
    page.keyboard.press("Escape")

    phone = signed_in("operator", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    opened(phone, "/")
    phone.get_by_role("button", name="Search or jump to").tap()
    phone.get_by_role("option", name="Approvals Operate").tap()
    phone.wait_for_url("**/approvals/")


def test_keys_that_are_turned_off_do_nothing_and_help_says_so(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("approver")
    single_keys(page, False)
    try:
        nothing_but_chords(page, f"/approvals/{stack.approval_of(waiting)['approval_id']}/")
    finally:
        single_keys(page, True)


def single_keys(page: Page, on: bool) -> None:
    page.goto("/settings/preferences/")
    page.get_by_label("Single-key shortcuts").set_checked(on)
    page.locator("main form").filter(has=page.get_by_label("Single-key shortcuts")).get_by_role("button", name=re.compile("^Save")).click()
    expect(page.locator("body[data-single-keys=off]")).to_have_count(0 if on else 1)


def nothing_but_chords(page: Page, address: str) -> None:
    opened(page, address)
    for key in ("a", "r", "e", "o", "j", "/", "?", "g", "o"):
        page.keyboard.press(key)
    assert page.locator("dialog[open]").count() == 0 and "/approvals/apr_" in page.url
    expect(palette(page, "keyboard").get_by_role("option", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Enter")
    help_ = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help_).to_contain_text("Single keys are off.")
    expect(help_).not_to_contain_text("Approve: it asks first")
    assert violations(page) == []


def test_from_the_overview_to_a_decision_by_the_keyboard_alone(stack: Stack, signed_in: SignedIn) -> None:
    """Focus is seen at every stop, typing into the reason is not taken for keys, and focus comes back from the confirm step."""
    run = stack.submit(COMPLAINT)
    stack.until(run, "waiting_approval")
    page = signed_in("approver")
    opened(page, "/")
    target = f"/approvals/{stack.approval_of(run)['approval_id']}/"
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/approvals/")
    for _ in range(80):
        page.keyboard.press("j")
        assert page.evaluate(UNMARKED)
        if page.evaluate("document.activeElement.getAttribute('href')") == target:
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{target}")
    page.locator(SETTLED).first.wait_for()
    page.keyboard.press("a")
    expect(page.locator("dialog#confirm-approve")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name=re.compile("^Approve")).first).to_be_focused()
    page.keyboard.press("r")
    page.keyboard.type("rejected are all keys: a e o j k ?")
    expect(page.locator("#reason-reject")).to_have_value("rejected are all keys: a e o j k ?")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**decided=**")
    assert stack.until(run)["state"] == "succeeded"
