"""What holds for every page: accessible, quiet, nothing cut off, nothing that jumps."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import Complaints, SignedIn, tell, violations

COMPLAINT = "URGENT: I was charged twice on acct_1001"
WIDTHS = ((1440, 900), (390, 844), (320, 640))
PAGES = (
    "/", "/runs/", "/runs/?state=failed", "/runs/?q=nothing-is-called-this", "/runs/{succeeded}/", "/runs/{waiting}/", "/runs/{failed}/",
    "/runs/views/?query=state%3Dfailed", "/runs/{succeeded}/?ask=retry", "/runs/new/", "/runs/bulk/", "/runs/bulk/matching/?state=failed",
    "/approvals/", "/approvals/?tab=decided", "/approvals/{approval}/",
    "/approvals/{decided}/", "/drafts/", "/drafts/?state=all", "/runs/{drafted}/", "/runs/{drafted}/?ask=carry_out&draft=1.1",
    "/runs/{asking}/", "/approvals/{budget}/", "/approvals/{budget}/?confirm=approve",
    "/tools/-/matrix/", "/tools/-/matrix/?tenant=acme&tool=create_ticket&agent=support-triage", "/tools/-/rules/",
    "/tools/-/rules/of/no-exfiltration/?tenant=-", "/tools/-/versions/?tenant=-&to=1", "/tools/create_ticket/what-if/",
    "/?period=30d", "/agents/", "/agents/support-triage/", "/compare/", "/compare/runs/", "/compare/runs/?a={succeeded}&b={failed}",
    "/tools/", "/tools/create_ticket/", "/models/", "/models/primary/", "/metric-definitions/",
    "/releases/", "/agents/support-triage/releases/", "/evals/evaluations/", "/runs/{succeeded}/fork/",
    "/evals/", "/evals/checks/", "/evals/scores/", "/evals/from-run/{succeeded}/",
    "/breakers/move/?host=127.0.0.1:9009&tenant=acme&action=open", "/demo/", "/unknowns/", "/switches/",
    "/incidents/", "/incidents/{incident}/", "/incidents/{incident}/do/open_breaker/?step=4", "/runbooks/tool-timeouts/", "/detectors/",
    "/changes/", "/welcome/", "/audit/", "/memory/", "/memory/forget/",
    "/settings/security/", "/settings/security/confirm/", "/settings/members/",
    "/settings/preferences/", "/settings/keys/",
)  # fmt: skip
OF_ADMINS = ("/audit/", "/settings/members/", "/evals/from-run/{succeeded}/")
TICKET = {"calls": [{"name": "create_ticket", "arguments": {"account_id": "acct_1001", "priority": "urgent", "summary": "Charged twice"}}]}
SHIFTS = """
window.shifted = 0;
window.movers = [];
const moved = ({ node, previousRect: from, currentRect: to }) =>
  `${node?.nodeName}#${node?.id}.${node?.className} y ${from.y}->${to.y} h ${from.height}->${to.height}`;
const seen = shift => { window.shifted += shift.value; window.movers.push([shift.value, ...shift.sources.map(moved)]) };
new PerformanceObserver(list => list.getEntries().filter(shift => !shift.hadRecentInput).forEach(seen))
  .observe({ type: "layout-shift", buffered: true });
