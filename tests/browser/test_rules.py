"""Rules that every page keeps: what is typed survives a refresh, old news is dropped, one zone for all times, hostile text, weight."""

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.acceptance.stack import Stack
from tests.browser.conftest import SignedIn

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> \u202eevil\u202c " + "w" * 2_500


def waiting_run(stack: Stack) -> str:
    run = stack.submit("URGENT: I was charged twice on acct_1001")
    stack.until(run, "waiting_approval")
    return run


def morph(page: Any, target: str) -> None:
    """What live news does to a region: fetched again and morphed in place."""
    page.evaluate("([url, target]) => htmx.ajax('GET', url, { target, swap: 'outerMorph' })", [page.url, target])


def test_text_that_is_typed_and_details_that_are_open_survive_live_news(stack: Stack, signed_in: SignedIn) -> None:
    waiting_run(stack)
    page = signed_in("approver")
    page.goto("/approvals/")
    reason = page.locator("input[name=reason], textarea[name=reason]").first
    reason.fill("looks right to me")
    reason.evaluate("field => field.setSelectionRange(6, 6)")
    page.locator("details summary").first.click()
    reason.focus()
    waiting_run(stack)  # the list changes under the reader's hands
    page.wait_for_timeout(1500)
    expect(reason).to_have_value("looks right to me")
    expect(reason).to_be_focused()
    assert reason.evaluate("field => field.selectionStart") == 6
    assert page.locator("details").first.get_attribute("open") is not None


def test_older_news_does_not_undo_newer_and_the_list_agrees_with_the_run(stack: Stack, signed_in: SignedIn) -> None:
    run = waiting_run(stack)
    page = signed_in("approver")
    sockets: list[Any] = []
    page.route_web_socket("**/ws", lambda socket: sockets.append(socket))
    page.goto("/runs/")
    shown = page.locator(f"tr:has(a[href*='{run}']), [role=row]:has(a[href*='{run}'])").first.inner_text()
    page.goto(f"/runs/{run}/")
    expect(page.locator("main")).to_contain_text("Waiting for approval")
    assert "Waiting for approval" in shown
    count = page.locator(".side [data-live-count=runs]")
    count.wait_for()

    def news(seq: int, runs: int) -> None:
        sockets[-1].send(json.dumps({"t": "runs", "seq": seq, "v": seq, "k": "counts", "d": {"id": "counts", "counts": {"runs": runs}}}))

    news(9_000_000_000_000_005, 77)
    expect(count).to_have_text("77")
    news(9_000_000_000_000_004, 66)
    page.wait_for_timeout(600)
    expect(count).to_have_text("77")


def test_one_switch_changes_the_zone_of_every_time_and_of_the_charts(stack: Stack, signed_in: SignedIn) -> None:
    run = waiting_run(stack)
    page = signed_in("approver", timezone_id="Asia/Tokyo")
    page.goto(f"/runs/{run}/?tab=raw")
    stamped = page.locator("main time[data-when=absolute]")
    before = stamped.all_inner_texts()
    page.get_by_role("button", name="Show times in your own zone").click()
    expect(page.locator("html")).to_have_attribute("data-zone", "local")
    after = stamped.all_inner_texts()
    assert before and len(before) == len(after)
    assert all("UTC" in was and "UTC" not in now and was[:5] != now[:5] for was, now in zip(before, after, strict=True))
    page.goto("/")
    ticks = page.locator(".chart .xtick text")
    ticks.first.wait_for()
    local = ticks.all_text_contents()
    page.get_by_role("button", name="Show times in UTC").click()
    expect(page.locator("html")).to_have_attribute("data-zone", "UTC")
    page.locator(".chart .xtick text").first.wait_for()
    assert local != page.locator(".chart .xtick text").all_text_contents()


def test_hostile_text_is_shown_and_never_run(stack: Stack, signed_in: SignedIn) -> None:
    sim = json.dumps({"turns": [{"text": HOSTILE}]})
    run = stack.submit(f"{HOSTILE[:200]}\n#sim {sim}")
    stack.until(run, "succeeded")
    page = signed_in("operator")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for address in (f"/runs/{run}/", f"/runs/{run}/?tab=raw", "/runs/", "/"):
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(address)
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not [url for url in asked if not url.startswith((stack.base_url, "ws://127.0.0.1", "data:", "blob:"))]


@pytest.mark.parametrize(("address", "most_kb"), [("/runs/", 200), ("/approvals/", 200), ("/", 650)])
def test_a_first_view_stays_within_its_weight(stack: Stack, signed_in: SignedIn, address: str, most_kb: int) -> None:
    """Budgets of the design: fonts 90, CSS and own scripts 45, HTML 30 KB compressed; charts 400 more where there are charts."""
    page = signed_in("operator")
    page.goto(address)
    page.wait_for_timeout(500)
    weigh = "() => performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).map(r => r.encodedBodySize)"
    sizes = page.evaluate(weigh)
    raw = sum(sizes) / 1024
    assert raw > 10, "nothing was weighed"
    page_bytes = page.evaluate("document.documentElement.outerHTML.length") / 1024
    assert page_bytes < 600 and len(sizes) <= 24
    assert raw < most_kb * 5  # static files are served uncompressed by the demo's server; the compressed sizes are pinned in tests/rules
