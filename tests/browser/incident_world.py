"""A desk where things go wrong: agents, tools and a model of its own, detectors that need little, and people who follow a runbook."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from tests.acceptance.stack import ROOT, Stack

from .test_story import live

JSON = dict[str, Any]
QUICK = {"window_minutes": 5, "minimum": 3, "hold_minutes": 0}
HANG_S = 120
# Reads a number: look, so many minutes from now. Reads "past": what the agents' last hour was is what each of eight hours before it was.
LOOKS = """
import sys
from datetime import timedelta
from console import rollups
from console.incidents import watch
from console.models import RunHour

def past(now):
    runs, _ = rollups.measure(rollups.hour_of(now) - rollups.HOUR, now)
    kept = {row.agent: row for row in runs if row.agent in ("invoice-desk", "parcel-desk") and row.ended}
    for row in kept.values():
        for n in range(1, 9):
            row.pk, row._state.adding, row.hour = None, True, rollups.hour_of(now) - n * rollups.HOUR
            row.save()
    return [len(kept)]

for line in sys.stdin:
    now = rollups.database_now()
    if line.strip() == "past":
        print(*past(now), flush=True)
    else:
        made = watch.look(now + timedelta(minutes=int(line)))
        print(len(made.opened), made.reopened, made.resolved, flush=True)
