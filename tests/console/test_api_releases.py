"""How releases go out, over HTTP."""

from typing import Any

import pytest

from runs import canaries, releases, stages
from runs.models import Agent, Rollout, Run
from tenants.models import AuditEntry
from tests.runtime.waiting import make_world, person

from .callers import Caller, caller, refusal
from .release_world import Desk, accepted, canary, ended, make_desk, with_a_write

pytestmark = pytest.mark.mission("P12.1", "P12.2")


@pytest.fixture
def desk(db: None) -> Desk:
    return make_desk()


@pytest.fixture
def api(desk: Desk) -> Caller:
    return caller(desk.root)


def path(release: Any, rest: str = "") -> str:
    return f"/releases/{release.release_id}{rest}"


def test_a_release_is_read_with_its_pins_its_stage_and_its_rollouts(desk: Desk, api: Caller) -> None:
    made = canary(desk)
    told = api.get(path(desk.candidate)).json()
    assert (told["stage"], told["objection"]) == ("canary", "its canary was not looked at yet")
    assert told["tool_versions"] == {"create_ticket": 1, "search_docs": 1} and told["release"]["instructions"] == "Three."
    [rollout] = told["rollouts"]
    assert (rollout["rollout_id"], rollout["share"], rollout["steps"], rollout["state"]) == (str(made), 0.5, [0.5, 1.0], "running")
    listed = api.get("/agents/support-triage/releases").json()["items"]
    assert [one["stage"] for one in listed][:2] == ["canary", "live"]
    assert api.get("/rollouts").json()["items"] == [api.get(f"/rollouts/{made}").json()] == [rollout]


def test_a_shadow_and_a_canary_are_started_and_moved(desk: Desk, api: Caller) -> None:
    shadow = api.post(path(desk.candidate, "/shadow"), {"share": 0.2, "reads": "recorded", "max_cost_usd": "2.5", "reason": "look"})
    assert shadow.status_code == 201 and (shadow.json()["reads"], shadow.json()["max_cost_usd"]) == ("recorded", "2.5")
    assert refusal(api.post(path(desk.candidate, "/shadow"), {"share": 0.2})) == (409, "rollout_open")
    made = api.post(path(desk.candidate, "/canary"), {"steps": [0.1, 0.4], "key": "session", "enough": 50}).json()
    assert (made["share"], made["key"], made["enough"]) == (0.1, "session", 50)
    here = f"/rollouts/{made['rollout_id']}"
    assert api.post(f"{here}/hold", {"reason": "wait"}).json()["state"] == "held"
    assert refusal(api.post(f"{here}/hold", {})) == (409, "rollout_moved")
    assert api.post(f"{here}/resume", {}).json()["state"] == "running"
    assert api.post(f"{here}/share", {"share": 0.4}).json()["share"] == 0.4
    assert api.post(f"{here}/end", {}).json()["state"] == "ended"
    assert refusal(api.post(f"{here}/share", {"share": 1})) == (409, "rollout_moved")
    assert AuditEntry.objects.filter(action="release.canary_ended").count() == 1


@pytest.mark.parametrize(
    ("verb", "body", "code"),
    [
        ("shadow", {}, "validation"),
        ("shadow", {"share": 2}, "validation"),
        ("shadow", {"share": 0.1, "reads": "some"}, "validation"),
        ("canary", {"steps": [0.5, 0.2]}, "bad_share"),
        ("canary", {"key": "moon"}, "validation"),
        ("canary", {"enough": 1}, "validation"),
        ("rollback", {"in_flight": "burn"}, "validation"),
        ("promote", {"overide": True}, "validation"),
        ("undo", {"calls": [], "reason": "x"}, "validation"),
        ("undo", {"calls": ["x"] * 201, "reason": "x"}, "validation"),
        ("undo", {"calls": ["x"]}, "validation"),
    ],
)
def test_what_no_rollout_can_be_is_refused(desk: Desk, api: Caller, verb: str, body: Any, code: str) -> None:
    assert refusal(api.post(path(desk.candidate, f"/{verb}"), body)) == (422, code)
    assert not Rollout.objects.exists()


def test_promotion_is_refused_with_its_reason_and_two_people_overrule_it(desk: Desk, api: Caller) -> None:
    canary(desk, enough=200)
    ended(desk, desk.candidate, 143)
    canaries.look()
    refused = api.post(path(desk.candidate, "/promote"), {"reason": "go"})
    assert refusal(refused) == (409, "promotion_refused") and refused.json()["why"].startswith("needs 200 runs")
    said = {"override": True, "reason": "a word in the prompt"}
    assert refusal(api.post(path(desk.candidate, "/promote"), said)) == (409, "override_needs_second")
    assert refusal(caller(desk.second).post(path(desk.candidate, "/promote"), {"override": True})) == (422, "reason_missing")
    assert caller(desk.second).post(path(desk.candidate, "/promote"), said).json()["live"]["release_id"] == desk.candidate.release_id


def test_a_rollback_may_stop_what_is_in_flight(desk: Desk, api: Caller) -> None:
    [run] = accepted(desk, desk.live, 1)
    told = api.post(path(desk.live, "/rollback"), {"in_flight": "stop", "reason": "it loops"}).json()
    assert told["live"]["release_id"] == desk.first.release_id
    assert run.run_id in told["stopped"] and Run.objects.get(pk=run.pk).state == "cancelled"


