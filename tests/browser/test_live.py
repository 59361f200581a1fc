"""Live data that respects its reader: a lost line says so and loses nothing, a place is held, tabs agree, a typed reason survives."""

import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.acceptance.stack import Stack

from .conftest import Complaints, SignedIn, tell

COMPLAINT = "URGENT: I was charged twice on acct_1001"
HIDDEN = "Object.defineProperty(document, 'hidden', { get: () => window.away === true })"
SELECT = "tail => getSelection().selectAllChildren(tail.lastElementChild)"
# Where it is once twenty pictures in a row have shown it there: a wheel and a key scroll it over some of them.
AT_REST = """tail => new Promise(done => {
    let top = tail.scrollTop, same = 0
    const look = () => {
        same = tail.scrollTop === top ? same + 1 : 0
        top = tail.scrollTop
        same < 20 ? requestAnimationFrame(look) : done(top)
    }
    look()
})"""


class Line:
    """The socket of a page's server, which can be cut. `messages`: what the page was sent."""

    def __init__(self, page: Page) -> None:
        self.cut = False
        self.open: list[Any] = []
        page.route_web_socket("**/ws", self.connect)

    def connect(self, socket: Any) -> None:
        if self.cut:
            socket.close()
            return
        socket.connect_to_server()
        self.open.append(socket)

    def kill(self) -> None:
        self.cut = True
        for socket in self.open:
            socket.close()
        self.open.clear()


@pytest.fixture(scope="module")
def waiting(stack: Stack) -> str:
    return asked(stack)


def asked(stack: Stack) -> str:
    run = stack.submit(COMPLAINT)
    stack.until(run, "waiting_approval")
    return run


def state(page: Page) -> Any:
    return page.locator("[data-live-state]").first


def opened(page: Page, address: str) -> None:
    page.goto(address)
    expect(state(page)).to_have_attribute("data-state", "live")


def seqs(page: Page) -> list[int]:
    return [int(text.lstrip("#")) for text in page.locator("#tail .ev .q").all_text_contents()]


def told(page: Page, seq: int) -> None:
    expect(page.locator("#tail .ev .q").last).to_have_text(f"#{seq}", timeout=60_000)  # it tries again ever more seldom