"""


def script(*turns: JSON) -> str:
    return "#sim " + json.dumps({"turns": list(turns)})


def searches(*words: str) -> JSON:
    return {"calls": [{"name": "search_archive", "arguments": {"query": word}} for word in words], "latency_ms": 0}


def release(instructions: str, planner: str = "primary", *tools: str, **more: Any) -> JSON:
    return {
        "instructions": instructions,
        "tools": list(tools),
        "models": {"planner": {"model": planner, **more}},
        "budget": {"max_steps": 20, "max_tool_calls": 60, "max_cost_usd": 1},
        "deadlines": {"tool_call_s": 4, "step_s": 30, "run_s": 60},
    }


DIRECT = "Answer from the archive.\n" + script(searches("refunds"), {"text": "Two weeks.", "latency_ms": 0})
ROUND = "Be thorough: look again until you are sure.\n" + script(
    *(searches(f"refunds, once more {n}") for n in range(6)), {"text": "Two weeks.", "latency_ms": 0}
)


def document(stack: Stack) -> JSON:
    """The sandbox by its other name is a host of its own, with its own breaker."""
    host = f"localhost:{stack.sandbox_port}"
    text = {"type": "string", "minLength": 1, "maxLength": 280}
    schema = {"type": "object", "additionalProperties": False}
    common = {"timeout_s": 1, "retry": {"max_attempts": 3, "backoff_ms": [50, 100], "retry_on": ["timeout", "transient_upstream"]}}

    def tool(name: str, path: str, words: str, fields: JSON, **more: Any) -> JSON:
        adapter = {"kind": "http", "method": "POST", "url": f"http://{host}/desk/{path}"}
        properties = {"input_schema": {**schema, "required": list(fields), "properties": fields}}
        return {"name": name, "adapter": adapter, "description": words, **properties, **common, **more}

    ticket = {"account_id": text, "priority": {"enum": ["low", "normal", "urgent"]}, "summary": text}
    write = {"effect": "write", "idempotency": "key"}
    undone = {"tool": "withdraw_complaint", "args": {"ticket_id": "result.ticket_id"}, "within_s": 86400}
    return {
        "egress": {"allow": [host]},
        "models": [
            {"name": "outpost", "provider": "openai", "base_url": f"http://{host}/v1", "model": "sim-script", "timeout_s": 5,
             "price_per_mtok_usd": {"input": 0.8, "output": 3.2}, "retry": {"max_attempts": 2, "backoff_ms": [50]}},
        ],
        "tools": [
            tool("search_archive", "docs/search", "Search the archive.", {"query": text}, effect="read", idempotency="none"),
            tool("file_complaint", "tickets", "File a complaint.", ticket, compensate=undone, **write),
            tool("withdraw_complaint", "tickets/close", "Withdraw a complaint.", {"ticket_id": text}, **write),
        ],
        "permissions": [
            {"tool": each, "agent": "complaint-desk", "decision": "allow", "loosen": True}
            for each in ("file_complaint", "withdraw_complaint")
        ],
        "agents": [
            {"name": "archive-desk", "release": release("Search the archive.", "primary", "search_archive")},
            {"name": "invoice-desk", "release": release(DIRECT, "primary", "search_archive")},
            {"name": "parcel-desk", "release": release(DIRECT, "primary", "search_archive")},
            {"name": "complaint-desk", "release": release("File complaints.", "primary", "file_complaint")},
            {"name": "letter-desk", "release": release("Write letters.", "outpost", "search_archive", fallback=["primary"])},
        ],
        "detectors": [
            *({"name": name, "parameters": QUICK} for name in ("retry_cascade", "tool_errors", "cost_per_run", "steps_per_run")),
            {"name": "provider_degraded", "parameters": QUICK},
            {"name": "duplicate_writes", "parameters": {"window_minutes": 5}},
        ],
    }  # fmt: skip


@dataclass
class Desk:
    """`looks`: a process that does what the watchman of the jobs does, when it is asked to."""

    stack: Stack
    looks: "subprocess.Popen[str]"
    broke_at: float = 0.0

    @classmethod
    def made(cls, stack: Stack) -> "Desk":
        file = stack.home / "incident-desk.json"
        file.write_text(json.dumps(document(stack)))
        stack.manage("apply", str(file))
        command = [sys.executable, "manage.py", "shell", "--no-imports", "-v0", "-c", LOOKS]
        pipe = subprocess.PIPE
        desk = cls(stack, subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdin=pipe, stdout=pipe, text=True, bufsize=1))
        desk.over([desk.start("invoice-desk"), desk.start("parcel-desk")])
        assert desk.told("past") == (2,)
        return desk

    def close(self) -> None:
        self.looks.terminate()
        self.looks.communicate(timeout=20)

    # runs ---------------------------------------------------------------------------------------------------------------------

    def start(self, agent: str, text: str = "How long does it take?") -> str:
        return self.stack.submit(text, agent)

    def over(self, runs: list[str]) -> list[JSON]:
        return [self.stack.until(run) for run in runs]

    def run(self, agent: str, text: str = "How long does it take?", times: int = 1) -> list[JSON]:
        """All at once; their records once they are over."""
        return self.over([self.start(agent, text) for _ in range(times)])

    def release(self, agent: str, body: JSON) -> None:
        """A new release, live at once."""
        made = self.stack.api("POST", f"/agents/{agent}/releases", body, key="admin_api_key")
        moved = self.stack.api("POST", f"/releases/{made.body['release_id']}/promote", key="admin_api_key")
        assert (made.status, moved.status) == (201, 200), (made, moved)

    def broken(self) -> None:
        """The trouble begins now."""
        self.broke_at = time.monotonic()

    # incidents ----------------------------------------------------------------------------------------------------------------

    def look(self, minutes: int = 0) -> tuple[int, ...]:
        """`minutes` from now. -> how many it opened, reopened and resolved."""
        return self.told(str(minutes))

    def told(self, line: str) -> tuple[int, ...]:
        assert self.looks.stdin and self.looks.stdout
        self.looks.stdin.write(f"{line}\n")
        return tuple(int(word) for word in self.looks.stdout.readline().split())

    def find(self, detector: str, subject: Mapping[str, str]) -> str:
        """Its id. Empty: there is none."""
        found = self.stack.api("GET", f"/incidents?state=live&detector={detector}").body["items"]
        return next((str(one["incident_id"]) for one in found if one["subject"] == subject), "")

    def detected(self, detector: str, **subject: str) -> str:
        """The id of the incident as soon as there is one."""
        while not (found := self.find(detector, subject)):
            assert time.monotonic() - self.broke_at < HANG_S, f"{detector} saw nothing in {HANG_S} s"
            self.look()
        print(f"{detector}: open {time.monotonic() - self.broke_at:.1f} s after the first fault")
        return found

    def incident(self, incident_id: str) -> JSON:
        return dict(self.stack.api("GET", f"/incidents/{incident_id}").body)

    def audited(self, action: str, kind: str, object_id: str) -> JSON:
        """The newest entry of the audit trail for it."""
        rows = self.stack.api("GET", f"/audit?action={action}&limit=20", key="admin_api_key").body["items"]
        found = [row for row in rows if (row["kind"], row["object"]) == (kind, object_id)]
        assert found, rows
        return dict(found[0])

    # pages --------------------------------------------------------------------------------------------------------------------

    def open(self, page: Page, incident_id: str, title: str) -> None:
        """From the list to its page, where it is taken on."""
        page.goto("/incidents/")
        page.get_by_role("link", name=title).first.click()
        expect(page).to_have_url(re.compile(f"/incidents/{incident_id}/"))
        live(page)
        self.seen("opened", page)
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.locator("#incident-head")).to_contain_text("Acknowledged")

    def follow(self, page: Page, steps: int, done: Mapping[int, Callable[[], None]]) -> None:
        """Every step in its order: what is to be done at it, then its tick."""
        for number in range(1, steps + 1):
            if number in done:
                done[number]()
            page.get_by_label(re.compile(rf"^{number}\. ")).check()
            expect(page.locator(f"#step-{number}")).to_contain_text("operator, ")
        expect(page.locator("#incident-runbook header")).to_contain_text(f"{steps} of {steps}")
        self.seen("worked", page)

    def act(self, page: Page, step: int, name: str, numbers: str, reason: str, **fields: str) -> None:
        """A button of a step: its confirm page with the numbers, a reason, and back on the incident with a line in its log."""
        page.locator(f"#step-{step}").get_by_role("link", name=name).click()
        expect(page.locator("main form")).to_contain_text(re.compile(numbers))
        for label, value in fields.items():
            page.get_by_label(label).fill(value)
        self.confirm(page, name, reason)

    def confirm(self, page: Page, name: str, reason: str) -> None:
        page.get_by_label("Reason").fill(reason)
        self.seen("asked", page)
        page.get_by_role("button", name=name).click()
        expect(page.locator("#log")).to_contain_text(reason)

    def take_back(self, page: Page, says: str, reason: str) -> None:
        line = page.locator("#log > li", has_text=says).last
        line.get_by_role("link", name="Take back").click()
        self.confirm(page, "Take back", reason)

    def back_to_normal(self, page: Page, incident_id: str) -> JSON:
        """It is resolved, and the series on its page ends under its threshold, after it was over it."""
        page.goto(f"/incidents/{incident_id}/")
        expect(page.locator("#incident-head")).to_contain_text("Resolved")
        values, lines = (trace["y"] for trace in json.loads(page.locator("#evidence-figure").text_content() or "")["data"])
        assert values[-1] < lines[0] <= max(value for value in values if value is not None), (values, lines)
        self.seen("resolved", page)
        return self.incident(incident_id)

    def seen(self, stage: str, page: Page) -> None:
        """For who wants to look at a stage of each story."""
