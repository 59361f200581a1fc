"""An incident from its first sign to its end: the machine opens it, people carry the runbook out from its page, the machine closes it."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack

from .conftest import Complaints, SignedIn
from .test_story import assert_same_page, live, mark

LOOK_UP = {"calls": [{"name": "search_docs", "arguments": {"query": "refunds"}}]}
ASKED = "Please help\n#sim " + json.dumps({"turns": [LOOK_UP, {"text": "Here you are."}]})
CAUTIOUS = """
from console.incidents import settings
given = {"window_minutes": 1, "minimum": 3, "hold_minutes": 0}
settings.put(None, "tool_errors", settings.read({"runbook": "tool-timeouts", "parameters": given}))
"""
LOOK = """
from datetime import timedelta
from console import rollups
from console.incidents import watch
watch.look(rollups.database_now() + timedelta(minutes=%d))
"""


def look(stack: Stack, minutes: int = 0) -> None:
    """What the watchman of the jobs does every few seconds; `minutes` from now."""
    stack.python(LOOK % minutes)


def live_ones(stack: Stack) -> list[dict[str, str]]:
    found = stack.api("GET", "/incidents?state=live&detector=tool_errors").body["items"]
    return [one for one in found if one["subject"] == {"tool": "search_docs"}]


@pytest.mark.mission("P11.1", "P11.2", "P11.3")
def test_a_failing_tool_is_disabled_from_the_runbook_of_its_incident_and_comes_back(
    stack: Stack, signed_in: SignedIn, complaints: Complaints
) -> None:
    stack.python(CAUTIOUS)
    stack.sandbox("PUT", "/faults", {"target": "search_docs", "fault": "500", "times": -1})
    try:
        runs = [stack.submit(ASKED) for _ in range(3)]
        for run in runs:
            stack.until(run)
        watcher = signed_in("operator")
        watcher.goto("/incidents/")
        live(watcher)
        mark(watcher)
        look(stack)
        expect(watcher.locator("#incidents-list")).to_contain_text("search_docs fails too often")
        assert_same_page(watcher)
        [incident] = live_ones(stack)
        page = signed_in("admin")
        contain(page, incident["incident_id"])
        disabled = stack.until(stack.submit(ASKED))
        assert disabled["tools_called"] == []
    finally:
        stack.sandbox("DELETE", "/faults")
    recover(page)
    look(stack, minutes=2)
    page.goto(f"/incidents/{incident['incident_id']}/")
    expect(page.locator("#incident-head")).to_contain_text("Resolved")
    expect(page.locator("#log")).to_contain_text("The detector sees nothing of it any more.")
    assert live_ones(stack) == []
    assert stack.until(stack.submit(ASKED))["state"] == "succeeded"


def contain(page: Page, incident_id: str) -> None:
    page.goto(f"/incidents/{incident_id}/")
    live(page)
    expect(page.locator("#incident-runs tbody tr")).to_have_count(3)
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#incident-head")).to_contain_text("Owner: admin")
    page.get_by_label(re.compile("^1\\. ")).check()
    expect(page.locator("#step-1")).to_contain_text("admin")
    expect(page.locator("#log")).to_contain_text("did step 1")
    page.locator("#step-6").get_by_role("link", name="Disable search_docs everywhere").click()
    expect(page.locator("main")).to_contain_text("queued may want it")
    page.get_by_label("Reason").fill("it only answers 500")
    page.get_by_role("button", name="Disable search_docs everywhere").click()
    expect(page.locator("#log")).to_contain_text("Disabled search_docs everywhere.")


def recover(page: Page) -> None:
    page.get_by_role("link", name="Take back").click()
    page.get_by_label("Reason").fill("it answers again")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#log")).to_contain_text("Enabled search_docs everywhere.")
