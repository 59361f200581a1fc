"""Runs over the API: the record, lists and their pages, idempotent submission, cancel and retry, and whose runs they are."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from console.rebuild import differences, rebuild
from runs import intake
from runs.events import Kind, event
from runs.history import append
from runs.models import Agent, Call, Run, RunInput, Step
from runs.states import CallState, RunState
from tenants.ids import new_id
from tenants.models import IdempotencyRecord
from tests.runtime.waiting import World, add_call, at_once, make_world, queued, running, waiting

from .callers import Caller, caller, refusal

ORDER = {"agent": "support-triage", "input": "Please refund me"}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.starter)


def submitted(api: Caller, **more: Any) -> str:
    answer = api.post("/runs", ORDER | more)
    assert answer.status_code == 202, answer.content
    return str(answer.json()["run_id"])


def finish(run: Run, state: str = "succeeded", outcome: str = "completed", **values: Any) -> None:
    if run.state == RunState.QUEUED:
        Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id(), fence=1)
    Run.objects.filter(pk=run.pk).update(state=state, outcome=outcome, owner=None, ended_at=Now(), **values)


def a_finished_run(world: World) -> Run:
    """One that read, then wrote, then answered."""
    run = running(world)
    for step, name in ((1, "search_docs"), (2, "create_ticket"), (3, None)):
        Step.objects.create(run=run, step=step, tenant_id=run.tenant_id, role="planner", model="primary", calls=int(bool(name)))
        reply: dict[str, Any] = {"text": "" if name else "It is done.", "calls": [], "finish": "stop"}
        model = {"step": step, "tenant_id": run.tenant_id, "fence": 1, "effect": "read", "name": "primary"}
        Call.objects.create(run=run, ord=0, state=CallState.DISPATCHED, **model)
        Call.objects.filter(run=run, step=step, ord=0).update(state=CallState.DONE, result=reply, tokens_in=100, cost_micro=14_333)
        if name:
            effect = "read" if name == "search_docs" else "write"
            told = {"ok": True, "found": [step]}
            tool = {"tenant_id": run.tenant_id, "fence": 1, "effect": effect, "name": name, "args": b'{"a":1}', "attempt": 1}
            Call.objects.create(run=run, step=step, ord=1, state=CallState.DISPATCHED, **tool)
            Call.objects.filter(run=run, step=step, ord=1).update(state=CallState.DONE, result=told)
    spent: dict[str, Any] = {"tool_calls": 2, "writes": 1, "tokens_in": 300, "tokens_out": 30, "cost_micro": 43_000}
    finish(run, step=3, answer_step=3, **spent)
    return Run.objects.get(pk=run.pk)


# -- the record -------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.1")
def test_the_record_of_a_run_tells_everything_in_one_object(world: World) -> None:
    run = a_finished_run(world)
    got = caller(world.starter).get(f"/runs/{run.run_id}").json()
    assert got["run_id"] == run.run_id and got["run_id"].startswith("agt_") and len(got["run_id"]) == 30
    assert (got["tenant"], got["user"], got["agent"], got["release"]) == ("acme", None, "support-triage", run.release.release_id)
    assert (got["state"], got["outcome"], got["step"], got["max_steps"]) == ("succeeded", "completed", 3, 6)
    assert got["deadline_at"].endswith("Z") and got["created_at"] <= got["ended_at"]
    assert got["cost_usd"] == "0.043" and got["cost_partial"] is False
    assert got["tools_called"] == ["search_docs", "create_ticket"]
    assert [(r["tool"], r["state"], r["result"]) for r in got["tool_results"]] == [
        ("search_docs", "done", {"ok": True, "found": [1]}),
        ("create_ticket", "done", {"ok": True, "found": [2]}),
    ]
    assert got["usage"] == {
        "steps": 3, "tool_calls": 2, "writes": 1, "input_tokens": 300, "output_tokens": 30, "cost_usd": "0.043",
        "reserved_usd": "0", "by_role": [],
    }  # fmt: skip
    assert (got["rungs"], got["drafts"], got["action"]) == ([], [], None)
    assert got["limits"]["max_cost_usd"] == "0.08" and got["limits"]["run_s"] == 20
    assert (got["last_error"], got["stop"], got["degraded"]) == (None, None, False)
    assert got["output"] == {"text": "It is done."} and got["input"] == {"text": "Please refund me", "data": None}


@pytest.mark.mission("P1.1")
def test_what_was_asked_comes_back_in_the_record(api: Caller) -> None:
    asked = {
        "input": {"text": "Please", "data": {"n": [1, None, "é \U0001f642"]}}, "user": {"id": "u1", "attributes": {"plan": "team"}},
        "session": "s-1", "metadata": {"ticket": "T-7"}, "mode": "read_only", "budget": {"max_steps": 2, "max_cost_usd": "0.01"},
    }  # fmt: skip
    answer = api.post("/runs", ORDER | asked)
    got = answer.json()
    assert answer.status_code == 202 and answer["Location"] == f"/api/v1/runs/{got['run_id']}"
    assert {name: got[name] for name in ("input", "user", "session", "metadata", "mode")} == {
        name: asked[name] for name in ("input", "user", "session", "metadata", "mode")
    }
    assert (got["max_steps"], got["limits"]["max_cost_usd"], got["state"], got["seq"]) == (2, "0.01", "queued", 1)
    assert api.get(answer["Location"].removeprefix("/api/v1")).json() == got


def test_steps_hold_their_calls_and_events_are_numbered(world: World, api: Caller) -> None:
    run = a_finished_run(world)
    steps = api.get(f"/runs/{run.run_id}/steps").json()["items"]
    assert [(s["step"], s["role"], [c["kind"] for c in s["calls"]]) for s in steps] == [
        (1, "planner", ["model", "tool"]), (2, "planner", ["model", "tool"]), (3, "planner", ["model"]),
    ]  # fmt: skip
    tool = steps[1]["calls"][1]
    assert (tool["call_id"], tool["args"], tool["effect"]) == (f"{run.run_id}.2.1", {"a": 1}, "write")
    events = api.get(f"/runs/{run.run_id}/events").json()["items"]
    assert [(e["seq"], e["event"], e["run_id"]) for e in events] == [(1, "run_accepted", run.run_id)]
    fields = "seq run_id step_id call_id event at model tool latency_ms input_tokens output_tokens cost_usd result error_type"
    assert set(events[0]) == {*fields.split(), "retryable", "data", "v"}


def test_events_come_in_pages_after_a_number(world: World, api: Caller) -> None:
    run = queued(world)
    append(run, [event(Kind.RUN_RESUMED)] * 6)
    Run.objects.filter(pk=run.pk).update(seq=run.seq)
    first = api.get(f"/runs/{run.run_id}/events?limit=4").json()
    rest = api.get(f"/runs/{run.run_id}/events?after={first['next_cursor']}").json()
    assert [e["seq"] for e in first["items"] + rest["items"]] == [1, 2, 3, 4, 5, 6, 7] and rest["next_cursor"] is None
    assert refusal(api.get(f"/runs/{run.run_id}/events?after=-1")) == (400, "bad_after")


@pytest.mark.mission("P8.3")
def test_a_run_that_a_person_ended_is_rebuilt_from_its_events(world: World, api: Caller) -> None:
    run, _ = waiting(world)
    append(run, [event(Kind.RUN_PARKED, data={"state": "waiting_approval"})])
    Run.objects.filter(pk=run.pk).update(seq=run.seq)
    record = api.post(f"/runs/{run.run_id}/cancel").json()
    rebuilt = rebuild(api.get(f"/runs/{run.run_id}/events").json()["items"], [])
    assert rebuilt["state"] == "cancelled" and differences(rebuilt, record) == {}


# -- lists ------------------------------------------------------------------------------------------------------------------


def test_pages_have_neither_gap_nor_repeat_while_runs_are_added(world: World, api: Caller) -> None:
    before = [queued(world).run_id for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api.get(f"/runs?limit=2&cursor={cursor}").json()
        assert len(page["items"]) <= 2
        seen += [item["run_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        queued(world)
    assert seen == before[::-1]


def test_a_page_that_is_just_full_is_the_last(world: World, api: Caller) -> None:
    for _ in range(2):
        queued(world)
    assert api.get("/runs?limit=2").json()["next_cursor"] is None


def ids(api: Caller, query: str) -> list[str]:
    answer = api.get(f"/runs?{query}")
    assert answer.status_code == 200, answer.content
    return [item["run_id"] for item in answer.json()["items"]]


def test_each_filter_finds_its_runs_and_no_others(world: World, api: Caller) -> None:
    other = Agent.objects.create(name="other")
    plain, wrote = queued(world), a_finished_run(world)
    degraded = queued(world)
    finish(degraded, outcome="completed_degraded")
    odd = queued(world)
    RunInput.objects.filter(pk=odd.pk).update(text="a 100% odd_word")
    Run.objects.filter(pk=plain.pk).update(created_at=Now() - timedelta(days=2))
    plain.refresh_from_db()
    assert ids(api, "state=queued") == [odd.run_id, plain.run_id]
    assert ids(api, "state=succeeded,queued&limit=200") == [r.run_id for r in (odd, degraded, wrote, plain)]
    assert ids(api, "outcome=completed") == [wrote.run_id]
    assert ids(api, "degraded=true") == [degraded.run_id]
    assert ids(api, "degraded=false") == [odd.run_id, wrote.run_id, plain.run_id]
    assert ids(api, "tool=create_ticket") == [wrote.run_id] and ids(api, "tool=primary") == []
    assert ids(api, "cost_gt=0.0429") == [wrote.run_id] and ids(api, "cost_gt=0.043") == []
    assert ids(api, "until=" + (plain.created_at + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")) == [plain.run_id]
    assert plain.run_id not in ids(api, "since=" + (plain.created_at + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert ids(api, "q=100%25+odd_") == [odd.run_id] and ids(api, f"q={wrote.run_id}") == [wrote.run_id]
    assert ids(api, f"agent={other.name}") == [] and ids(api, "tenant=globex") == []
    assert len(ids(api, f"agent=support-triage&tenant=acme&release={plain.release.release_id}")) == 4
    assert ids(api, "state=queued&q=odd") == [odd.run_id]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "bad_limit"),
        ("limit=201", "bad_limit"),
        ("limit=two", "bad_limit"),
        ("limit=٣", "bad_limit"),
        ("cursor=agt_x", "bad_cursor"),
        ("cursor=apr_01M848YM8W6Q45F9JMJ64ACAY3", "bad_cursor"),
        ("since=yesterday", "bad_since"),
        ("since=2026-01-01T00:00:00", "bad_since"),
        ("until=2026-13-01T00:00:00Z", "bad_until"),
        ("cost_gt=NaN", "bad_cost_gt"),
        ("cost_gt=1e999999", "bad_cost_gt"),
        ("cost_gt=-1", "bad_cost_gt"),
        ("release=7", "bad_release"),
        ("degraded=1", "bad_degraded"),
        ("q=%00", "unstorable_text"),
        ("since=0001-01-01T00:00:00%2B14:00", "bad_since"),
        ("until=9999-12-31T23:59:59-14:00", "bad_until"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_by_name(api: Caller, query: str, code: str) -> None:
    assert refusal(api.get(f"/runs?{query}")) == (400, code)


@pytest.mark.parametrize("query", ["q=%ff%ed%a0%80", "state=,,", "q=%25_\\"])
def test_an_odd_filter_finds_what_it_finds(api: Caller, query: str) -> None:
    assert api.get(f"/runs?{query}").status_code == 200


# -- idempotency ------------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_run_and_say_so(api: Caller) -> None:
    first = api.post("/runs", ORDER, Idempotency_Key="k1")
    again = api("POST", "/runs", raw='{"input":"Please refund me",  "agent":"support-triage"}', Idempotency_Key="k1")
    assert (first.status_code, again.status_code, Run.objects.count()) == (202, 202, 1)
    assert first.json()["run_id"] == again.json()["run_id"] and first["Location"] == again["Location"]
    assert "Idempotent-Replayed" not in first and again["Idempotent-Replayed"] == "true"


def test_the_same_key_with_another_body_is_refused(api: Caller) -> None:
    api.post("/runs", ORDER, Idempotency_Key="k1")
    assert refusal(api.post("/runs", ORDER | {"input": "Other"}, Idempotency_Key="k1")) == (422, "idempotency_key_reused")
    assert Run.objects.count() == 1


def test_a_key_that_is_being_answered_is_refused_until_it_is(committed_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request comes while the first holds the key inside its transaction."""
    world = make_world()
    api = caller(world.starter)
    inside: list[Any] = []
    place = intake.place

    def slow(*args: Any, **values: Any) -> Run:
        if not inside:
            inside.append(None)
            inside[0] = at_once(lambda: refusal(api.post("/runs", ORDER, Idempotency_Key="k1")))[0]
        return place(*args, **values)

    monkeypatch.setattr(intake, "place", slow)
    assert api.post("/runs", ORDER, Idempotency_Key="k1").status_code == 202
    assert inside == [(409, "idempotency_in_flight")]
    assert Run.objects.count() == IdempotencyRecord.objects.count() == 1


