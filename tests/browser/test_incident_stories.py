"""The five incidents that a desk must be ready for, each from its first fault to the metric back at normal.

The cause is real (a fault of the other side, or a bad release), a look of the watchman finds it, and a person follows the runbook to its
end with the buttons of the incident's page. The detectors are set to need little.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.acceptance.stack import Stack

from .conftest import SignedIn
from .incident_world import DIRECT, ROUND, Desk, release, script, searches

pytestmark = pytest.mark.mission("P11.1", "P11.2", "P11.3")

ASKS = "Please help\n" + script(searches("refunds"), {"text": "Two weeks.", "latency_ms": 0})
EIGHT = "Please help\n" + script(searches(*(f"refunds {n}" for n in range(8))), {"text": "Two weeks.", "latency_ms": 0})
LONG = "Please help\n" + script(*(searches(f"refunds {n}") for n in range(5)), {"text": "Two weeks.", "latency_ms": 0})
FILED = {"account_id": "acct_1001", "priority": "normal", "summary": "The parcel came open."}
FILES = "Please help\n" + script({"calls": [{"name": "file_complaint", "arguments": FILED}]}, {"text": "It is filed."})


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Iterator[Desk]:
    made = Desk.made(stack)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def repaired(stack: Stack) -> Iterator[None]:
    yield
    stack.sandbox("DELETE", "/faults")


def test_a_tool_times_out_and_its_retries_cascade(desk: Desk, signed_in: SignedIn) -> None:
    operator = signed_in("operator")
    desk.broken()
    desk.stack.sandbox("PUT", "/faults", {"target": "search_docs", "fault": "latency", "ms": 2500, "times": -1})
    assert all(run["tools_called"] == ["search_archive"] for run in desk.run("archive-desk", ASKS, 3))
    incident = desk.detected("retry_cascade", tool="search_archive")
    errors = desk.find("tool_errors", {"tool": "search_archive"})
    desk.open(operator, incident, "Calls of search_archive are sent again and again")
    expect(operator.locator("#incident-runs tbody tr")).to_have_count(3)
    expect(operator.locator("#step-6")).to_contain_text("For platform admins")

    def taken_away() -> None:
        desk.act(operator, 5, "Deny search_archive in acme", r"0 queued may want it.*denied in acme", "it only times out")
        [denied] = desk.run("archive-desk", ASKS)
        assert denied["tools_called"] == [] and denied["state"] == "succeeded"

    host = f"localhost:{desk.stack.sandbox_port}"
    done = {
        4: lambda: desk.act(operator, 4, f"Hold back calls to {host}", f"No call in acme is sent to {host}", "let it rest"),
        5: taken_away,
        7: lambda: desk.stack.sandbox("DELETE", "/faults"),
        9: lambda: desk.act(operator, 9, f"Reset the breaker of {host}", "held open now", "they restarted it"),
        10: lambda: desk.take_back(operator, "Denied search_archive in acme.", "it answers again"),
    }
    desk.follow(operator, 11, done)
    assert {run["state"] for run in desk.run("archive-desk", EIGHT, 4)} == {"succeeded"}
    desk.look()
    told = desk.back_to_normal(operator, incident)
    assert told["evidence"]["threshold"] == 1.6 and told["evidence"]["since"][-1]["value"] < 1.6
    assert acts(told) == ["open_breaker", "deny_tool", "reset_breaker", "deny_tool"]
    assert desk.incident(errors)["state"] == "resolved"
    assert desk.audited("breaker.reset", "breaker", host)["reason"] == "they restarted it"


def test_a_routing_change_doubles_the_cost_of_a_run(desk: Desk, signed_in: SignedIn) -> None:
    operator, admin = signed_in("operator"), signed_in("admin")
    desk.broken()
    desk.release("invoice-desk", release(DIRECT, "premium", "search_archive"))
    desk.run("invoice-desk", times=3)
    incident = desk.detected("cost_per_run", agent="invoice-desk")
    desk.open(operator, incident, "Runs of invoice-desk cost more")
    expect(operator.locator("#changes-title")).to_be_visible()
    expect(operator.locator("main")).to_contain_text("invoice-desk promoted")
    lowered = {"Cost in USD per day": "5"}

    def rolled_back() -> None:
        admin.goto(f"/incidents/{incident}/")
        desk.act(admin, 4, "Roll invoice-desk back to r1", "New runs of invoice-desk get r1 instead of r2", "r2 asks the premium model")

    def ceiling() -> None:
        admin.goto(f"/incidents/{incident}/")
        desk.act(admin, 5, "Lower the ceiling of invoice-desk", "There is none now", "until we know more", **lowered)

    def raised() -> None:
        admin.goto(f"/incidents/{incident}/")
        desk.take_back(admin, "Lowered cost_usd_per_day", "the cost is as it was")

    desk.follow(operator, 10, {4: rolled_back, 5: ceiling, 9: raised})
    desk.run("invoice-desk", times=5)
    desk.look()
    told = desk.back_to_normal(operator, incident)
    assert acts(told) == ["roll_back", "lower_ceiling", "lower_ceiling"] and "r2 to r1" in said(told, "roll_back")
    assert desk.audited("release.rolled_back", "agent", "invoice-desk")["reason"] == "r2 asks the premium model"


def test_a_new_planner_loops_longer(desk: Desk, signed_in: SignedIn) -> None:
    operator, admin = signed_in("operator"), signed_in("admin")
    desk.broken()
    desk.release("parcel-desk", release(ROUND, "primary", "search_archive"))
    assert {run["step"] for run in desk.run("parcel-desk", times=3)} == {7}
    incident = desk.detected("steps_per_run", agent="parcel-desk")
    desk.open(operator, incident, "Runs of parcel-desk take more steps")
    expect(operator.locator("#step-5")).to_contain_text("parcel-desk has no tool that writes.")

    def rolled_back() -> None:
        admin.goto(f"/incidents/{incident}/")
        desk.act(admin, 4, "Roll parcel-desk back to r1", r"In the last hour: 1 agent, \d+ runs", "r2 never stops searching")

    def compared() -> None:
        assert {run["step"] for run in desk.run("parcel-desk", times=5)} == {2}

    desk.follow(operator, 10, {4: rolled_back, 8: compared})
    desk.look()
    told = desk.back_to_normal(operator, incident)
    assert acts(told) == ["roll_back"] and told["evidence"]["since"][-1]["value"] == 2
    assert desk.audited("release.rolled_back", "agent", "parcel-desk")["reason"] == "r2 never stops searching"


def test_a_write_tool_makes_duplicates(desk: Desk, signed_in: SignedIn) -> None:
    operator = signed_in("operator")
    desk.broken()
    first, second = desk.run("complaint-desk", FILES, 2)
    assert (first["usage"]["writes"], second["usage"]["writes"]) == (1, 1)
    incident = desk.detected("duplicate_writes", tool="file_complaint")
    desk.open(operator, incident, "file_complaint makes the same write twice")

    def asked() -> None:
        desk.act(operator, 3, "Ask before file_complaint", "waits for 1 person", "it was filed twice")
        asks = desk.start("complaint-desk", FILES)
        desk.stack.until(asks, "waiting_approval")
        desk.stack.api("POST", f"/runs/{asks}/cancel", {"reason": "a third one"})

    def undone() -> None:
        operator.locator("#step-6").get_by_role("link", name="Undo their writes").click()
        expect(operator.get_by_role("checkbox", checked=True)).to_have_count(1)
        expect(operator.locator("main form")).to_contain_text("2 writes of these runs can be undone now")
        desk.confirm(operator, "Undo their writes", "the second of the pair")
        [run] = next(line for line in desk.incident(incident)["log"] if line["data"].get("action") == "undo_writes")["data"]["before"][
            "runs"
        ]
        assert desk.stack.until(run)["usage"]["writes"] == 1

    def allowed() -> None:
        desk.take_back(operator, "asked before file_complaint", "it has an effect key now")

    desk.follow(operator, 11, {3: asked, 6: undone, 10: allowed})
    desk.look(minutes=6)
    assert desk.incident(incident)["state"] == "acknowledged", "it stays for as long as its detector holds it"
    operator.goto(f"/incidents/{incident}/")
    operator.get_by_role("button", name="Resolve").click()
    operator.get_by_label("Cause, and what was done").fill("Two customers' forms were one. One was withdrawn.")
    operator.get_by_role("dialog").get_by_role("button", name="Resolve").click()
    told = desk.back_to_normal(operator, incident)
    assert desk.look() == (0, 0, 0), "what a person resolved does not come back for what was before"
    assert acts(told) == ["ask_people", "undo_writes", "ask_people"] and told["resolved_by"] == "operator"
    assert desk.audited("incident.resolved", "incident", incident)["actor"] == "operator"


def test_a_model_provider_degrades(desk: Desk, signed_in: SignedIn) -> None:
    operator = signed_in("operator")
    desk.broken()
    for fault in ("500", "429"):
        desk.stack.sandbox(
            "PUT", "/faults", {"target": "model", "fault": fault, "times": 2 if fault == "500" else -1, "match": "sim-script"}
        )
    fell = desk.run("letter-desk", "Hello there", 2)
    assert all(run["state"] == "succeeded" for run in fell)
    incident = desk.detected("provider_degraded", model="outpost")
    desk.open(operator, incident, "outpost is degraded")
    host = f"localhost:{desk.stack.sandbox_port}"

    def held() -> None:
        desk.act(operator, 4, f"Hold back calls to {host}", f"No call in acme is sent to {host}", "it answers 429 and 500")
        before = asked(desk)
        [spared] = desk.run("letter-desk", "Hello there")
        assert spared["state"] == "succeeded" and asked(desk) == before, "the next model answers at once"

    done = {
        4: held,
        7: lambda: desk.stack.sandbox("DELETE", "/faults"),
        9: lambda: desk.act(operator, 9, f"Reset the breaker of {host}", "held open now", "they say it is over"),
    }
    desk.follow(operator, 11, done)
    assert {run["state"] for run in desk.run("letter-desk", LONG, 5)} == {"succeeded"}
    desk.look()
    told = desk.back_to_normal(operator, incident)
    assert acts(told) == ["open_breaker", "reset_breaker"] and told["evidence"]["threshold"] == 0.25
    assert desk.audited("breaker.forced_open", "breaker", host)["reason"] == "it answers 429 and 500"


def acts(told: dict[str, Any]) -> list[str]:
    return [line["data"]["action"] for line in told["log"] if line["kind"] == "action"]


def said(told: dict[str, Any], action: str) -> str:
    return next(str(line["text"]) for line in told["log"] if line["data"].get("action") == action)


def asked(desk: Desk) -> int:
    """How many requests the sandbox's model has had by its other name."""
    received = desk.stack.sandbox("GET", "/received")
    return sum(one["fault"] is not None for one in received["requests"])