def test_rolling_a_canary_back_leaves_the_live_release(desk: Desk, api: Caller) -> None:
    canary(desk)
    told = api.post(path(desk.candidate, "/rollback"), {}).json()
    assert told["live"]["release_id"] == desk.live.release_id and Rollout.objects.get().state == "rolled_back"
    assert api.get(path(desk.candidate)).json()["stage"] == "rolled_back"


def test_the_writes_of_a_release_are_listed_and_the_chosen_undone(desk: Desk, api: Caller) -> None:
    canary(desk)
    run, other = with_a_write(desk, desk.candidate), with_a_write(desk, desk.candidate)
    rows = api.get(path(desk.candidate, "/writes")).json()["items"]
    assert [row["call_id"] for row in rows] == [f"{other.run_id}.1.1", f"{run.run_id}.1.1"]
    assert rows[0]["tool"] == "create_ticket" and rows[0]["compensation"]["available"] and len(rows[0]["args_sha256"]) == 64
    page = api.get(path(desk.candidate, "/writes?limit=1")).json()
    assert [row["call_id"] for row in api.get(path(desk.candidate, f"/writes?cursor={page['next_cursor']}")).json()["items"]] == [
        f"{run.run_id}.1.1"
    ]
    chosen = [f"{run.run_id}.1.1", f"{run.run_id}.9.9", "nonsense"]
    answer = api.post(path(desk.candidate, "/undo"), {"calls": chosen, "reason": "it was wrong"})
    assert answer.status_code == 202
    assert [(one["call_id"], one["code"]) for one in answer.json()["items"]] == list(
        zip(chosen, [None, "not_found", "not_found"], strict=True)
    )
    again = api.post(path(desk.candidate, "/undo"), {"calls": chosen[:1], "reason": "again"}).json()["items"]
    assert again[0]["code"] == "undo_under_way"
    states = {row["call_id"]: row["compensation"]["why"] for row in api.get(path(desk.candidate, "/writes")).json()["items"]}
    assert states == {f"{run.run_id}.1.1": "undo_under_way", f"{other.run_id}.1.1": None}


def test_a_write_of_another_release_is_not_undone_as_one_of_this(desk: Desk, api: Caller) -> None:
    run = with_a_write(desk, desk.live)
    answer = api.post(path(desk.candidate, "/undo"), {"calls": [f"{run.run_id}.1.1"], "reason": "x"}).json()
    assert answer["items"][0]["code"] == "not_found"
    assert refusal(api.get(path(desk.live, "/writes?cursor=agt_x.1"))) == (400, "bad_cursor")


def test_two_releases_are_told_apart(desk: Desk, api: Caller) -> None:
    told = api.get(path(desk.live, f"/diff/{desk.candidate.release_id}")).json()
    assert not told["same"] and [part["what"] for part in told["instructions"]] == ["del", "ins"] and told["tools"] == []
    assert api.get(path(desk.live, f"/diff/{desk.live.release_id}")).json()["same"]
    assert refusal(api.get(path(desk.live, "/diff/rel_x"))) == (404, "not_found")


def test_figures_of_every_tenant_are_not_told_to_one_of_them(desk: Desk) -> None:
    made = canary(desk, enough=200)
    ended(desk, desk.candidate, 143)
    canaries.look()
    mine = caller(desk.admin)
    assert mine.get(f"/rollouts/{made}").json()["verdict"] == {"verdict": "wait"}
    assert mine.get(path(desk.candidate)).json()["objection"] is None
    Agent.objects.update(tenants=[desk.world.tenant.slug])
    assert mine.get(f"/rollouts/{made}").json()["verdict"]["has"] == 143


def test_another_tenant_sees_neither_the_release_nor_what_it_wrote(desk: Desk) -> None:
    made = canary(desk)
    with_a_write(desk, desk.candidate)
    stranger = caller(person(make_world("globex", "other").tenant, "gus", "admin"))
    assert stranger.get(path(desk.candidate, "/writes")).json()["items"] == []
    Agent.objects.filter(pk="support-triage").update(tenants=[desk.world.tenant.slug])
    for there in (path(desk.candidate), path(desk.candidate, "/writes"), f"/rollouts/{made}", "/agents/support-triage/releases"):
        assert refusal(stranger.get(there)) == (404, "not_found")


@pytest.mark.parametrize("verb", ["shadow", "canary", "promote", "rollback"])
def test_releases_are_moved_by_platform_admins_only(desk: Desk, verb: str) -> None:
    body = {"share": 0.1} if verb == "shadow" else {}
    assert refusal(caller(desk.admin).post(path(desk.candidate, f"/{verb}"), body)) == (403, "platform_admin_needed")
    assert refusal(caller(desk.world.operator).post(path(desk.candidate, f"/{verb}"), body)) == (403, "scope_missing")
    assert not Rollout.objects.exists() and releases.history("support-triage")[-1] == desk.live.id
    assert not stages.open_ones("support-triage").exists()


def test_runs_are_listed_by_mode(desk: Desk, api: Caller) -> None:
    [real], [shadow] = ended(desk, desk.live, 1), ended(desk, desk.live, 1, mode="shadow")
    assert [run["run_id"] for run in api.get("/runs?mode=shadow,eval").json()["items"]] == [shadow.run_id]
    assert real.run_id in [run["run_id"] for run in api.get("/runs?mode=normal").json()["items"]]
