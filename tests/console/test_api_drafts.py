"""The API of limits: drafts and what becomes of them, more budget, and what the records say of rungs and roles."""

from typing import Any

import pytest

from approvals.models import Approval
from console.rebuild import rebuild
from runs.events import Kind, event
from runs.history import append
from runs.models import Call, DraftDecision, Run, RunInput, Step
from runs.states import CallState, RunState
from tenants.models import AuditEntry
from tests.runtime.waiting import World, ask, make_world, park, person, running

from .callers import Caller, caller, refusal

ARGS = b'{"account_id":"acct_1001","priority":"urgent"}'
WHY = {"ok": False, "error_type": "drafted", "message": "Not sent: the tool is not available."}
QUESTION = b'{"add":{"max_steps":3},"limit":"max_steps","spent":{"cost_usd":"0.012000","steps":6,"tool_calls":2,"writes":0},"step":6,"used":7,"value":6}'  # noqa: E501
RUNG = {"n": 0, "on": "tool_unavailable", "do": "draft", "step": 1, "tool": "create_ticket"}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.operator)


def drafted(world: World, ord: int = 1) -> tuple[Run, str]:
    """A run that kept one write, and the draft's id."""
    run = running(world)
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    given: dict[str, Any] = {"name": "create_ticket", "effect": "write", "args": ARGS, "result": WHY, "error_class": "drafted"}
    Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, fence=1, state=CallState.BLOCKED, **given)
    return run, f"{run.run_id}.1.{ord}"


def asking(world: World) -> tuple[Run, Approval]:
    """A run that waits for more steps."""
    run = running(world)
    rung = {"n": 1, "on": "budget_exceeded", "do": "ask", "step": 6, "limit": "max_steps", "value": 6, "used": 7, "by": "primary"}
    Run.objects.filter(pk=run.pk).update(rungs=[rung], step=6)
    approval = ask(
        run, ord=0, step=6, tool="", tool_version_id=None, effect="budget", args=QUESTION, kind="budget", why="The run met max_steps."
    )
    park(run, RunState.WAITING_BUDGET)
    return run, approval


# drafts -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P6.1")
def test_a_draft_says_what_would_have_been_sent_and_why_it_was_not(world: World, api: Caller) -> None:
    run, draft_id = drafted(world)
    (one,) = api.get("/drafts").json()["items"]
    assert (one["draft_id"], one["run_id"], one["step_id"], one["call_id"]) == (draft_id, run.run_id, 1, draft_id)
    assert (one["tool"], one["effect"], one["args"]) == ("create_ticket", "write", {"account_id": "acct_1001", "priority": "urgent"})
    assert one["why"] == WHY["message"] and one["created_at"].endswith("Z") and one["decided"] is None
    assert api.get(f"/runs/{run.run_id}").json()["drafts"] == [draft_id]


@pytest.mark.mission("P6.1")
def test_a_draft_is_carried_out_once_by_a_run_of_its_own(world: World, api: Caller) -> None:
    run, draft_id = drafted(world)
    answer = api.post(f"/drafts/{draft_id}/carry-out", {"reason": "the desk is back"})
    made = answer.json()
    assert answer.status_code == 202 and answer["Location"] == f"/api/v1/runs/{made['run_id']}"
    assert made["action"] == {
        "kind": "draft",
        "tool": "create_ticket",
        "args": {"account_id": "acct_1001", "priority": "urgent"},
        "of": draft_id,
    }
    assert api.get("/drafts").json()["items"] == []
    (one,) = api.get("/drafts?state=all").json()["items"]
    said = one["decided"]
    assert (said["verdict"], said["by"], said["run_id"]) == ("carried_out", world.operator.user.username, made["run_id"])
    assert AuditEntry.objects.filter(action="draft.carried_out", reason="the desk is back").count() == 1
    again = api.post(f"/drafts/{draft_id}/carry-out")
    assert refusal(again) == (409, "draft_decided") and again.json()["run_id"] == made["run_id"]
    assert refusal(api.post(f"/drafts/{draft_id}/dismiss", {})) == (409, "draft_decided")
    assert Run.objects.exclude(pk=run.pk).count() == 1


def test_a_draft_that_nobody_needs_is_dismissed(world: World, api: Caller) -> None:
    _, draft_id = drafted(world)
    answer = api.post(f"/drafts/{draft_id}/dismiss", {"reason": "solved by phone"})
    assert answer.status_code == 200 and answer.json()["decided"]["verdict"] == "dismissed"
    assert answer.json()["decided"]["run_id"] is None and DraftDecision.objects.get().reason == "solved by phone"
    assert Run.objects.count() == 1


@pytest.mark.mission("P2.5")
def test_another_tenants_drafts_are_not_there(world: World, api: Caller) -> None:
    _, foreign = drafted(make_world("globex", "other"))
    assert api.get("/drafts?state=all").json()["items"] == []
    for verb in ("carry-out", "dismiss"):
        assert refusal(api.post(f"/drafts/{foreign}/{verb}")) == (404, "not_found")


