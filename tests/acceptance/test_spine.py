"""The spine, from outside: whole stories over HTTP through the real processes, each told the same way by the run's record, its
events, and what the other side received."""

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from console.rebuild import differences, rebuild, tampered
from tenants.ids import decode

from .stack import Stack

COMPLAINT = "URGENT: I was charged twice on acct_1001. Please help!"
PLANNER = {"planner": {"model": "primary"}}
TOOLS = ["search_docs", "fetch_account", "create_ticket", "send_email"]
DEMO = ("acme", "globex")  # other files of these tests lay out tenants of their own, with rows that no run made
AGENTS = {
    "permissions": [{"tool": "create_ticket", "agent": "clerk", "decision": "allow", "loosen": True}],
    "agents": [
        {"name": "clerk", "release": {"instructions": "Work.", "tools": TOOLS, "models": PLANNER, "deadlines": {"tool_call_s": 1}}},
        {"name": "hasty", "release": {"instructions": "Ask.", "tools": TOOLS, "models": PLANNER, "deadlines": {"approval_s": 1}}},
    ],
}


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Stack:
    """The installation with two more agents: `clerk` writes tickets without asking, `hasty` gives people one second."""
    applied = stack.api("POST", "/config/apply", AGENTS, key="admin_api_key")
    assert applied.status == 200, applied.body
    return stack


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": name, "arguments": arguments}]}


def ticket(summary: str) -> dict[str, Any]:
    return call("create_ticket", account_id="acct_1001", priority="urgent", summary=summary)


def script(*turns: Any) -> str:
    return "Please.\n#sim " + json.dumps({"turns": turns})


def events_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: str | None = "0"
    while after is not None:
        page = stack.api("GET", f"/runs/{run_id}/events?after={after}", key="admin_api_key").body
        found, after = found + page["items"], page["next_cursor"]
    return found


def calls_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    steps = stack.api("GET", f"/runs/{run_id}/steps", key="admin_api_key").body["items"]
    return [call for step in steps for call in step["calls"]]


def kinds(stack: Stack, run_id: str) -> list[str]:
    return [event["event"] for event in events_of(stack, run_id)]


def decide(stack: Stack, approval: dict[str, Any], verdict: str = "approve", key: str = "admin_api_key", **more: str) -> Any:
    said = {"verdict": verdict, "digest": approval["digest"], **more}
    return stack.api("POST", f"/approvals/{approval['approval_id']}/decision", said, key=key)


def received(stack: Stack, run_id: str, target: str) -> list[dict[str, Any]]:
    """What reached the desk from this run."""
    return [r for r in stack.sandbox("GET", "/received")["requests"] if r["run"] == run_id and r["target"] == target]