"""
STICKS_OUT = """() => [...document.querySelectorAll("body *")]
  .filter(el => el.getBoundingClientRect().right > innerWidth + 1 && !el.closest(".scroll-x"))
  .slice(0, 5).map(el => `${el.localName}#${el.id}.${el.className}`)"""
CUT_OFF = """() => [...document.querySelectorAll("main :is(a, button, input, select, textarea)")]
  .filter(el => !el.closest(".scroll-x") && el.checkVisibility() && el.getBoundingClientRect().left < 0)
  .map(el => `cut off at the left: ${el.outerHTML.slice(0, 80)}`)"""
UNMARKED = """() => {
  const at = document.activeElement, css = getComputedStyle(at);
  if (at === document.body) return "";
  const shown = (css.outlineStyle !== "none" && parseFloat(css.outlineWidth) > 0) || css.boxShadow !== "none";
  return shown && at.matches(":focus-visible") ? "" : at.outerHTML.slice(0, 120);
}"""


@dataclass(frozen=True)
class Told:
    """Ids of runs and approvals in states worth looking at."""

    succeeded: str
    waiting: str
    failed: str
    approval: str
    decided: str
    drafted: str
    asking: str
    budget: str
    incident: str


def script(*turns: dict[str, Any]) -> str:
    """A request whose simulated model takes exactly these turns."""
    return "Please help\n#sim " + json.dumps({"turns": turns})


@pytest.fixture(scope="module")
def told(stack: Stack) -> Told:
    drafted = stack.submit(script(TICKET, {"text": "Kept for a person."}), mode="draft")
    searches = ({"calls": [{"name": "search_docs", "arguments": {"query": word}}]} for word in ("refunds", "invoices"))
    asking = stack.submit(script(*searches, {"text": "Done."}), agent="refund-agent", budget={"max_tool_calls": 1})
    stack.until(drafted, "succeeded")
    stack.until(asking, "waiting_budget")
    succeeded, waiting, failed = (stack.submit(text) for text in (COMPLAINT, COMPLAINT, '#sim {"turns": [{"empty": true}]}'))
    for run in (succeeded, waiting):
        stack.until(run, "waiting_approval")
    stack.until(failed, "failed")
    decided = stack.approval_of(succeeded)
    said = {"verdict": "approve", "digest": decided["digest"]}
    stack.api("POST", f"/approvals/{decided['approval_id']}/decision", said, key="admin_api_key")
    assert stack.until(succeeded)["state"] == "succeeded"
    asked = stack.approval_of(waiting)["approval_id"], decided["approval_id"]
    return Told(succeeded, waiting, failed, *asked, drafted, asking, stack.approval_of(asking)["approval_id"], an_incident(stack))


def an_incident(stack: Stack) -> str:
    said = {"title": "search_docs is slow", "subject": {"tool": "search_docs"}, "chart": "tool_errors", "runbook": "tool-timeouts"}
    return str(stack.api("POST", "/incidents", said).body["incident_id"])


def opened(page: Page, address: str) -> None:
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == 200
    if page.locator("body[data-live]").count():
        expect(page.locator("[data-live-state]").first).to_have_attribute("data-state", "live")


def wider_than_the_window(page: Page) -> list[str]:
    """What sticks out, or cannot be scrolled to, once everything has settled: charts follow a new width a moment later."""
    for _ in range(30):
        if page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            return page.evaluate(CUT_OFF)
        page.wait_for_timeout(100)
    return [f"scrolls sideways: {page.evaluate(STICKS_OUT)}"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_a_page_is_accessible_and_fits_at_every_width(told: Told, signed_in: SignedIn, address: str, scheme: str) -> None:
    page = signed_in("admin" if address in OF_ADMINS else "approver", color_scheme=scheme)
    opened(page, address.format(**vars(told)))
    found = {}
    for width, height in WIDTHS:
        page.set_viewport_size({"width": width, "height": height})
        again = width == 320 and scheme == "dark"  # what the light page at 320 and the dark one at 390 have shown between them
        found[width] = [*wider_than_the_window(page), *([] if again else violations(page))]
    assert found == {width: [] for width, _ in WIDTHS}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signing_in_is_accessible_and_leads_to_the_page_that_was_asked_for(stack: Stack, open_context, complaints, scheme: str) -> None:
    complaints.excuse("status of 422")
    page = open_context(color_scheme=scheme).new_page()
    page.goto("/runs/")
    for width, height in WIDTHS:
        page.set_viewport_size({"width": width, "height": height})
        assert [*wider_than_the_window(page), *violations(page)] == []
    page.get_by_label("Username").fill("approver")
    page.get_by_label("Password").fill("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    assert violations(page) == []
    page.get_by_label("Password").fill(stack.dev["approver"]["password"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/")


@pytest.mark.parametrize("address", ["/", "/runs/", "/approvals/", "/runs/{waiting}/"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_jumps_while_two_hundred_events_arrive(told: Told, stack: Stack, signed_in: SignedIn, address: str, width: int) -> None:
    page = signed_in("operator", viewport={"width": width, "height": 900})
    page.add_init_script(SHIFTS)
    opened(page, address.format(**vars(told)))
    page.evaluate("window.shifted = 0, window.movers = []")  # a browser short of time paints half a page while it still reads it
    last = tell(stack, told.waiting, 200, pause_s=0.01)
    if "waiting" in address:
        expect(page.locator("#tail .ev .q").last).to_have_text(f"#{last}")
    page.wait_for_timeout(1500)  # lists and charts follow at most once a second
    assert page.evaluate("window.shifted") < 0.02, page.evaluate("window.movers")


def test_a_row_on_a_phone_keeps_its_height_when_times_are_put_in_words(told: Told, signed_in: SignedIn, complaints: Complaints) -> None:
    complaints.excuse("Failed to load resource")
    page = signed_in("operator", viewport={"width": 390, "height": 900})
    opened(page, "/runs/")
    heights = """() => [...document.querySelectorAll('.runs-table tbody tr')].slice(0, 6)
      .flatMap(row => [...row.cells].map(cell => cell.offsetTop - row.offsetTop))"""
    expect(page.locator(".runs-table time").first).to_contain_text(re.compile("now|ago"))
    worded = page.evaluate(heights)
    page.route("**/*.js", lambda route: route.abort())
    page.goto("/runs/")
    expect(page.locator(".runs-table time").first).to_contain_text("UTC")
    assert page.evaluate(heights) == worded


def test_a_row_under_the_pointer_stays_where_it_is(told: Told, stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("operator")
    opened(page, "/runs/")
    row = page.locator(f"#row-{told.waiting}")
    row.hover()
    before = row.bounding_box()
    for _ in range(3):
        stack.until(stack.submit("How long does a refund take?"))
    expect(page.get_by_text("3 new runs")).to_be_visible()
    assert row.bounding_box() == before


def test_an_approval_under_the_pointer_stays_where_it_is(told: Told, stack: Stack, signed_in: SignedIn) -> None:
    page = signed_in("approver")
    opened(page, "/approvals/")
    row = page.locator(f"#row-{told.approval}")
    row.hover()
    before = row.bounding_box()
    other = stack.submit(COMPLAINT)
    stack.until(other, "waiting_approval")
    expect(page.locator("[data-live-new=approval-list]")).to_be_visible()
    assert page.locator(f"#row-{stack.approval_of(other)['approval_id']}").count() == 0
    after = row.bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] - before["y"] == pytest.approx(0, abs=0.5)
    page.locator("[data-live-new=approval-list]").click()
    expect(page.locator(f"#row-{stack.approval_of(other)['approval_id']}")).to_be_visible()


def test_the_tail_holds_while_one_reads_above_and_says_how_many_came(told: Told, stack: Stack, signed_in: SignedIn) -> None:
    tell(stack, told.waiting, 40)
    page = signed_in("operator")
    opened(page, f"/runs/{told.waiting}/")
    tail, more = page.locator("#tail"), page.locator("[data-live-new=tail]")
    tail.evaluate("tail => tail.scrollTop = 5")
    tell(stack, told.waiting, 50)
    expect(more).to_contain_text("50")
    assert tail.evaluate("tail => tail.scrollTop") == 5
    tail.focus()
    page.keyboard.press("End")
    expect(more).to_be_hidden()
    last = tell(stack, told.waiting, 1)
    expect(page.locator("#tail .ev .q").last).to_have_text(f"#{last}")
    assert tail.evaluate("tail => tail.scrollHeight - tail.scrollTop - tail.clientHeight") < 24


@pytest.mark.parametrize("key", ["a", "r"])
def test_a_single_key_opens_the_confirm_step_and_decides_nothing(told: Told, stack: Stack, signed_in: SignedIn, key: str) -> None:
    page = signed_in("approver")
    opened(page, f"/approvals/{told.approval}/")
    page.keyboard.press(key)
    expect(page.locator("dialog[open]")).to_be_visible()
    page.keyboard.press(key)
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert stack.approval_of(told.waiting)["state"] == "pending"


@pytest.mark.parametrize("address", PAGES)
def test_every_stop_of_the_tab_key_shows_the_focus(told: Told, signed_in: SignedIn, address: str) -> None:
    page = signed_in("admin" if address in OF_ADMINS else "approver")
    opened(page, address.format(**vars(told)))
    unmarked = set()
    for _ in range(50):
        page.keyboard.press("Tab")
        unmarked.add(page.evaluate(UNMARKED))
    assert unmarked <= {""}
