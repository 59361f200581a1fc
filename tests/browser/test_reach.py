"""Reach: long runs, small screens, slow lines, no scripts, no colours."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from console.status import KINDS
from tenants.ids import decode
from tests.acceptance.stack import Stack

from .conftest import SignedIn, tell, violations

COMPLAINT = "URGENT: I was charged twice on acct_1001"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STEPS = 500
# Steps 101 to 500 look like the first one of a real run that waits for a person.
COPIED = (
    """insert into step select (s).* from (select jsonb_populate_record(t, jsonb_build_object('step', n)) as s
       from step t, generate_series(101, %(steps)s) n where t.run_id = %(run)s and t.step = 1) rows""",
    """insert into call select (c).* from (select jsonb_populate_record(t, jsonb_build_object('step', n, 'idem_key', null)) as c
       from call t, generate_series(101, %(steps)s) n where t.run_id = %(run)s and t.step = 1) rows""",
)
TAKEN_BACK = ("delete from call where run_id = %(run)s and step > 100", "delete from step where run_id = %(run)s and step > 100")
FIRST_ROW = """new MutationObserver((_, watch) => {
  if (!document.querySelector('#tree [role=treeitem]')) return;
  watch.disconnect();
  requestAnimationFrame(() => { window.firstRow = performance.now() });
}).observe(document, { childList: true, subtree: true })"""
APPEND = """() => {
  const tree = document.getElementById('tree'), rows = [...tree.querySelectorAll('[data-at]')].slice(0, 20);
  const began = performance.now();
  tree.append(...rows.map(row => row.cloneNode(true)));
  tree.getBoundingClientRect();
  const took = performance.now() - began;
  [...tree.children].slice(-20).forEach(row => row.remove());
  return took;
}"""


@pytest.fixture(scope="module")
def waiting(stack: Stack) -> str:
    run = stack.submit(COMPLAINT)
    stack.until(run, "waiting_approval")
    return run


@pytest.fixture
def long_run(stack: Stack, waiting: str) -> Iterator[str]:
    given = {"run": decode("agt", waiting), "steps": STEPS + 96}
    forge(stack, COPIED, given)
    yield waiting
    forge(stack, TAKEN_BACK, given)


def forge(stack: Stack, statements: tuple[str, ...], given: dict[str, Any]) -> None:
    """As the owner, past the rule that a call moves step by step."""
    with psycopg.connect(stack.urls.owner) as connection:
        for statement in ("alter table call disable trigger user", *statements, "alter table call enable trigger user"):
            connection.execute(statement.encode(), given)


def settled(page: Page) -> None:
    expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live", timeout=30_000)


def test_a_run_of_five_hundred_steps_comes_in_parts_and_its_links_lead_into_it(stack: Stack, signed_in: SignedIn, long_run: str) -> None:
    page = signed_in("operator")
    page.add_init_script(FIRST_ROW)
    page.goto(f"/runs/{long_run}/")
    settled(page)
    rows = page.locator("#tree [role=treeitem][data-at]")
    assert rows.count() == 200
    assert page.evaluate("document.querySelectorAll('*').length") <= 6000
    assert rows.first.evaluate("row => getComputedStyle(row).contentVisibility") == "auto"
    print(f"500 steps: first row after {page.evaluate('window.firstRow'):.0f} ms, 20 rows appended in {page.evaluate(APPEND):.1f} ms")
    page.locator("#rest").scroll_into_view_if_needed()
    expect(rows).to_have_count(400)
    page.goto(f"/runs/{long_run}/#step-590")
    expect(page.locator("#step-590")).to_be_visible()
    expect(page.locator("#inspector-title")).to_have_text("Step 590")
    page.goto(f"/runs/{long_run}/?sel=300.1&tab=raw#call-300.1")
    expect(page.locator("#tree [data-at='300.1']")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#inspector a[data-tab=raw]")).to_have_attribute("aria-current", "true")
    page.goto(f"/runs/{long_run}/#seq-3")
    expect(page.locator("#seq-3")).to_have_class(re.compile("hit"))
    expect(page.locator("#seq-3")).to_be_in_viewport()


def test_on_a_phone_a_touched_row_opens_a_sheet_that_lives_and_closes(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("operator", **PHONE)
    page.goto(f"/runs/{waiting}/")
    settled(page)
    expect(page.locator("#inspector")).to_be_hidden()
    row = page.locator("#tree [role=treeitem][data-at='1.0']")
    row.tap()
    sheet = page.get_by_role("dialog", name="Detail")
    expect(sheet.locator("#inspector")).to_contain_text("primary")
    assert violations(page) == []
    box = sheet.bounding_box()
    assert box is not None and box["x"] == 0 and box["width"] == 390 and box["y"] + box["height"] == pytest.approx(844, abs=1)
    sheet.get_by_role("link", name="Raw").tap()
    expect(sheet.locator("a[data-tab=raw]")).to_have_attribute("aria-current", "true")
    tell(stack, waiting, 1)  # fetched again while it is open
    page.wait_for_function("() => document.getElementById('inspector').dataset.liveFragment.includes('sel=1.0')")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(row).to_be_focused()
    row.tap()
    sheet.get_by_role("button", name="Close").tap()
    expect(page.locator(".split > #inspector")).to_be_attached()
    page.goto(f"/runs/{waiting}/?sel=1.0#call-1.0")
    expect(sheet.locator("#inspector")).to_be_visible()  # a link to a call shows it


def test_a_slow_line_and_no_scripts_still_show_and_decide(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    slow = signed_in("operator", **PHONE)
    line = slow.context.new_cdp_session(slow)
    line.send("Network.enable")
    line.send(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    )
    slow.goto("/runs/", wait_until="commit", timeout=60_000)
    expect(slow.get_by_role("link", name=COMPLAINT).first).to_be_visible(timeout=60_000)
    settled(slow)
    slow.get_by_role("link", name=COMPLAINT).first.tap()
    expect(slow.locator("#tree [role=treeitem]").first).to_be_attached(timeout=60_000)

    plain = signed_in("approver", java_script_enabled=False, viewport={"width": 390, "height": 844})
    for address, text in (
        ("/", "Waiting for approval"),
        ("/runs/", COMPLAINT),
        (f"/runs/{waiting}/", "create_ticket"),
        ("/approvals/", "Waiting"),
    ):
        plain.goto(address)
        expect(plain.locator("main")).to_contain_text(text)
    run = stack.submit(COMPLAINT)
    stack.until(run, "waiting_approval")
    plain.goto(f"/approvals/{stack.approval_of(run)['approval_id']}/")
    expect(plain.locator("#args-title")).to_be_visible()
    plain.get_by_role("button", name=re.compile("^Reject")).first.click()
    plain.locator("#reason-reject").fill("not ours")
    plain.locator("dialog[open]").get_by_role("button", name=re.compile("^Reject")).click()
    plain.wait_for_url("**decided=**")
    said = stack.api("GET", f"/approvals?run_id={run}&state=rejected", key="admin_api_key").body["items"]
    assert len(said) == 1


def test_without_colours_every_state_is_told_by_its_icon_and_its_word(
    stack: Stack, signed_in: SignedIn, waiting: str, tmp_path: Path
) -> None:
    """The pictures are for people: SIGNALBOX_PICTURES says where they are kept."""
    for kind, looks in KINDS.items():
        signs = [(look.icon, look.label) for look in looks.values()]
        assert len(set(signs)) == len(signs), f"{kind}: two states look alike without their colour"
    folder = Path(os.environ.get("SIGNALBOX_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = signed_in("operator")
    page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
    pills: Any = "() => [...document.querySelectorAll('main .pill')].map(pill => [!!pill.querySelector('svg use'), pill.innerText.trim()])"
    for name, address in (("overview", "/"), ("runs", "/runs/"), ("run", f"/runs/{waiting}/"), ("approvals", "/approvals/?tab=decided")):
        page.goto(address)
        settled(page)
        page.screenshot(path=folder / f"grey-{name}.png")
        assert all(icon and word for icon, word in page.evaluate(pills))
    assert len(list(folder.glob("grey-*.png"))) >= 4