def effects(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """The entries of the desk's ledger that carry a key of this run's calls."""
    keys = {call["idempotency_key"] for call in calls_of(stack, run_id) if call["idempotency_key"]}
    return [effect for effect in stack.sandbox("GET", "/ledger")["effects"] if effect["key"] in keys]


def sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def accounted_for(stack: Stack, record: dict[str, Any]) -> None:
    events, calls = events_of(stack, record["run_id"]), calls_of(stack, record["run_id"])
    assert differences(rebuild(events, calls), record) == {}
    assert tampered(events, calls) == []


# -- the two stories of the demo --------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.1")
@pytest.mark.mission("P10.4")
def test_an_urgent_complaint_is_read_looked_up_approved_and_written_once(desk: Stack) -> None:
    run_id = desk.submit(COMPLAINT)
    waiting = desk.until(run_id, "waiting_approval")
    assert waiting["tools_called"] == ["fetch_account", "search_docs"] and waiting["outcome"] is None
    assert effects(desk, run_id) == []
    approval = desk.approval_of(run_id)
    assert (approval["tool"], approval["args"]["account_id"], approval["args"]["priority"]) == ("create_ticket", "acct_1001", "urgent")
    own = decide(desk, approval, key="api_key")
    assert (own.status, own.body["code"]) == (403, "own_run")
    assert decide(desk, approval).body["state"] == "approved"
    again = decide(desk, approval)
    assert again.status == 200 and len(again.body["decisions"]) == 1
    done = desk.until(run_id)
    assert (done["state"], done["outcome"], done["tools_called"]) == (
        "succeeded", "completed", ["fetch_account", "search_docs", "create_ticket"],
    )  # fmt: skip
    sent = calls_of(desk, run_id)[-2]
    (effect,) = effects(desk, run_id)
    assert effect["tool"] == "create_ticket" and effect["key"] == sent["idempotency_key"]
    assert effect["args_sha256"] == sha256(approval["args"])  # exactly what a person was shown
    assert sent["result"]["ticket_id"] in done["output"]["text"]
    assert float(done["cost_usd"]) > 0 and done["usage"]["writes"] == 1
    accounted_for(desk, done)


@pytest.mark.mission("P1.3")
def test_a_question_about_a_policy_is_answered_while_the_caller_waits(desk: Stack) -> None:
    order = {"agent": "support-triage", "input": "What is the refund policy?"}
    answer = desk.api("POST", "/runs", order, Prefer="wait=20")
    assert answer.status == 200 and answer.headers["Preference-Applied"] == "wait=20"
    assert (answer.body["outcome"], answer.body["tools_called"]) == ("completed", ["search_docs"])
    assert "refund" in answer.body["output"]["text"].lower()
    accounted_for(desk, answer.body)


@pytest.mark.mission("P1.4")
def test_the_stream_tells_a_run_from_its_first_event_to_its_last(desk: Stack) -> None:
    run_id = desk.submit("What is the refund policy?")
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {desk.dev['api_key']}"}
    request = urllib.request.Request(f"{desk.base_url}/api/v1/runs/{run_id}/events", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as stream:
        told = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
    assert told[-1]["event"] == "run_completed" and told == events_of(desk, run_id)


# -- one run for each way it can go wrong -----------------------------------------------------------------------------------


@pytest.mark.mission("P3.2")
def test_a_write_that_met_a_429_is_sent_again_with_the_same_key(desk: Stack) -> None:
    desk.sandbox("PUT", "/faults", {"target": "create_ticket", "fault": "429", "times": 1, "match": "met a limit"})
    run_id = desk.submit(script(ticket("met a limit"), {"text": "Done."}), agent="clerk")
    done = desk.until(run_id)
    assert done["outcome"] == "completed"
    failed = next(e for e in events_of(desk, run_id) if e["event"] == "tool_call_failed")
    assert (failed["tool"], failed["error_type"], failed["retryable"], failed["step_id"]) == ("create_ticket", "rate_limit", True, 1)
    assert kinds(desk, run_id).count("retry_scheduled") == 1
    arrived = received(desk, run_id, "create_ticket")
    assert [r["fault"] for r in arrived] == ["429", None] and len({r["key"] for r in arrived}) == 1
    assert len(effects(desk, run_id)) == 1
    tool = calls_of(desk, run_id)[1]
    assert [attempt["result"] for attempt in tool["attempts"]] == ["error", "ok"]
    accounted_for(desk, done)


@pytest.mark.mission("P5.2")
def test_a_run_stops_at_its_budget_and_says_which_limit(desk: Stack) -> None:
    turns = [call("fetch_account", account_id="acct_1001"), ticket("over budget"), {"text": "Done."}]
    run_id = desk.submit(script(*turns), agent="clerk", budget={"max_tool_calls": 1})
    done = desk.until(run_id)
    assert (done["state"], done["outcome"]) == ("failed", "budget_exceeded")
    assert done["stop"] == {"limit": "max_tool_calls", "value": 1, "used": 2, "by": "create_ticket", "step": 2}
    assert "budget_exceeded" in kinds(desk, run_id)
    assert received(desk, run_id, "create_ticket") == [] and done["output"] is None
    accounted_for(desk, done)


@pytest.mark.mission("P4.1")
def test_a_run_stops_at_its_deadline(desk: Stack) -> None:
    desk.sandbox("PUT", "/faults", {"target": "fetch_account", "fault": "latency", "times": 1, "ms": 5000, "match": "acct_1003"})
    turns = [call("fetch_account", account_id="acct_1003"), {"text": "Too late."}]
    run_id = desk.submit(script(*turns), agent="clerk", budget={"run_s": 1})
    done = desk.until(run_id)
    assert (done["state"], done["outcome"]) == ("failed", "deadline_exceeded")
    assert (done["stop"]["limit"], done["stop"]["value"], done["stop"]["by"]) == ("run_s", 1, "clock")
    assert "deadline_exceeded" in kinds(desk, run_id) and done["output"] is None
    accounted_for(desk, done)


@pytest.mark.mission("P4.1")
def test_a_run_whose_model_is_too_slow_for_it_stops_at_its_deadline(desk: Stack) -> None:
    run_id = desk.submit(script({"text": "Too late.", "latency_ms": 5000}), agent="clerk", budget={"run_s": 1})
    assert desk.until(run_id)["outcome"] == "deadline_exceeded"


@pytest.mark.mission("P10.4")
def test_a_rejected_write_never_leaves_and_the_answer_says_so(desk: Stack) -> None:
    run_id = desk.submit(COMPLAINT)
    desk.until(run_id, "waiting_approval")
    assert decide(desk, desk.approval_of(run_id), "reject", reason="a known duplicate").body["state"] == "rejected"
    done = desk.until(run_id)
    assert received(desk, run_id, "create_ticket") == [] and effects(desk, run_id) == []
    told = next(r for r in done["tool_results"] if r["tool"] == "create_ticket")
    assert (told["state"], told["result"]["error_type"]) == ("blocked", "approval_rejected")
    assert "a known duplicate" in told["result"]["message"]
    assert "create_ticket" not in done["tools_called"] and "tkt_" not in done["output"]["text"]
    accounted_for(desk, done)


@pytest.mark.mission("P10.4")
def test_an_approval_that_nobody_gave_in_time_lets_the_run_go_on_without_the_write(desk: Stack) -> None:
    run_id = desk.submit(script(ticket("nobody looked"), {"text": "Nobody decided."}), agent="hasty")
    desk.until(run_id, "waiting_approval")
    approval = desk.approval_of(run_id)
    done = desk.until(run_id)
    late = decide(desk, approval)
    assert (late.status, late.body["code"]) == (410, "approval_expired")
    assert "approval_expired" in kinds(desk, run_id) and received(desk, run_id, "create_ticket") == []
    assert done["tool_results"][0]["result"]["error_type"] == "approval_expired"
    accounted_for(desk, done)


@pytest.mark.mission("P4.1")
def test_a_tool_that_hangs_costs_its_timeout_and_no_more(desk: Stack) -> None:
    desk.sandbox("PUT", "/faults", {"target": "fetch_account", "fault": "hang", "times": -1, "match": "acct_1002"})
    try:
        turns = [call("fetch_account", account_id="acct_1002"), {"text": "The account could not be read."}]
        run_id = desk.submit(script(*turns), agent="clerk")
        done = desk.until(run_id)
    finally:
        desk.sandbox("DELETE", "/faults?target=fetch_account")
    assert done["outcome"] == "completed" and done["tool_results"][0]["result"]["ok"] is False
    failed = [e for e in events_of(desk, run_id) if e["event"] == "tool_call_failed"]
    assert {e["error_type"] for e in failed} == {"timeout"} and len(failed) == len(received(desk, run_id, "fetch_account"))
    assert done["last_error"]["error_type"] == "timeout"
    accounted_for(desk, done)


@pytest.mark.mission("P3.5")
def test_a_mail_whose_answer_was_lost_is_not_sent_again_and_waits_for_people(desk: Stack) -> None:
    desk.api("POST", "/config/apply", {"permissions": [
        {"tool": "send_email", "agent": "clerk", "decision": "allow", "loosen": True}]}, key="admin_api_key")  # fmt: skip
    desk.sandbox("PUT", "/faults", {"target": "send_email", "fault": "drop_after", "times": 1, "match": "was lost"})
    mail = call("send_email", to="a@example.com", subject="Hello", body="the answer was lost")
    run_id = desk.submit(script(mail, {"text": "Sent."}), agent="clerk")
    waiting = desk.until(run_id, "needs_reconciliation", "succeeded", "failed")
    assert waiting["state"] == "needs_reconciliation"
    assert len(received(desk, run_id, "send_email")) == 1 and "tool_call_unknown" in kinds(desk, run_id)
    accounted_for(desk, waiting)


@pytest.mark.mission("P13.1")
def test_a_second_tenants_key_finds_nothing_of_the_first(desk: Stack) -> None:
    run_id = desk.submit(COMPLAINT)
    desk.until(run_id, "waiting_approval")
    approval = desk.approval_of(run_id)
    globex = {"key": "globex_api_key"}
    for path in ("", "/steps", "/events"):
        assert desk.api("GET", f"/runs/{run_id}{path}", **globex).body["code"] == "not_found"
    assert desk.api("GET", f"/runs/{run_id}/events", Accept="text/event-stream", **globex).status == 404
    for path in ("cancel", "retry"):
        assert desk.api("POST", f"/runs/{run_id}/{path}", **globex).status == 404
    assert decide(desk, approval, **globex).status == 404
    assert desk.api("GET", "/runs", **globex).body["items"] == desk.api("GET", "/approvals", **globex).body["items"] == []
    assert desk.until(run_id, "waiting_approval")["cancel_requested"] is False
    ended = desk.api("POST", f"/runs/{run_id}/cancel").body
    assert (ended["state"], ended["outcome"]) == ("cancelled", "cancelled")
    accounted_for(desk, ended)


def test_what_no_server_should_read_is_refused_and_the_server_goes_on(desk: Stack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", desk.port, timeout=30)
    connection.putrequest("POST", "/api/v1/runs")
    connection.putheader("Content-Length", str((1 << 20) + 1))
    connection.endheaders()  # it is refused for what it says it will send
    large = connection.getresponse()
    assert (large.status, json.load(large)["code"]) == (413, "body_too_large")
    connection.close()
    request = urllib.request.Request(
        f"{desk.base_url}/api/v1/runs", b"[" * 100_000,
        {"Authorization": f"Bearer {desk.dev['api_key']}", "Content-Type": "application/json"}, method="POST",
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value:
        assert (refused.value.code, json.load(refused.value)["code"]) == (400, "too_deep")
    assert desk.api("GET", "/runs").status == 200


# -- a crash in the middle --------------------------------------------------------------------------------------------------


@pytest.mark.mission("P3.4")
def test_an_engine_killed_in_the_middle_of_many_runs_loses_none_and_repeats_no_write(desk: Stack) -> None:
    def turns(n: int) -> str:
        look = call("search_docs", query="disputed charges") | {"latency_ms": 2500}  # until all of them are under way
        return script(look, ticket(f"first of {n}"), ticket(f"second of {n}") | {"latency_ms": 50 * (n % 4)}, {"text": "Two tickets."})

    # Half of the tickets are applied and take their time to say so: the engine dies while they are in flight.
    desk.sandbox("PUT", "/faults", {"target": "create_ticket", "fault": "latency", "times": 24, "ms": 700})
    with ThreadPoolExecutor(8) as callers:
        runs = list(callers.map(lambda n: desk.submit(turns(n), agent="clerk"), range(24)))
    deadline = time.monotonic() + 30
    running = writing = 0
    while (running < 20 or writing < 4) and time.monotonic() < deadline:
        running, writing = in_flight(desk)
        time.sleep(0.01)
    desk.kill("engine-1")
    assert running >= 20 and writing >= 4, "the engine was to die with 20 runs and some writes in flight"
    desk.start("engine-1")
    records = [desk.until(run_id, seconds=60) for run_id in runs]
    assert {record["outcome"] for record in records} == {"completed"}
    taken_over = sum("run_taken_over" in kinds(desk, run_id) for run_id in runs)
    assert taken_over >= 20
    for record in records:
        assert kinds(desk, record["run_id"]).count("run_completed") == 1
        assert [e["tool"] for e in effects(desk, record["run_id"])] == ["create_ticket", "create_ticket"]
        accounted_for(desk, record)
    wanted = {sha256({"account_id": "acct_1001", "priority": "urgent", "summary": f"{which} of {n}"})
              for n in range(24) for which in ("first", "second")}  # fmt: skip
    written = Counter(e["args_sha256"] for e in desk.sandbox("GET", "/ledger")["effects"])
    assert {digest: written[digest] for digest in wanted} == dict.fromkeys(wanted, 1)


def in_flight(stack: Stack) -> tuple[int, int]:
    """(runs that an engine holds, writes that were sent and not answered)"""
    with psycopg.connect(stack.urls.engine) as connection:
        found = connection.execute(
            "select (select count(*) from run where state = 'running' and agent_id = 'clerk'),"
            " (select count(*) from call where state = 'dispatched' and name = 'create_ticket')"
        ).fetchone()
    assert found
    return found[0], found[1]


# -- afterwards -------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.3")
def test_every_run_of_these_stories_is_rebuilt_from_its_events_and_the_rows_they_name(desk: Stack) -> None:
    rows = rows_of_runs(desk)
    found: list[dict[str, Any]] = []
    for tenant in DEMO:
        cursor: str | None = ""
        while cursor is not None:
            page = desk.api("GET", f"/runs?limit=20&tenant={tenant}&cursor={cursor}", key="admin_api_key").body
            found, cursor = found + page["items"], page["next_cursor"]
    assert len(found) == len(rows) >= 30
    for record in found:
        events, calls = events_of(desk, record["run_id"]), calls_of(desk, record["run_id"])
        rebuilt = rebuild(events, calls)
        assert differences(rebuilt, record) == {} and tampered(events, calls) == []
        state, outcome, seq, step, tool_calls, writes, tokens_in, tokens_out, cost = rows[decode("agt", record["run_id"])]
        assert (rebuilt["state"], rebuilt["outcome"], rebuilt["seq"], rebuilt["step"]) == (state, outcome, seq, step)
        assert rebuilt["usage"] == {
            "steps": step, "tool_calls": tool_calls, "writes": writes, "input_tokens": tokens_in, "output_tokens": tokens_out,
            "cost_usd": record["cost_usd"],
        }  # fmt: skip
        assert round(float(rebuilt["cost_usd"]) * 1e6) == cost


def rows_of_runs(stack: Stack) -> dict[Any, Any]:
    with psycopg.connect(stack.urls.engine) as connection:
        found = connection.execute(
            "select id, state, outcome, seq, step, tool_calls, writes, tokens_in, tokens_out, cost_micro from run"
            " where tenant_id in (select id from tenants_tenant where slug = any(%s))",
            [list(DEMO)],
        ).fetchall()
    return {row[0]: row[1:] for row in found}
