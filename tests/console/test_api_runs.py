"""Runs over the API: the record, lists and their pages, idempotent submission, cancel and retry, and whose runs they are."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from console.api import urls as api_urls
from console.rebuild import differences, rebuild
from runs import intake
from runs.events import Kind, event
from runs.history import append
from runs.models import Agent, Call, Run, RunInput, Step, UnknownWrite
from runs.states import CallState, RunState
from tenants.ids import encode, new_id
from tenants.models import IdempotencyRecord, Tenant, User
from tests.runtime.waiting import DIGEST, World, add_call, ask, at_once, make_world, park, person, queued, running, waiting

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


# -- whose runs they are ----------------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/runs/{run}"),
    ("GET", "/runs/{run}/steps"),
    ("GET", "/runs/{run}/events"),
    ("POST", "/runs/{run}/cancel"),
    ("POST", "/runs/{run}/retry"),
    ("POST", "/runs/{run}/fork"),
    ("GET", "/approvals/{approval}"),
    ("POST", "/approvals/{approval}/decision"),
    ("GET", "/unknowns/{unknown}"),
    ("POST", "/unknowns/{unknown}/resolve"),
]
BODIES = {
    "/approvals/{approval}/decision": {"verdict": "approve", "digest": DIGEST},
    "/unknowns/{unknown}/resolve": {"result": "applied", "evidence": "seen"},
    "/runs": ORDER,
}


def unknown(run: Run) -> UnknownWrite:
    return UnknownWrite.objects.create(tenant_id=run.tenant_id, run_id=run.id, step=1, ord=1, tool="create_ticket")


@pytest.mark.mission("P13.1")
@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_another_tenants_run_does_not_exist(world: World, method: str, route: str) -> None:
    run, approval = waiting(world)
    stranger = caller(person(Tenant.objects.create(slug="globex"), "grace", "admin"))
    place = {"run": run.run_id, "approval": approval.approval_id, "unknown": unknown(run).unknown_id}
    nowhere = {"run": encode("agt", new_id()), "approval": encode("apr", new_id()), "unknown": encode("unk", new_id())}
    theirs, none = (stranger(method, route.format(**names), BODIES.get(route)) for names in (place, nowhere))
    assert refusal(theirs) == refusal(none) == (404, "not_found")
    assert theirs.json()["detail"] == none.json()["detail"]
    run.refresh_from_db()
    assert run.state == RunState.WAITING_APPROVAL


def test_lists_hold_nothing_of_another_tenant_and_all_for_a_platform_admin(world: World) -> None:
    run, approval = waiting(world)
    globex = Tenant.objects.create(slug="globex")
    stranger = caller(person(globex, "grace", "admin"))
    assert stranger.get("/runs?tenant=acme").json()["items"] == []
    assert stranger.get(f"/runs?q={run.run_id}").json()["items"] == []
    assert stranger.get(f"/approvals?run_id={run.run_id}").json()["items"] == []
    everybody = caller(person(globex, "root", "viewer", platform=True))
    assert [r["run_id"] for r in everybody.get("/runs").json()["items"]] == [run.run_id]
    assert [a["approval_id"] for a in everybody.get("/approvals").json()["items"]] == [approval.approval_id]


SCOPED = [
    ("GET", "/runs", "runs:read"),
    ("POST", "/runs", "runs:write"),
    ("POST", "/runs/bulk", "runs:write"),
    ("GET", "/runs/bulk/x", "runs:read"),
    ("POST", "/runs/bulk/x/stop", "runs:write"),
    *((method, route, "runs:read" if method == "GET" else "runs:write") for method, route in ROUTES if "runs" in route),
    ("GET", "/approvals", "approvals:read"),
    ("GET", "/approvals/{approval}", "approvals:read"),
    ("POST", "/approvals/{approval}/decision", "approvals:decide"),
    ("GET", "/tools", "config:read"),
    ("GET", "/tools/x", "config:read"),
    ("PUT", "/tools/x", "config:write"),
    ("GET", "/agents", "config:read"),
    ("GET", "/agents/x", "config:read"),
    ("PUT", "/agents/x", "config:write"),
    ("POST", "/agents/x/releases", "config:write"),
    ("GET", "/agents/x/releases", "config:read"),
    ("GET", "/releases/rel_x", "config:read"),
    ("POST", "/releases/rel_x/shadow", "config:write"),
    ("POST", "/releases/rel_x/canary", "config:write"),
    ("POST", "/releases/rel_x/promote", "config:write"),
    ("POST", "/releases/rel_x/rollback", "config:write"),
    ("GET", "/releases/rel_x/writes", "runs:read"),
    ("POST", "/releases/rel_x/undo", "runs:write"),
    ("GET", "/releases/rel_x/diff/x", "config:read"),
    ("GET", "/rollouts", "config:read"),
    ("GET", "/rollouts/x", "config:read"),
    ("POST", "/rollouts/x/share", "config:write"),
    ("POST", "/rollouts/x/hold", "config:write"),
    ("POST", "/rollouts/x/resume", "config:write"),
    ("POST", "/rollouts/x/end", "config:write"),
    ("POST", "/releases/rel_x/evaluate", "config:write"),
    ("POST", "/config/apply", "config:write"),
    ("GET", "/audit", "audit:read"),
    ("GET", "/changes", "config:read"),
    ("GET", "/memory", "memory:read"),
    ("GET", "/memory/x", "memory:read"),
    ("PUT", "/memory/x", "memory:write"),
    ("DELETE", "/memory/x", "memory:write"),
    ("POST", "/memory/forget", "memory:write"),
    ("GET", "/suites", "config:read"),
    ("GET", "/suites/x", "config:read"),
    ("PUT", "/suites/x", "config:write"),
    ("GET", "/suites/x/cases", "config:read"),
    ("GET", "/suites/x/cases/x", "config:read"),
    ("PUT", "/suites/x/cases/x", "config:write"),
    ("DELETE", "/suites/x/cases/x", "config:write"),
    ("POST", "/suites/x/import", "config:write"),
    ("GET", "/suites/x/export", "config:read"),
    ("POST", "/suites/x/from-run", "config:write"),
    ("GET", "/evaluations", "config:read"),
    ("GET", "/evaluations/x", "config:read"),
    ("POST", "/evaluations/x/cancel", "config:write"),
    ("GET", "/scores", "runs:read"),
    ("GET", "/ceilings", "config:read"),
    ("PUT", "/ceilings", "config:write"),
    ("GET", "/events/schema", "runs:read"),
    ("GET", "/events/export", "runs:read"),
    ("GET", "/unknowns", "runs:read"),
    ("GET", "/unknowns/{unknown}", "runs:read"),
    ("POST", "/unknowns/{unknown}/resolve", "approvals:decide"),
    ("GET", "/runs/{run}/deliveries", "runs:read"),
    ("POST", "/deliveries/msg_x/redeliver", "runs:write"),
    ("POST", "/runs/{run}/extend", "approvals:decide"),
    ("GET", "/drafts", "runs:read"),
    ("POST", "/drafts/{run}.1.1/carry-out", "runs:write"),
    ("POST", "/drafts/{run}.1.1/dismiss", "runs:write"),
    ("POST", "/runs/{run}/steps/1/calls/1/undo", "runs:write"),
    ("GET", "/approvals/health", "approvals:read"),
    ("GET", "/approvals/reviews", "approvals:read"),
    ("POST", "/approvals/{approval}/reviewed", "approvals:decide"),
    ("GET", "/groups", "config:read"),
    ("GET", "/groups/x", "config:read"),
    ("PUT", "/groups/x", "config:write"),
    ("DELETE", "/groups/x", "config:write"),
    ("GET", "/delegations", "approvals:read"),
    ("POST", "/delegations", "approvals:decide"),
    ("POST", "/delegations/x/revoke", "approvals:decide"),
    ("GET", "/grants", "approvals:read"),
    ("POST", "/grants", "approvals:decide"),
    ("GET", "/grants/x", "approvals:read"),
    ("POST", "/grants/x/revoke", "approvals:decide"),
    ("GET", "/channels", "config:read"),
    ("GET", "/channels/x", "config:read"),
    ("PUT", "/channels/x", "config:write"),
    ("DELETE", "/channels/x", "config:write"),
    ("POST", "/channels/x/test", "config:write"),
    ("GET", "/channels/x/deliveries", "config:read"),
    ("GET", "/switches", "runs:read"),
    ("POST", "/switches", "runs:write"),
    ("GET", "/switches/x", "runs:read"),
    ("POST", "/switches/x/lift", "runs:write"),
    ("GET", "/incidents", "runs:read"),
    ("POST", "/incidents", "incidents:write"),
    ("GET", "/incidents/summary", "runs:read"),
    ("GET", "/incidents/x", "runs:read"),
    ("POST", "/incidents/x/acknowledge", "incidents:write"),
    ("POST", "/incidents/x/assign", "incidents:write"),
    ("POST", "/incidents/x/note", "incidents:write"),
    ("POST", "/incidents/x/severity", "incidents:write"),
    ("POST", "/incidents/x/resolve", "incidents:write"),
    ("POST", "/incidents/x/reopen", "incidents:write"),
    ("GET", "/detectors", "config:read"),
    ("GET", "/detectors/x", "config:read"),
    ("PUT", "/detectors/x", "config:write"),
    ("POST", "/detectors/x/backtest", "config:read"),
    ("POST", "/tools/x/classify", "config:write"),
    ("POST", "/tools/x/accept", "config:write"),
    ("POST", "/tools/x/reject", "config:write"),
    ("POST", "/imports/openapi", "config:write"),
    ("POST", "/imports/mcp", "config:write"),
    ("GET", "/models", "config:read"),
    ("GET", "/models/x", "config:read"),
    ("GET", "/breakers", "config:read"),
    ("POST", "/breakers/x", "runs:write"),
    ("GET", "/metrics/summary", "metrics:read"),
    ("GET", "/metrics/series", "metrics:read"),
    ("GET", "/rules", "config:read"),
    ("GET", "/rules/x", "config:read"),
    ("PUT", "/rules/x", "config:write"),
    ("DELETE", "/rules/x", "config:write"),
    ("GET", "/permissions", "config:read"),
    ("PUT", "/permissions", "config:write"),
    ("DELETE", "/permissions", "config:write"),
    ("GET", "/policy/versions", "config:read"),
    ("POST", "/policy/versions/x/restore", "config:write"),
    ("POST", "/policy/preview", "config:read"),
    ("POST", "/policy/backtests", "config:read"),
    ("GET", "/policy/backtests/x", "config:read"),
    ("POST", "/policy/backtests/x/cancel", "config:write"),
]


@pytest.mark.mission("P13.1")
@pytest.mark.parametrize(("method", "route", "scope"), SCOPED)
def test_a_key_without_the_scope_is_refused_and_told_which(world: World, method: str, route: str, scope: str) -> None:
    run, approval = waiting(world)
    narrow = caller(world.approver, "metrics:read" if scope != "metrics:read" else "runs:read")
    place = {"run": run.run_id, "approval": approval.approval_id, "unknown": unknown(run).unknown_id}
    answer = narrow(method, route.format(**place), BODIES.get(route))
    assert refusal(answer) == (403, "scope_missing") and answer.json()["scope"] == scope


def test_every_call_of_the_api_is_held_to_a_scope() -> None:
    """A new route belongs into SCOPED above."""

    def shape(path: str) -> str:
        return re.sub(r"<str:\w+>|\{\w+\}(\.1\.1)?|(?<=/)(x|1|rel_x|msg_x)(?=/|$)|(?<=/)(fork|promote)$", "*", "/" + path.lstrip("/"))

    held = {(method, shape(route)) for method, route, _ in SCOPED}
    for pattern in api_urls.urlpatterns:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if hasattr(getattr(pattern.callback, "cls", None), method.lower()) and str(pattern.pattern) != "schema/":
                assert (method, shape(str(pattern.pattern))) in held


def test_a_viewer_reads_and_starts_nothing(world: World) -> None:
    run = queued(world)
    viewer = caller(person(world.tenant, "vera", "viewer"))
    assert viewer.get(f"/runs/{run.run_id}").status_code == 200
    for path, body in (("/runs", ORDER), (f"/runs/{run.run_id}/cancel", None), (f"/runs/{run.run_id}/retry", None)):
        assert refusal(viewer.post(path, body)) == (403, "scope_missing")
    assert Run.objects.count() == 1


def test_a_tenant_or_person_switched_off_is_out_at_once(world: World, api: Caller) -> None:
    User.objects.filter(pk=world.starter.user.pk).update(is_active=False)
    assert refusal(api.get("/runs")) == (401, "unauthorized")
    Tenant.objects.update(active=False)
    assert refusal(caller(world.approver).post("/runs", ORDER)) == (401, "unauthorized")


def test_lists_cost_the_same_number_of_queries_however_long(world: World, django_assert_num_queries: Any) -> None:
    api = caller(world.approver)
    for _ in range(3):
        run = a_finished_run(world)
        ask(run)
        park(running(world))
    api.get("/runs")  # notes the key's use
    with django_assert_num_queries(4):  # the key, the runs, their tools, their answers
        assert len(api.get("/runs").json()["items"]) == 6
    with django_assert_num_queries(3):  # the key, the approvals, their decisions
        assert len(api.get("/approvals").json()["items"]) == 3