@pytest.mark.parametrize("draft_id", ["x", "agt_1.1.1", "agt_{}.1.", "agt_{}.1.1.1", "agt_{}.-1.1", "agt_{}.1.999999"])
def test_what_is_no_draft_is_not_there(world: World, api: Caller, draft_id: str) -> None:
    run, _ = drafted(world)
    assert refusal(api.post(f"/drafts/{draft_id.format(run.run_id[4:])}/dismiss")) == (404, "not_found")


def test_drafts_come_newest_first_and_in_pages(world: World, api: Caller) -> None:
    made = [drafted(world)[1] for _ in range(3)]
    first = api.get("/drafts?limit=2").json()
    assert [one["draft_id"] for one in first["items"]] == [made[2], made[1]] and first["next_cursor"] == made[1]
    rest = api.get(f"/drafts?limit=2&cursor={first['next_cursor']}").json()
    assert [one["draft_id"] for one in rest["items"]] == [made[0]] and rest["next_cursor"] is None


@pytest.mark.parametrize(("query", "code"), [("state=closed", "bad_state"), ("cursor=7", "bad_cursor"), ("limit=0", "bad_limit")])
def test_a_bad_question_for_drafts_is_named(world: World, api: Caller, query: str, code: str) -> None:
    drafted(world)
    assert refusal(api.get(f"/drafts?{query}")) == (400, code)


@pytest.mark.parametrize("body", [[], {"why": "x"}, {"reason": "x" * 2001}, {"reason": 1}])
def test_a_bad_decision_about_a_draft_changes_nothing(world: World, api: Caller, body: Any) -> None:
    _, draft_id = drafted(world)
    assert refusal(api.post(f"/drafts/{draft_id}/dismiss", body)) == (422, "validation")
    assert DraftDecision.objects.count() == 0


def test_a_viewer_reads_drafts_and_decides_about_none(world: World) -> None:
    viewer = caller(person(world.tenant, "vera", "viewer"))
    _, draft_id = drafted(world)
    assert len(viewer.get("/drafts").json()["items"]) == 1
    for verb in ("carry-out", "dismiss"):
        assert viewer.post(f"/drafts/{draft_id}/{verb}").status_code == 403


# more budget ------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X7")
def test_a_request_for_more_says_what_it_asks_for_and_has_no_call(world: World, api: Caller) -> None:
    _, approval = asking(world)
    (one,) = api.get("/approvals?kind=budget").json()["items"]
    assert (one["approval_id"], one["kind"], one["tool"], one["call_id"]) == (approval.approval_id, "budget", None, None)
    assert one["asked"]["add"] == {"max_steps": 3} and one["asked"]["limit"] == "max_steps"
    assert (one["asked"]["value"], one["asked"]["used"], one["asked"]["spent"]["steps"]) == (6, 7, 6)
    assert api.get("/approvals?kind=call").json()["items"] == []


@pytest.mark.mission("X7")
def test_other_amounts_are_granted_once_and_the_run_goes_on(world: World) -> None:
    run, approval = asking(world)
    body = {"add": {"max_steps": 5, "max_cost_usd": "0.02"}, "reason": "worth it"}
    answer = caller(world.approver).post(f"/runs/{run.run_id}/extend", body)
    assert answer.status_code == 200, answer.content
    assert answer.json()["state"] == "queued"
    assert (answer.json()["limits"]["max_steps"], answer.json()["limits"]["max_cost_usd"]) == (11, "0.1")
    approval.refresh_from_db()
    assert approval.state in ("approved", "consumed") and approval.decisions.get().reason == "worth it"
    assert refusal(caller(world.approver).post(f"/runs/{run.run_id}/extend", body)) == (409, "run_not_waiting")


@pytest.mark.mission("X7", "P3.4")
def test_nobody_extends_a_run_that_they_started(world: World) -> None:
    run, _ = asking(world)
    body = {"add": {"max_steps": 5}, "reason": "mine"}
    assert refusal(caller(world.starter).post(f"/runs/{run.run_id}/extend", body)) == (403, "own_run")
    assert RunInput.objects.get(pk=run.pk).limits["max_steps"] == 6


@pytest.mark.parametrize(
    "body",
    [
        {"add": {}, "reason": "x"},
        {"add": {"max_steps": 0}, "reason": "x"},
        {"add": {"run_s": 60}, "reason": "x"},
        {"add": {"max_steps": 1}},
        {"add": {"max_steps": 1}, "reason": ""},
        [],
    ],
)
def test_an_extension_that_is_none_is_refused(world: World, body: Any) -> None:
    run, _ = asking(world)
    assert refusal(caller(world.approver).post(f"/runs/{run.run_id}/extend", body)) == (422, "validation")
    run.refresh_from_db()
    assert run.state == RunState.WAITING_BUDGET