@pytest.mark.mission("P13.7")
def test_a_cut_line_is_named_with_the_age_of_the_data_and_loses_no_event(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("operator")
    line = Line(page)
    opened(page, f"/runs/{waiting}/")
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    line.kill()
    expect(state(page)).to_have_text("Reconnecting")
    last = tell(stack, waiting, 10)
    expect(state(page)).to_have_text(re.compile(r"^Reconnecting, data is from \d\d:\d\d:\d\d$"), timeout=30_000)
    page.wait_for_function("() => performance.getEntriesByType('resource').some(one => one.name.includes('part=head'))", timeout=30_000)
    assert [url for url in fetched if "part=head" in url], "without a socket it asks over HTTP"
    line.cut = False
    told(page, last)
    shown = seqs(page)
    assert shown == list(range(shown[0], last + 1))  # each once, in order
    expect(state(page)).to_have_text("Live")


def test_pausing_stops_what_is_shown_and_nothing_is_missed(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    page = signed_in("operator")
    opened(page, f"/runs/{waiting}/")
    before = len(seqs(page))
    state(page).click()
    last = tell(stack, waiting, 5)
    expect(state(page)).to_have_text("Paused, 5 new")
    assert len(seqs(page)) == before
    state(page).click()
    told(page, last)
    assert len(seqs(page)) == before + 5


def test_any_look_back_holds_the_tail_and_its_end_follows_again(stack: Stack, signed_in: SignedIn, waiting: str) -> None:
    tell(stack, waiting, 30)
    page = signed_in("operator")
    opened(page, f"/runs/{waiting}/")
    tail, pill = page.locator("#tail"), page.locator("[data-live-new=tail]")

    def wheel() -> None:
        tail.hover()
        page.mouse.wheel(0, -10)

    def key(name: str) -> None:
        tail.focus()
        page.keyboard.press(name)

    ways = [wheel, lambda: key("PageUp"), lambda: key("ArrowUp"), lambda: key("Home"), lambda: tail.evaluate(SELECT)]
    for way in ways:
        way()
        page.wait_for_timeout(150)
        top = tail.evaluate(AT_REST)
        tell(stack, waiting, 3)
        expect(pill).to_have_text("Paused, 3 new. Follow")
        assert tail.evaluate("tail => tail.scrollTop") == top
        if way is ways[-1]:
            pill.click()
        else:
            key("End")
        expect(pill).to_be_hidden()
    last = tell(stack, waiting, 1)
    told(page, last)
    assert tail.evaluate("tail => tail.scrollHeight - tail.scrollTop - tail.clientHeight") < 24


def test_a_decision_in_one_tab_locks_the_other_and_a_tab_out_of_sight_counts(
    stack: Stack, signed_in: SignedIn, complaints: Complaints
) -> None:
    approval = stack.approval_of(asked(stack))["approval_id"]
    page = signed_in("approver")
    deaf, away = page.context.new_page(), page.context.new_page()
    deaf.route_web_socket("**/ws", lambda socket: None)  # connected, and told nothing: only the other tab can say it
    deaf.goto(f"/approvals/{approval}/")
    deaf.locator("#reason").fill("I was about to ask them")
    away.add_init_script(HIDDEN)
    opened(away, "/approvals/")
    away.evaluate("window.away = true")
    waits = int(re.findall(r"\d+", away.title())[0])
    another = asked(stack)
    expect(away).to_have_title(re.compile(rf"^\({waits + 1}\) "))
    opened(page, f"/approvals/{approval}/")
    page.keyboard.press("r")
    page.keyboard.type("not ours to pay")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**decided=**")
    expect(deaf.locator("#approval-status")).to_contain_text("approver rejected this")
    expect(deaf.locator("#decision").get_by_role("button", name=re.compile("^Reject"))).to_be_disabled()
    expect(deaf.locator("#reason")).to_have_value("I was about to ask them")
    assert stack.until(another, "waiting_approval")


def test_a_session_that_ends_in_the_middle_of_a_decision_costs_no_word(stack: Stack, open_context: Any) -> None:
    run = asked(stack)
    address = f"/approvals/{stack.approval_of(run)['approval_id']}/"
    context: BrowserContext = open_context()
    page = context.new_page()

    def sign_in() -> None:
        page.get_by_label("Username").fill("approver")
        page.get_by_label("Password").fill(stack.dev["approver"]["password"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{address}")
        expect(state(page)).to_have_attribute("data-state", "live")

    page.goto(address)
    sign_in()
    page.keyboard.press("r")
    page.keyboard.type("the invoice was right")
    context.clear_cookies(name="sessionid")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/sign-in/**")
    sign_in()
    expect(page.get_by_role("status").filter(has_text="You are signed in again.")).to_contain_text("It was not sent.")
    expect(page.locator("#reason")).to_have_value("the invoice was right")
    assert stack.until(run, "waiting_approval")
    page.keyboard.press("r")
    expect(page.locator("#reason-reject")).to_have_value("the invoice was right")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**decided=**")
    said = stack.api("GET", address[:-1], key="admin_api_key").body["decisions"]
    assert [one["reason"] for one in said] == ["the invoice was right"]
    assert page.evaluate("Object.keys(sessionStorage).filter(name => name.startsWith('typed '))") == []
    # a page that only listens does not send its reader away: it says so, and what is typed stays
    context.clear_cookies(name="sessionid")
    page.evaluate("document.dispatchEvent(new CustomEvent('sb:decided', { detail: {} }))")
    expect(state(page)).to_have_text("Signed out")
    assert "/approvals/" in page.url
    state(page).click()
    page.wait_for_url("**/sign-in/**")
