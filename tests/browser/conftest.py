"""A real browser on the whole installation. Any console message or page error fails the test, unless the test excuses it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tenants.ids import decode
from tests.acceptance.conftest import pytest_runtest_makereport, stack
from tests.acceptance.stack import Stack

__all__ = ["pytest_runtest_makereport", "stack"]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
PEOPLE = ("operator", "approver", "admin")
PATIENCE_MS = 15_000

SignedIn = Callable[..., Page]
EACH_BY_ITSELF = "test_pages.py"  # its tests may run anywhere; those of another file stay together, in their order


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != EACH_BY_ITSELF:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


# For the package, not the session: while it lives its event loop counts as running, which asynchronous tests do not bear.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = str(CHROMIUM) if CHROMIUM.exists() else None
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def sessions(stack: Stack) -> dict[str, str]:
    """Person -> the value of their session's cookie."""
    return dict(zip(PEOPLE, stack.sessions(*PEOPLE), strict=True))


class Complaints:
    """What pages said on their consoles."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.excused: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", lambda said: self.heard.append(f"{page.url}: {said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.heard.append(f"{page.url}: {error}"))

    def excuse(self, pattern: str) -> None:
        """From here on a message that fits is expected."""
        self.excused.append(pattern)

    def unexpected(self) -> list[str]:
        return [said for said in self.heard if not any(re.search(pattern, said) for pattern in self.excused)]


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    made = Complaints()
    yield made
    assert made.unexpected() == []


@pytest.fixture
def open_context(browser: Browser, stack: Stack, complaints: Complaints) -> Iterator[Callable[..., BrowserContext]]:
    contexts: list[BrowserContext] = []

    def open_(**options: Any) -> BrowserContext:
        context = browser.new_context(base_url=stack.base_url, **{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", complaints.watch)
        contexts.append(context)
        return context

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def signed_in(open_context: Callable[..., BrowserContext], sessions: dict[str, str], stack: Stack) -> SignedIn:
    """`signed_in("approver", color_scheme="dark")` -> an empty page of that person's browser."""

    def sign_in(person: str, **options: Any) -> Page:
        context = open_context(**options)
        context.add_cookies([{"name": "sessionid", "value": sessions[person], "url": stack.base_url, "httpOnly": True}])
        return context.new_page()

    return sign_in


AXE = Axe().axe_script
ONLY_VIOLATIONS = "axe.run({resultTypes: ['violations']}).then(found => found.violations)"


def violations(page: Page) -> list[str]:
    """What axe finds: rule, and where. A document reads its half megabyte of script once, and says only what is wrong."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate(ONLY_VIOLATIONS)
    return [f"{each['id']}: {' '.join(str(node['target'][0]) for node in each['nodes'][:4])}" for each in found]


NUMBERED = "update run set seq = seq + 1 where id = %s returning seq, tenant_id"
TOLD = """insert into event (run_id, seq, tenant_id, kind, payload) values (%s, %s, %s, 'plan_decided',
    '{"step_id": 3, "model": "primary", "data": {"calls": [], "offered": []}, "v": 1}')"""


def tell(stack: Stack, run_id: str, times: int, *, pause_s: float = 0.0) -> int:
    """`times` more events of a run that no engine holds, each committed by itself; the seq of the last."""
    key, seq = decode("agt", run_id), 0
    with psycopg.connect(stack.urls.engine) as connection:
        for _ in range(times):
            row = connection.execute(NUMBERED, [key]).fetchone()
            assert row is not None
            seq = row[0]
            connection.execute(TOLD.encode(), [key, seq, row[1]])
            connection.execute("select pg_notify('signalbox_moved', %s)", [key.hex])
            connection.commit()
            time.sleep(pause_s)
    return seq
