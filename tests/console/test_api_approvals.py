"""A person's decision over the API: bound to what they were shown, recorded once, and refused with the reason."""

from typing import Any

import pytest

from approvals.models import Approval
from runs.models import Call, Run
from tests.runtime.waiting import DIGEST, World, kinds, make_late, make_world, person, waiting

from .callers import Caller, caller, refusal

YES = {"verdict": "approve", "digest": DIGEST}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.approver)


def decide(api: Caller, approval: Approval, **said: Any) -> Any:
    return api.post(f"/approvals/{approval.approval_id}/decision", YES | said)


def state_of(approval: Approval) -> str:
    approval.refresh_from_db()
    return approval.state


@pytest.mark.mission("P10.4")
def test_an_approval_shows_exactly_what_would_be_sent(world: World, api: Caller) -> None:
    args = '{"amount":12,"to":"ad\u202emin"}'.encode()
    run, approval = waiting(world, args=args, evidence=[{"step": 1, "ord": 1, "tool": "fetch_account"}])
    got = api.get(f"/approvals/{approval.approval_id}").json()
    assert (got["run_id"], got["step_id"], got["call_id"]) == (run.run_id, 1, f"{run.run_id}.1.1")
    assert (got["tool"], got["effect"], got["agent"], got["state"]) == ("create_ticket", "write", "support-triage", "pending")
    assert got["args"] == {"amount": 12, "to": "ad\u202emin"}
    assert "\\u202e" in got["args_text"] and got["args_text"].isascii()  # nothing in it is invisible
    assert (got["digest"], got["risk"], got["why"], got["needed"], got["decisions"]) == (DIGEST, "normal", "a write", 1, [])
    assert got["evidence"] == [{"step": 1, "ord": 1, "tool": "fetch_account"}] and got["created_at"] < got["expires_at"]


def test_the_inbox_is_filtered_and_paged(world: World, api: Caller) -> None:
    pairs = [waiting(world) for _ in range(3)]
    decide(api, pairs[0][1])
    pending = [a["approval_id"] for a in api.get("/approvals?state=pending").json()["items"]]
    assert pending == [pairs[2][1].approval_id, pairs[1][1].approval_id]
    assert len(api.get("/approvals?state=pending,approved").json()["items"]) == 3
    of_run = api.get(f"/approvals?run_id={pairs[0][0].run_id}").json()["items"]
    assert [(a["state"], [d["verdict"] for d in a["decisions"]]) for a in of_run] == [("approved", ["approve"])]
    assert api.get("/approvals?tool=send_email").json()["items"] == []
    page = api.get("/approvals?limit=2").json()
    rest = api.get(f"/approvals?limit=2&cursor={page['next_cursor']}").json()
    assert len(page["items"]) == 2 and [a["approval_id"] for a in rest["items"]] == [pairs[0][1].approval_id]
    assert refusal(api.get("/approvals?run_id=7")) == (400, "bad_run_id")


