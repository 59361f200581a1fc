"""The permission matrix from the keyboard: one stop of the Tab key, arrows, Enter for the form, Esc back, and both steps of a change."""

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations

MATRIX = "/tools/-/matrix/?tenant=acme"
AT = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"


def at(page: Page) -> str:
    return str(page.evaluate(AT))


def cell(page: Page, tool: str, agent: str) -> str:
    """Moves to the cell with the arrows."""
    row = page.locator("[data-grid] tbody tr").filter(has=page.get_by_role("rowheader", name=tool, exact=True))
    columns = page.locator("[data-grid] thead th").all_inner_texts()
    down = row.evaluate("row => row.sectionRowIndex")
    page.locator("[data-grid] a[tabindex='0']").focus()
    page.keyboard.press("Control+Home")
    for _ in range(down):
        page.keyboard.press("ArrowDown")
    for _ in range(columns.index(agent)):
        page.keyboard.press("ArrowRight")
    return at(page)


def test_arrows_move_in_the_grid_and_tab_leaves_it(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("admin")
    page.goto(MATRIX)
    assert page.get_by_role("grid", name="Tools by agents").count() == 1
    assert page.locator("[data-grid] a[tabindex='0']").count() == 1
    first = cell(page, "create_ticket", "support-triage")
    assert first.startswith("Ask 1, inherited") and first.endswith("create_ticket for support-triage")
    word = page.locator("[data-grid] a:focus .word")
    expect(word).to_be_visible()
    page.keyboard.press("ArrowDown")
    assert at(page).endswith("delete_account for support-triage")
    page.keyboard.press("Home")
    assert at(page) == "delete_account"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert at(page) == "close_ticket", "the edge holds"
    page.keyboard.press("Control+End")
    assert at(page).endswith("for ticket-desk")
    page.keyboard.press("Tab")
    assert page.locator("[data-grid] a:focus").count() == 0
    page.keyboard.press("Shift+Tab")
    assert at(page).endswith("for ticket-desk"), "the grid remembers its place"


@pytest.mark.mission("P10.1", "X5")
def test_a_permission_is_changed_from_the_keyboard_after_its_effect_was_shown(stack: Stack, signed_in: SignedIn) -> None:
    stack.until(stack.submit("URGENT: I was charged twice on acct_1001"), "waiting_approval")
    page = signed_in("admin")
    page.goto(MATRIX)
    cell(page, "create_ticket", "support-triage")
    page.keyboard.press("Enter")
    title = page.locator("#cell-title")
    expect(title).to_have_text("create_ticket for support-triage")
    expect(title).to_be_focused()
    assert page.url.endswith(MATRIX), "the matrix stays"
    assert page.locator("[data-grid] td[aria-selected=true]").count() == 1
    page.keyboard.press("Escape")
    assert at(page).endswith("create_ticket for support-triage")
    page.keyboard.press("Enter")
    expect(title).to_be_focused()
    page.locator("#id_decision").select_option("deny")
    page.get_by_role("button", name="Show what changes").press("Enter")
    expect(page.locator(".sentence")).to_contain_text("from ask 1 person (inherited) to deny")
    expect(page.locator("#backtest")).to_contain_text("would have been decided differently")
    assert violations(page) == []
    page.get_by_label("Reason").fill("No tickets while we look.")
    page.get_by_role("button", name="Save", exact=True).press("Enter")
    expect(page.get_by_text("Saved. Runs that go on")).to_be_visible()
    assert cell(page, "create_ticket", "support-triage").startswith("Deny:")
    refused = stack.until(stack.submit("URGENT: I was charged twice on acct_1001"))
    assert "create_ticket" not in refused["tools_called"]
    page.goto(f"{MATRIX}&tool=create_ticket&agent=support-triage")
    page.get_by_role("link", name="Revert").click()
    page.get_by_role("button", name="Show what changes").click()
    expect(page.locator(".sentence")).to_contain_text("Removes the row")
    page.get_by_label("Reason").fill("Looked.")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved. Runs that go on")).to_be_visible()
    assert cell(page, "create_ticket", "support-triage").startswith("Ask 1, inherited")


def test_without_scripts_every_cell_is_a_link_to_its_form(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("admin", java_script_enabled=False)
    page.goto(MATRIX)
    page.get_by_role("link", name="create_ticket for support-triage").click()
    expect(page.locator("#cell-title")).to_have_text("create_ticket for support-triage")
    expect(page.locator("#id_decision")).to_be_visible()


def test_a_sample_call_is_decided_beside_its_form(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("operator")
    page.goto("/tools/issue_refund/")
    page.get_by_label("Arguments", exact=False).first.fill(
        '{"account_id": "acct_1001", "charge_id": "ch_123456", "amount": 500, "currency": "USD", "reason": "duplicate"}'
    )
    page.get_by_label("Agent").select_option("refund-agent")
    page.get_by_role("button", name="Decide").click()
    answer = page.locator("#what-if-answer")
    expect(answer).to_contain_text("Rule refund-cap")
    expect(answer.get_by_role("link", name="Open the rule")).to_be_visible()
