"""The list of runs by hand: options that toggle, columns, a view that is kept, and text that tries to break out."""

import re

from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations

ASKED = ("w" * 4000, "Where is it?\n\u202eturned round, and a second line")


def test_runs_are_filtered_shown_and_kept_as_a_view(stack: Stack, signed_in: SignedIn) -> None:
    for text in ASKED:
        stack.submit(text)
    page: Page = signed_in("operator", viewport={"width": 390, "height": 844})
    page.goto("/runs/")
    page.locator("summary", has_text=re.compile("^Agent")).click()
    page.locator("details[open]").get_by_role("link", name="support-triage", exact=True).click()
    expect(page.locator("details[open] > summary")).to_have_text("Agent: support-triage")  # it stays open for the next option
    page.get_by_role("link", name="Is not").click()
    expect(page.get_by_text("Agent: not support-triage")).to_be_visible()
    page.get_by_role("link", name="Is not").click()
    page.get_by_role("heading", name="Runs", level=1).click()  # closes the menu
    page.locator("details.columns summary").click()
    page.get_by_role("link", name="Tokens in and out").click()
    expect(page).to_have_url(re.compile(r"cols=[\w,]*tokens"))
    page.get_by_role("heading", name="Runs", level=1).click()
    expect(page.locator("#runs-list")).to_contain_text("U+202E")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_text("Save view").click()
    page.get_by_role("textbox", name="Name").fill("Triage")
    assert violations(page) == []
    page.get_by_role("button", name="Save", exact=True).click()
    tab = page.get_by_role("navigation", name="Views").get_by_role("link", name="Triage (only you)")
    expect(tab).to_have_attribute("aria-current", "page")
    page.goto("/runs/views/")
    page.get_by_role("link", name="Change Triage").click()
    page.get_by_role("button", name="Delete view").click()
    expect(page.get_by_text("No view of yours yet")).to_be_visible()