@pytest.mark.mission("P10.4")
def test_a_yes_is_recorded_with_who_and_why_and_queues_the_run(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    got = decide(api, approval, reason="the account is theirs").json()
    assert got["state"] == "approved"
    said = got["decisions"][0]
    assert (said["user"], said["verdict"], said["reason"]) == (world.approver.user.username, "approve", "the account is theirs")
    run.refresh_from_db()
    assert run.state == "queued" and Call.objects.get(run_id=run.pk, ord=1).state == "ready"


def test_a_no_blocks_the_call(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    assert decide(api, approval, verdict="reject").json()["state"] == "rejected"
    assert Call.objects.get(run_id=run.pk, ord=1).state == "blocked"


def test_who_decides_comes_from_the_key_and_never_from_the_body(world: World, api: Caller) -> None:
    _, approval = waiting(world)
    for name in ("user", "decided_by", "actor"):
        assert refusal(decide(api, approval, **{name: world.second.user.username})) == (422, "validation")
    assert state_of(approval) == "pending"


@pytest.mark.parametrize("verdict", ["", "yes", "APPROVE", "approve "])
def test_an_unknown_verdict_is_refused_and_nothing_is_recorded(world: World, api: Caller, verdict: str) -> None:
    run, approval = waiting(world)
    before = kinds(run)
    answer = decide(api, approval, verdict=verdict)
    assert refusal(answer) == (422, "unknown_verdict") and answer.json()["known"] == ["approve", "reject"]
    assert state_of(approval) == "pending" and kinds(run) == before


@pytest.mark.parametrize("body", [[], None, {}, {"verdict": "approve"}, {"verdict": 1, "digest": DIGEST}, YES | {"reason": None}])
def test_a_body_of_another_form_is_refused(world: World, api: Caller, body: Any) -> None:
    _, approval = waiting(world)
    assert refusal(api.post(f"/approvals/{approval.approval_id}/decision", body)) == (422, "validation")
    assert state_of(approval) == "pending"


@pytest.mark.mission("X2")
def test_a_stale_digest_is_refused_with_the_present_one(world: World, api: Caller) -> None:
    _, approval = waiting(world)
    answer = decide(api, approval, digest="e" * 64)
    assert refusal(answer) == (409, "stale_digest") and answer.json()["digest"] == DIGEST
    assert state_of(approval) == "pending"


def test_whoever_comes_second_is_told_who_won(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    decide(api, approval)
    answer = decide(caller(world.second), approval, verdict="reject")
    assert refusal(answer) == (409, "already_decided")
    assert (answer.json()["winner"], answer.json()["verdict"]) == (world.approver.user.username, "approve")
    assert answer.json()["at"].endswith("Z") and state_of(approval) == "approved"
    assert kinds(run).count("approval_decided") == 1


def test_the_same_decision_again_is_fine_and_recorded_once(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    first, again = decide(api, approval), decide(api, approval)
    assert (first.status_code, again.status_code) == (200, 200) and first.json() == again.json()
    assert approval.decisions.count() == 1 and kinds(run).count("approval_decided") == 1
    other = decide(api, approval, verdict="reject")
    assert refusal(other) == (409, "already_decided") and other.json()["winner"] == world.approver.user.username


def test_after_its_time_nobody_decides(world: World, api: Caller) -> None:
    _, approval = waiting(world)
    make_late(approval)
    assert refusal(decide(api, approval)) == (410, "approval_expired")
    assert approval.decisions.count() == 0


@pytest.mark.mission("X4")
def test_nobody_decides_about_a_run_they_started(world: World) -> None:
    _, approval = waiting(world)
    answer = decide(caller(world.starter), approval)
    assert refusal(answer) == (403, "own_run") and "somebody else" in answer.json()["detail"]


@pytest.mark.mission("X4")
def test_a_platform_admin_does_not_decide_about_a_run_they_started(world: World) -> None:
    _, approval = waiting(world)
    world.starter.user.is_platform_admin = True
    world.starter.user.save()
    assert refusal(decide(caller(world.starter), approval)) == (403, "own_run")


@pytest.mark.mission("X4")
def test_two_people_are_two_people(world: World, api: Caller) -> None:
    run, approval = waiting(world, needed=2, effect="irreversible", risk="high")
    assert refusal(decide(caller(world.operator), approval)) == (403, "role_missing")
    assert decide(api, approval).json()["state"] == "pending"
    assert decide(api, approval).json()["state"] == "pending"
    run.refresh_from_db()
    assert run.state == "waiting_approval"
    both = decide(caller(world.second), approval).json()
    assert both["state"] == "approved" and {d["user"] for d in both["decisions"]} == {
        world.approver.user.username,
        world.second.user.username,
    }


def test_a_viewer_reads_approvals_and_decides_none(world: World) -> None:
    _, approval = waiting(world)
    viewer = caller(person(world.tenant, "vera", "viewer"))
    assert viewer.get(f"/approvals/{approval.approval_id}").status_code == 200
    assert refusal(decide(viewer, approval)) == (403, "scope_missing")


def test_arguments_that_nobody_can_check_are_refused(world: World, api: Caller) -> None:
    _, approval = waiting(world)
    answer = decide(api, approval, args={"priority": "low"})
    assert refusal(answer) == (422, "args_refused") and answer.json()["field"] == "args"
    assert state_of(approval) == "pending"


def test_an_approval_of_a_cancelled_run_needs_nobody(world: World, api: Caller) -> None:
    run, approval = waiting(world)
    api.post(f"/runs/{run.run_id}/cancel")
    assert refusal(decide(api, approval)) == (409, "approval_void")
    assert Run.objects.get(pk=run.pk).state == "cancelled"


@pytest.mark.parametrize("name", ["apr_", "agt_01M848YM8W6Q45F9JMJ64ACAY3", "apr_" + "0" * 25 + "U", "..", "apr_%00"])
def test_an_id_that_is_none_names_nothing(api: Caller, name: str) -> None:
    status, code = refusal(api.get(f"/approvals/{name}"))
    assert (status, code) in {(404, "not_found"), (400, "unstorable_text")}
