"""Charts for everybody: in words, from the keyboard, as a table; what changed is marked; nothing moves under the reader."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn

DRAWS = "() => { window.draws = 0; const react = Plotly.react; Plotly.react = (...given) => { window.draws++; return react(...given) } }"
WORSE = """key => {
  const data = document.getElementById(`${key}-figure`), figure = JSON.parse(data.textContent);
  figure.words = "Success rate fell from 99% to 94% between {2026-03-04T10:00:00Z} and {2026-03-04T11:00:00Z}; 3 runs.";
  figure.value = "94%";
  data.textContent = JSON.stringify(figure);
  document.dispatchEvent(new CustomEvent("htmx:after:swap", { detail: {} }));
}"""
SAID = """() => {
  const voice = document.getElementById("announce");
  window.said = [];
  const hear = new MutationObserver(() => window.said.push([performance.now(), voice.textContent]));
  hear.observe(voice, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def ran(stack: Stack) -> str:
    for text in ("How long does a refund take?", '#sim {"turns": [{"empty": true}]}'):
        stack.until(stack.submit(text))
    return text


@pytest.fixture
def page(stack: Stack, signed_in: SignedIn, ran: str) -> Page:
    """The overview, and nothing that happens elsewhere redraws it."""
    page = signed_in("admin")
    page.goto("/")
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#outcomes-title")).to_be_visible()
    return page


def chart(page: Page, key: str) -> Any:
    return page.locator(f"[data-chart={key}-figure]")


def data(page: Page, key: str) -> Any:
    return json.loads(page.locator(f"#{key}-figure").text_content() or "")


@pytest.mark.mission("P8.2")
def test_a_chart_is_a_picture_with_words_and_a_table_that_holds_the_same(page: Page) -> None:
    picture = page.get_by_role("img", name=re.compile(r"^Success rate"))
    expect(picture).to_have_count(1)
    expect(page.get_by_role("img", name=re.compile(r"^Runs by outcome: .*from \d\d:00\."))).to_have_count(1)
    page.get_by_role("button", name="Data of Runs by outcome").click()
    table = page.get_by_role("region", name="Data of Runs by outcome").get_by_role("table")
    expect(table.get_by_role("columnheader", name="Completed")).to_be_visible()
    assert table.get_by_role("row").count() == 25
    page.get_by_role("button", name="Data of Runs by outcome").click()
    expect(chart(page, "outcomes")).to_be_visible()


@pytest.mark.mission("X11")
def test_what_changed_is_a_mark_with_its_words_and_stands_in_the_table(page: Page) -> None:
    marks = data(page, "success")["markers"]
    assert marks
    mark = page.locator("figure", has=chart(page, "success")).locator(".mark").first
    assert marks[0]["label"] in (mark.get_attribute("aria-label") or "")
    mark.focus()
    expect(page.locator("figure", has=chart(page, "success")).locator(".tip")).to_contain_text(marks[0]["label"])
    page.get_by_role("button", name="Data of Success rate").click()
    expect(page.get_by_role("region", name="Data of Success rate").get_by_role("link", name=marks[0]["label"]).first).to_be_visible()


def test_the_keyboard_walks_the_bars_and_enter_opens_their_runs(page: Page) -> None:
    knob = page.get_by_role("slider", name=re.compile("^Places of Runs by outcome"))
    knob.focus()
    last = data(page, "outcomes")["links"][-1]
    assert "Completed" in (knob.get_attribute("aria-valuetext") or "")
    page.keyboard.press("ArrowLeft")
    expect(knob).to_have_attribute("aria-valuenow", "23")
    page.keyboard.press("Home")
    expect(knob).to_have_attribute("aria-valuenow", "1")
    expect(page.locator("figure", has=chart(page, "outcomes")).locator(".cursor")).to_be_visible()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{last}")
    expect(page.locator("#runs-list")).to_contain_text("support-triage")


def test_a_chart_is_not_redrawn_under_the_pointer_or_the_focus_and_its_words_follow_later(page: Page) -> None:
    page.evaluate(DRAWS)
    chart(page, "success").hover()
    page.evaluate(WORSE, "success")
    page.wait_for_timeout(300)
    assert page.evaluate("window.draws") == 0
    page.get_by_role("slider", name=re.compile("^Places of Success rate")).focus()
    page.mouse.move(2, 2)
    page.wait_for_timeout(300)
    assert page.evaluate("window.draws") == 0
    page.locator("h1").evaluate("h1 => { h1.tabIndex = -1; h1.focus() }")
    expect(chart(page, "success")).to_have_attribute(
        "aria-label", re.compile("fell from 99% to 94% between 10:00 and 11:00; 3 runs"), timeout=20_000
    )
    expect(page.locator("figure", has=chart(page, "success")).locator("[data-chart-value]")).to_have_text("94%")
    assert page.evaluate("window.draws") == 1


def test_one_polite_voice_speaks_at_most_once_in_five_seconds(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Paused")).click()
    expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live")
    page.evaluate(SAID)
    page.mouse.move(2, 2)
    page.evaluate(WORSE, "outcomes")
    expect(page.locator("#announce")).to_contain_text("fell from 99% to 94%", timeout=20_000)
    said = page.evaluate("window.said")
    assert all(after[0] - before[0] > 4000 for before, after in pairwise(said))
    assert page.locator("[aria-live=polite]:not(.toasts *)").count() == 1


def test_times_stand_in_the_readers_zone(stack: Stack, signed_in: SignedIn, ran: str) -> None:
    page = signed_in("operator", timezone_id="Asia/Tokyo")
    page.goto("/")
    page.get_by_role("button", name=re.compile("^UTC")).click()
    page.wait_for_load_state()
    first = data(page, "outcomes")["data"][0]["x"][0]
    drawn = page.evaluate("document.querySelector('[data-chart=outcomes-figure]').data[0].x[0]")
    assert int(drawn[11:13]) == (int(first[11:13]) + 9) % 24
    page.get_by_role("button", name=re.compile("^Your time")).click()


def test_two_ticked_runs_are_compared(stack: Stack, signed_in: SignedIn, ran: str) -> None:
    page = signed_in("operator")
    page.goto("/runs/")
    compare = page.get_by_role("button", name="Compare two")
    ticks = page.locator("input[name=run]")
    ticks.nth(0).check()
    expect(compare).to_be_disabled()
    ticks.nth(1).check()
    compare.click()
    expect(page.get_by_role("heading", name="Compare runs")).to_be_visible()
    expect(page.get_by_role("heading", name="Step by step")).to_be_visible()