def test_a_run_that_asks_for_nothing_cannot_be_extended(world: World) -> None:
    run = running(world)
    body = {"add": {"max_steps": 1}, "reason": "x"}
    assert refusal(caller(world.approver).post(f"/runs/{run.run_id}/extend", body)) == (409, "run_not_waiting")
    foreign, _ = asking(make_world("globex", "other"))
    assert refusal(caller(world.approver).post(f"/runs/{foreign.run_id}/extend", body)) == (404, "not_found")


# records ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P6.2")
def test_a_run_that_stands_on_a_rung_is_degraded_before_it_ends(world: World, api: Caller) -> None:
    plain, standing, passed = running(world), running(world), running(world)
    Run.objects.filter(pk=standing.pk).update(rungs=[RUNG | {"missed": True}, RUNG | {"n": 1}])
    Run.objects.filter(pk=passed.pk).update(rungs=[RUNG | {"missed": True}])
    assert [run["run_id"] for run in api.get("/runs?degraded=true").json()["items"]] == [standing.run_id]
    assert [run["run_id"] for run in api.get("/runs?degraded=false").json()["items"]] == [passed.run_id, plain.run_id]
    record = api.get(f"/runs/{standing.run_id}").json()
    assert record["degraded"] is True and [rung["n"] for rung in record["rungs"]] == [0, 1]
    assert api.get(f"/runs/{passed.run_id}").json()["degraded"] is False


@pytest.mark.mission("P5.3")
def test_the_record_of_one_run_tells_what_each_role_cost(world: World, api: Caller) -> None:
    run = running(world)
    for step, role, model, cost in ((1, "planner", "primary", 900), (2, "critique", "checker", 0), (3, "planner", "primary", 100)):
        append(run, [event(Kind.MODEL_CALL_STARTED, step_id=step, ord=0, model=model, data={"attempt": 1, "role": role})])
        spent = {"tokens_in": 10, "tokens_out": 2, "cost_micro": cost}
        Call.objects.create(
            run=run, step=step, ord=0, tenant_id=run.tenant_id, fence=1, name=model, effect="read", state="dispatched", **spent
        )
    Call.objects.create(run=run, step=4, ord=0, tenant_id=run.tenant_id, fence=1, name="earlier_answer", effect="read", state="dispatched")
    Run.objects.filter(pk=run.pk).update(unpriced=True, seq=run.seq)
    assert api.get(f"/runs/{run.run_id}").json()["usage"]["by_role"] == [
        {"role": "planner", "model": "primary", "calls": 2, "input_tokens": 20, "output_tokens": 4, "cost_usd": "0.001"},
        {"role": "critique", "model": "checker", "calls": 1, "input_tokens": 10, "output_tokens": 2, "cost_usd": None},
    ]
    assert "by_role" not in api.get("/runs").json()["items"][0]["usage"]


def test_a_step_that_no_model_took_names_none(world: World, api: Caller) -> None:
    run = running(world)
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="action", model="", calls=1)
    Call.objects.create(run=run, step=1, ord=1, tenant_id=run.tenant_id, fence=1, name="create_ticket", effect="write", state="ready")
    (step,) = api.get(f"/runs/{run.run_id}/steps").json()["items"]
    assert (step["role"], step["model"], step["calls"][0]["name"]) == ("action", None, "create_ticket")


def test_a_run_is_rebuilt_with_its_rungs_its_drafts_and_the_answer_that_was_checked() -> None:
    told = {"run_id": "agt_x", "step_id": None, "call_id": None, "error_type": None, "tool": None}

    def at(seq: int, kind: str, **more: Any) -> dict[str, Any]:
        return told | {"seq": seq, "event": kind, "data": None} | more

    events = [
        at(1, "run_accepted", data={"agent": "a", "release": "r"}),
        at(2, "rung_missed", step_id=1, data={"n": 0, "on": "loop", "do": "cached"}),
        at(3, "rung_entered", step_id=1, data=RUNG),
        at(4, "call_drafted", step_id=1, call_id="agt_x.1.2", data={"attempt": 0}),
        at(5, "call_drafted", step_id=1, call_id="agt_x.1.1", data={"attempt": 0}),
    ]
    live = rebuild(events, [])
    assert live["rungs"] == [{"n": 0, "on": "loop", "do": "cached", "missed": True}, RUNG]
    assert (live["drafts"], live["degraded"]) == (["agt_x.1.1", "agt_x.1.2"], True)
    events += [
        at(6, "critique_decided", step_id=3, data={"of": 2, "checks": "answer", "verdict": "pass", "reasons": 0}),
        at(7, "run_completed", step_id=3, data={"state": "succeeded", "outcome": "completed", "stop": None}),
    ]
    calls = [{"call_id": "agt_x.2.0", "result": {"text": "the answer"}}, {"call_id": "agt_x.3.0", "result": {"text": "the verdict"}}]
    ended = rebuild(events, calls)
    assert (ended["output"], ended["degraded"]) == ({"text": "the answer"}, False)
    assert rebuild(events, [])["output"] is None