def test_a_refused_order_is_not_remembered(api: Caller) -> None:
    assert refusal(api.post("/runs", ORDER | {"agent": "nobody"}, Idempotency_Key="k1")) == (404, "not_found")
    assert api.post("/runs", ORDER, Idempotency_Key="k1").status_code == 202


# -- cancel, retry, and what is not built -----------------------------------------------------------------------------------


def test_cancelling_ends_what_nobody_holds_and_asks_who_holds_it(world: World, api: Caller) -> None:
    free, held = queued(world), running(world)
    ended, asked = api.post(f"/runs/{free.run_id}/cancel"), api.post(f"/runs/{held.run_id}/cancel")
    assert (ended.status_code, ended.json()["state"], ended.json()["outcome"]) == (200, "cancelled", "cancelled")
    assert (asked.status_code, asked.json()["state"], asked.json()["cancel_requested"]) == (202, "running", True)
    again = api.post(f"/runs/{free.run_id}/cancel")
    assert again.status_code == 200 and again.json()["seq"] == ended.json()["seq"]


def test_cancelling_a_run_that_waits_closes_its_approval(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    assert api.post(f"/runs/{run.run_id}/cancel").status_code == 200
    assert api.get(f"/approvals/{approval.approval_id}").json()["state"] == "void"


def test_a_failed_run_is_tried_again_as_a_new_run(world: World, api: Caller) -> None:
    run = queued(world)
    assert refusal(api.post(f"/runs/{run.run_id}/retry")) == (409, "run_not_retryable")
    finish(run, "failed", "model_error")
    again = api.post(f"/runs/{run.run_id}/retry")
    assert again.status_code == 202 and again["Location"] == f"/api/v1/runs/{again.json()['run_id']}"
    assert again.json()["run_id"] != run.run_id and again.json()["metadata"]["retry_of"] == run.run_id


def test_a_run_with_a_write_that_nobody_answered_is_not_tried_again(world: World, api: Caller) -> None:
    run = running(world)
    add_call(run, state=CallState.DISPATCHED)
    finish(run, "failed", "tool_error")
    assert refusal(api.post(f"/runs/{run.run_id}/retry")) == (409, "retry_would_repeat_writes")


@pytest.mark.mission("X9")
def test_a_fork_says_where_it_comes_from_and_changes_nothing(world: World, api: Caller) -> None:
    run = queued(world)
    answer = api.post(f"/runs/{run.run_id}/fork", {"step": 1, "changes": {"input": "Something else"}})
    assert answer.status_code == 202 and answer["Location"] == f"/api/v1/runs/{answer.json()['run_id']}"
    told = answer.json()
    assert (told["mode"], told["rehearsal"], told["fork_of"]) == ("fork", "fork", {"run_id": run.run_id, "step": 1})
    assert refusal(api.post(f"/runs/{run.run_id}/fork", {"step": 3})) == (422, "fork_step_missing")
    assert refusal(api.post(f"/runs/{run.run_id}/fork", {"step": 1, "changes": {"writes": "all"}})) == (422, "validation")
    assert refusal(api.post(f"/runs/{run.run_id}/explode")) == (404, "not_found")


@pytest.mark.parametrize(
    ("callback", "code"),
    [
        ({"url": "https://example.com/", "secret_name": "s"}, "callback_secret_missing"),
        ({"url": "http://127.0.0.1:9/", "secret_name": "s"}, "egress_refused"),
        ({"url": "https://me@example.com/", "secret_name": "s"}, "validation"),
        ("https://example.com/", "validation"),
    ],
)
def test_a_callback_that_cannot_be_made_is_refused(api: Caller, callback: Any, code: str) -> None:
    assert refusal(api.post("/runs", ORDER | {"callback": callback})) == (422, code)
    assert Run.objects.count() == 0
