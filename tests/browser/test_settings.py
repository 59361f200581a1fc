"""Settings in a browser: one form, and every page is as the person wants it; a notice when somebody waits."""

import re
from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations
from .test_pages import wider_than_the_window
from .test_rules import waiting_run

NOTICES = """
document.hasFocus = () => false;
window.Notification = class { static permission = "default"; static async requestPermission() { this.permission = window.answer }
  constructor(title) { document.documentElement.dataset.told = title } };
"""


@pytest.fixture
def usual(stack: Stack) -> Iterator[None]:
    """Whatever was chosen here is forgotten again."""
    yield
    with psycopg.connect(stack.urls.engine) as connection:
        connection.execute("delete from console_preference")


def fits_and_is_accessible(page: Page) -> bool:
    page.set_viewport_size({"width": 320, "height": 640})
    return violations(page) == [] and wider_than_the_window(page) == []


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main .callout").first).to_contain_text("Saved")


@pytest.mark.usefixtures("usual")
def test_what_is_chosen_once_holds_for_times_axes_rows_theme_and_keys_of_every_page(stack: Stack, signed_in: SignedIn) -> None:
    run = waiting_run(stack)
    page = signed_in("approver")
    page.goto(f"/runs/{run}/?tab=raw")
    stamped = page.locator("main time[data-when]")
    before = dict(stamped.evaluate_all("all => all.map(t => [t.dateTime + t.dataset.when, t.textContent])"))
    page.goto("/tools/")
    high = page.locator("tbody tr").first.bounding_box()
    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_have_count(1)

    page.goto("/settings/preferences/")
    page.get_by_label("Time zone").select_option("Asia/Kolkata")
    for said in ("12 hours", "Always the time", "Compact"):
        page.get_by_label(said).check()
    page.get_by_label("Single-key shortcuts").uncheck()
    save(page)

    page.goto(f"/runs/{run}/?tab=raw")
    after = dict(stamped.evaluate_all("all => all.map(t => [t.dateTime + t.dataset.when, t.textContent])"))
    assert set(before) <= set(after) and len(before) > 1
    assert all(now != before.get(at) and now[-2:] in ("am", "pm") and "UTC" not in now for at, now in after.items())
    page.goto("/")
    ticks = page.locator(".chart .xtick text")
    ticks.first.wait_for()
    hours = [text for text in ticks.all_text_contents() if ":" in text]
    assert hours and {text[-2:] for text in hours} <= {"AM", "PM"}
    page.goto("/tools/")
    low = page.locator("tbody tr").first.bounding_box()
    assert high and low and low["height"] < high["height"]
    for key in ("?", "j", "/", "g", "r"):
        page.keyboard.press(key)
    assert page.locator("dialog[open]").count() == 0 and page.url.endswith("/tools/")
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("Control+k")
    expect(page.locator("dialog[open]")).to_have_count(1)
    page.keyboard.press("Escape")

    with page.expect_response("**/theme/"):
        page.get_by_role("button", name="Switch colour theme").click()
    theme = page.locator("html").get_attribute("data-theme")
    other = signed_in("approver").goto("/tools/")
    assert other and f'data-theme="{theme}"' in other.text() and theme in ("light", "dark")


@pytest.mark.usefixtures("usual")
def test_a_notice_comes_where_it_was_asked_for_and_allowed(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("approver")
    page.add_init_script(NOTICES)
    page.goto("/settings/notices/")
    assert fits_and_is_accessible(page)
    box, state = page.get_by_label("Desktop notice"), page.locator("#notices-state")
    page.evaluate("window.answer = 'denied'")
    box.check()
    expect(state).to_contain_text("refuses notices of this address")
    box.uncheck()
    page.evaluate("Notification.permission = 'default'; window.answer = 'granted'")
    box.check()
    expect(state).to_contain_text("This browser shows them")
    page.get_by_label("Count in the tab").check()
    save(page)
    page.goto("/tools/")
    expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live")
    page.evaluate("Notification.permission = 'granted'")
    waiting_run(stack)
    expect(page.locator("html")).to_have_attribute("data-told", re.compile(r"^\d+ approvals? waits?$"))
    expect(page).to_have_title(re.compile(r"^\(\d+\) Tools"))


def test_a_key_is_asked_for_with_a_proof_and_shown_with_a_button_that_copies_it(stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("operator")
    page.goto("/settings/keys/new/")
    page.get_by_label("Type your password").or_(page.locator("#password")).first.fill(stack.dev["operator"]["password"])
    page.get_by_role("button", name="Go on").click()
    assert fits_and_is_accessible(page)
    page.get_by_label("Name", exact=True).fill("nightly")
    page.get_by_label("runs:read").check()
    page.get_by_role("button", name="Make key").click()
    text = page.locator("#key-text").inner_text()
    assert fits_and_is_accessible(page)
    assert page.get_by_role("button", name="Copy", exact=True).get_attribute("data-copy") == text
    page.get_by_role("link", name="I have kept it").click()
    page.get_by_role("link", name="nightly").click()
    assert fits_and_is_accessible(page)
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Revoke key").click()
    expect(page.locator("tr", has_text="nightly")).to_contain_text("Revoked")
    page.goto("/settings/workspace/")
    assert fits_and_is_accessible(page)
