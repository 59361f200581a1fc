"""Text that would like to break a page: long without a place to break, turned round, piled up, and glued together, wherever it is shown."""

import os
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Page, expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn, violations
from .test_keys import palette
from .test_pages import WIDTHS, opened, script, wider_than_the_window

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
PILED = "".join(letter + "\u0300\u0315\u0338\u0352\u0489" * 12 for letter in "Zalgo")
TEXTS = {
    "long": "W" * 4000,
    "turned": f"\u202e\u2067المبلغ 525 דולר\u2066 \u202dנא להחזיר {PILED} {FAMILY * 60}",
}
TURNS = "[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]"  # what would turn the words after it round
LEFT = f"() => (document.body.innerText + document.title).match(/{TURNS}/gu)"
TAIL = " 525 סוף"  # a number after it that is not kept apart would be read before it
DRAWN_IN = r"""() => {
  const found = [], texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let at; (at = texts.nextNode()); ) {
    if (!at.data.includes("סוף")) continue;
    let own = at.parentElement;
    for (let css; (css = getComputedStyle(own)).display === "inline" && css.unicodeBidi === "normal"; ) own = own.parentElement;
    found.push(...own.textContent.match(/סוף[^\p{L}\n]*\d.*/gu) ?? []);
  }
  return found;
}"""
APART = """() => [...document.querySelectorAll(".inv")].map(each => [each.textContent, each.getBoundingClientRect().height])
  .filter(each => each[1] > 60)"""
SHOTS = os.environ.get("SIGNALBOX_SHOTS", "")  # a folder: for who wants to look at the pages


@pytest.fixture(scope="module")
def places(stack: Stack) -> dict[str, str]:
    """Name -> address. Each text is a run's request, what its model wants to write, and an incident's title."""
    found = {"overview": "/", "runs": "/runs/", "approvals": "/approvals/", "incidents": "/incidents/"}
    for name, text in TEXTS.items():
        ticket = {"account_id": "acct_1001", "priority": "urgent", "summary": text[:280]}
        turns = script({"calls": [{"name": "create_ticket", "arguments": ticket}]}, {"text": text})
        run = stack.submit(f"{text}\n{turns}")
        stack.until(run, "waiting_approval")
        said = {"title": text[:180] + TAIL, "subject": {"tool": "search_docs"}, "chart": "tool_errors", "runbook": "tool-timeouts"}
        incident = stack.api("POST", "/incidents", said).body["incident_id"]
        at = f"/runs/{run}/"
        tabs = {f"run-{tab}": f"{at}?sel=1.1&tab={tab}" for tab in ("args", "policy", "raw")}
        asked = f"/approvals/{stack.approval_of(run)['approval_id']}/"
        own = {"run": at, **tabs, "approval": asked, "confirm": f"{asked}?confirm=approve", "incident": f"/incidents/{incident}/"}
        found |= {f"{name}-{key}": address for key, address in own.items()}
    return found


def beside(page: Page) -> list[str]:
    """What is decided with, and does not stand in the window from edge to edge of it."""
    width = page.evaluate("innerWidth")
    buttons = page.locator("main button:visible, main a.btn:visible, dialog[open] button:visible").all()
    boxes: list[tuple[str, FloatRect | None]] = [(each.inner_text(), each.bounding_box()) for each in buttons]
    return [f"{name}: {box}" for name, box in boxes if box and (box["x"] < -1 or box["x"] + box["width"] > width + 1)]


def wrong(page: Page, width: int) -> list[str]:
    found = [*wider_than_the_window(page), *beside(page)]
    found += [f"drawn into it: {each}" for each in page.evaluate(DRAWN_IN)] + [f"in pieces: {each}" for each in page.evaluate(APART)]
    found += [f"not spelt out: {page.evaluate(LEFT)}"] if page.evaluate(LEFT) else []
    return found + (violations(page) if width == 390 else [])


def seen(page: Page, name: str, width: int) -> None:
    if SHOTS and width != 320:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=f"{SHOTS}/hostile_{name}_{width}_{scheme}.png", full_page=width == 390, animations="disabled")
        page.emulate_media(color_scheme="light")


@pytest.mark.timeout(240)
def test_no_text_however_long_or_turned_moves_what_stands_beside_it(places: dict[str, str], signed_in: SignedIn) -> None:
    page = signed_in("approver")
    found: dict[str, Any] = {}
    for name, address in places.items():
        page.set_viewport_size({"width": 1440, "height": 900})
        opened(page, address)
        for width, height in WIDTHS:
            page.set_viewport_size({"width": width, "height": height})
            found[f"{name} at {width}"] = wrong(page, width)
            seen(page, name, width)
        if name.endswith("confirm"):
            expect(page.locator("dialog[open]").get_by_role("button", name="Approve").first).to_be_in_viewport()
    page.set_viewport_size({"width": 390, "height": 844})
    for text in TEXTS.values():
        opened(page, "/tools/")
        expect(palette(page, text).get_by_role("option").first).to_be_visible()  # it offers to look for it
        found[f"palette {text[:8]!r}"] = wrong(page, 390)
        seen(page, f"palette{len(text)}", 390)
    assert {where: what for where, what in found.items() if what} == {}
