"""T54: text that would like to run, in every field that strangers write, on every page: nothing of it runs, nothing leaves, all is shown.

The long form (CHAOS=1) has the whole corpus and opens the pages of many runs, approvals and incidents; the short one has some of
every kind.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route

from tests.acceptance.stack import ROOT, Stack
from tests.crash.figures import figure

from .conftest import Complaints, SignedIn
from .payload_world import MAKE
from .payloads import CORPUS, FEW, MARK, OUT
from .test_pages import wider_than_the_window

LONG = bool(os.environ.get("CHAOS"))
# A payload that came to life would call this; what a page keeps to itself it tells a test in the same way.
HIT = "window.hits = 0; window.hit = window.alert = window.confirm = window.prompt = window.print = () => { window.hits++; return '' }"
SHOWN = "() => document.body.innerText + ' ' + [...document.querySelectorAll('input, textarea')].map(each => each.value).join(' ')"
GREW = """() => {
  const made = "script:not([src]):not([type='application/json']), iframe, object, embed, base, [onerror], [onload]";
  return [...document.querySelectorAll(made)].map(each => each.outerHTML.slice(0, 80));
}"""
PAGES = (
    "/", "/runs/", "/runs/{large}/", "/runs/{large}/?sel=3.1", "/runs/{large}/?sel=4.1&tab=raw", "/runs/{large}/?sel=5", "/runs/{run}/",
    "/runs/{run}/fork/", "/approvals/", "/approvals/?tab=decided", "/approvals/{approval}/", "/approvals/{approval}/?edit=1",
    "/grants/", "/channels/", "/drafts/", "/unknowns/", "/incidents/", "/incidents/{incident}/", "/runbooks/", "/runbooks/{word}-book/",
    "/spend/", "/switches/", "/agents/", "/agents/{word}-agent/", "/agents/{word}-agent/releases/", "/compare/",
    "/compare/runs/?a={run}&b={large}", "/tools/", "/tools/{word}_tool_1/", "/tools/{word}_tool/what-if/", "/tools/-/matrix/",
    "/tools/-/rules/", "/tools/-/imports/", "/evals/", "/evals/suites/{word}/", "/evals/evaluations/", "/evals/scores/", "/memory/",
    "/audit/", "/changes/", "/releases/", "/models/", "/settings/members/", "/approvals/health/", "/evals/from-run/{run}/",
    "/detectors/", "/settings/security/",
)  # fmt: skip
ADMIN = ("runs/run", "approvals/approval", "tenants/auditentry", "tenants/user", "tools/rule", "console/delivery")
# They repeat what they were asked.
ASKS = (
    "/runs/", "/approvals/", "/incidents/", "/audit/", "/memory/", "/tools/", "/changes/", "/evals/scores/", "/",
)  # fmt: skip
NAMES = (
    "q", "agent", "tool", "state", "session", "user", "release", "tenant", "since", "tab", "cursor", "text", "period", "kind", "actor",
    "key", "sel",
)  # fmt: skip


@pytest.fixture
def world(stack: Stack) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-v0", "-c", MAKE.format(few=not LONG)]
    done = subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    yield made
    with psycopg.connect(stack.urls.owner) as owner:  # nobody else's pages show them
        owner.execute("update tools_tool set tenants = '{nobody}' where name like 'hostile%'")


class Walk:
    """One person's browser, what it met, and where."""

    def __init__(self, page: Page, own: str) -> None:
        self.page, self.own = page, urlsplit(own).netloc
        self.met: list[str] = []
        self.visited: Counter[str] = Counter()
        self.shown: set[str] = set()
        self.places = 0
        page.on("dialog", lambda dialog: (self.met.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self.asked)
        page.on("popup", lambda popup: self.met.append(f"popup: {popup.url}"))

    def asked(self, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.netloc != self.own:
            self.met.append(f"{self.page.url}: asked for {request.url}")

    def visit(self, address: str, *, statuses: tuple[int, ...] = (200,), narrow: bool = True) -> None:
        answer = self.page.goto(address)
        assert answer is not None
        if answer.status not in statuses:
            self.met.append(f"{address}: answered {answer.status}")
        marks = set(MARK.findall(self.page.evaluate(SHOWN)))
        self.shown |= marks
        self.places += len(marks)
        self.visited[urlsplit(address).path.split("/")[1]] += 1
        if narrow:
            self.page.set_viewport_size({"width": 390, "height": 844})
            self.met += [f"{address} at 390: {found}" for found in wider_than_the_window(self.page)]
            self.page.set_viewport_size({"width": 1440, "height": 900})
        self.met += [f"{address}: grew {each}" for each in self.page.evaluate(GREW)]
        if self.page.evaluate("window.hits"):
            self.met.append(f"{address}: ran")


@pytest.fixture
def walk(world: dict[str, Any], stack: Stack, open_context: Callable[..., BrowserContext]) -> Walk:
    context = open_context()
    context.add_init_script(HIT)
    context.add_cookies([{"name": "sessionid", "value": world["session"], "url": stack.base_url, "httpOnly": True}])
    return Walk(context.new_page(), stack.base_url)


@pytest.mark.mission("P13.1")
@pytest.mark.timeout(5400 if LONG else 300)
def test_no_text_of_a_stranger_ever_runs(world: dict[str, Any], walk: Walk, complaints: Any) -> None:
    complaints.excuse(r"status of (400|404|422)")
    began = time.monotonic()
    one = {"run": world["runs"][3], "approval": world["approvals"][5], "incident": world["incidents"][7]}
    names = one | {"word": world["word"], "large": world["large"]}
    for address in PAGES:
        walk.visit(address.format(**names))
    for address in repeated():
        walk.visit(address, statuses=(200, 400, 404, 422), narrow=False)
    if LONG:
        for address in one_of_each(world):
            walk.visit(address, narrow=False)
    assert not walk.met, "\n".join(walk.met)
    payloads = CORPUS if LONG else FEW
    assert len(walk.shown) >= 0.9 * len(payloads), "few payloads were seen at all"
    if LONG:
        figure(
            "T54", "texts that would like to run, in every field that strangers write, on every page of a real browser", n=len(payloads),
            seconds=time.monotonic() - began, fields=len(world["filled"]), rows_with_a_payload=sum(world["filled"].values()),
            pages_opened=walk.visited.total(), kinds_of_payload_seen=len(walk.shown), times_seen=walk.places, scripts_run=0, requests_out=0,
        )  # fmt: skip


def repeated() -> Iterator[str]:
    """Pages that were asked with a payload for every word, and places that are none."""
    payloads = CORPUS[::3] if LONG else FEW[::6]
    for number, payload in enumerate(payloads):
        yield f"{ASKS[number % len(ASKS)]}?{urlencode({name: payload for name in NAMES})}"
        if number % 4 == 0 if LONG else number < 3:
            yield f"/{('runs', 'tools', 'approvals', 'agents')[number % 4]}/{quote(payload, safe='')}/"


def one_of_each(world: dict[str, Any]) -> Iterator[str]:
    yield from (f"/runs/{run}/?sel=1.1" for run in world["runs"][::12])
    yield from (f"/runs/{world['large']}/?sel={number}.2" for number in range(1, len(CORPUS), 16))
    yield from (f"/approvals/{approval}/" for approval in world["approvals"][::8])
    yield from (f"/incidents/{incident}/" for incident in world["incidents"][::8])
    yield from (f"/tools/{world['word']}_tool_{number}/" for number in range(1, len(CORPUS), 12))
    yield from (f"/audit/{entry}/" for entry in world["rows"]["tenants_auditentry"][::16])
    yield from (f"/admin/{each}/" for each in ADMIN)


@pytest.mark.parametrize(
    ("raw", "policy", "watched", "met"),
    [
        ("<script>hit()</script>", False, True, "ran"),
        ("<img src='data:,' onerror='alert(1)'>", False, True, "ran"),
        ("<script>alert('heard')</script>", False, False, "dialog: heard"),
        (f"<img src='{OUT}/leak'>", False, True, f"asked for {OUT}/leak"),
        ("<img src='data:,' onerror='hit()'>", True, True, "grew <img"),  # the policy of the page stops it: it is seen all the same
        ("<iframe srcdoc='x'></iframe>", True, True, "grew <iframe"),
        ("<p>hit() alert(1)</p>", False, True, ""),
    ],
)
def test_a_payload_that_is_not_escaped_is_noticed(
    stack: Stack, signed_in: SignedIn, complaints: Complaints, raw: str, policy: bool, watched: bool, met: str
) -> None:
    complaints.excuse("Failed to load resource|Content Security Policy|WebSocket")
    page = signed_in("operator")
    if watched:
        page.add_init_script(HIT)

    def unescaped(route: Route) -> None:
        answer = route.fetch()
        headers = {name: value for name, value in answer.headers.items() if policy or name != "content-security-policy"}
        route.fulfill(response=answer, headers=headers, body=answer.text().replace("</main>", f"{raw}</main>"))

    page.route("**/runbooks/", unescaped)
    walk = Walk(page, stack.base_url)
    walk.visit("/runbooks/")
    assert any(met in each for each in walk.met) if met else walk.met == []
