"""Whose runs an API key sees, what each scope allows, and what lists cost."""

import re
from typing import Any

import pytest

from console.api import urls as api_urls
from runs.models import Run, UnknownWrite
from runs.states import RunState
from tenants.ids import encode, new_id
from tenants.models import Tenant, User
from tests.runtime.waiting import DIGEST, World, ask, park, person, queued, running, waiting

from .callers import Caller, caller, refusal
from .test_api_runs import ORDER, a_finished_run, api, world

__all__ = ["api", "world"]


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
