"""Incidents and detectors over HTTP, in the configuration document and in the admin."""

from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from console import apply, document
from console.incidents import settings, watch
from console.models import Detector, Incident
from console.pages import shell
from tenants.errors import Refused
from tenants.models import AuditEntry
from tests.console.callers import Caller, caller, refusal
from tests.console.past import browser
from tests.runtime.happening import MINUTE, only, past_runs, tool_called
from tests.runtime.waiting import World, make_world, person, running

pytestmark = pytest.mark.mission("P11.1")


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.operator)


def opened(api: Caller, **more: Any) -> dict[str, Any]:
    answer = api.post("/incidents", {"title": "Refunds are wrong", **more})
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


@pytest.mark.mission("P11.3")
def test_one_is_opened_worked_on_and_resolved_over_http(world: World, api: Caller) -> None:
    made = opened(api, severity="critical", text="A customer says so.", subject={"tool": "create_ticket"}, chart="tool_errors")
    assert (made["state"], made["opened_by"], made["evidence"]["metric"]) == ("open", "otto-acme", "Error rate")
    place = f"/incidents/{made['incident_id']}"
    assert api.post(f"{place}/acknowledge").json()["owner"] == "otto-acme"
    assert api.post(f"{place}/assign", {"to": "abe-acme"}).json()["owner"] == "abe-acme"
    assert api.post(f"{place}/note", {"text": "It began at noon."}).json()["text"] == "It began at noon."
    assert api.post(f"{place}/severity", {"severity": "minor"}).json()["severity"] == "minor"
    assert api.post(f"{place}/resolve", {"text": "Rolled back."}).json()["state"] == "resolved"
    assert api.post(f"{place}/reopen", {}).json()["reopened"] == 1
    whole = api.get(place).json()
    kinds = [line["kind"] for line in whole["log"]]
    assert kinds == ["opened", "acknowledged", "assigned", "note", "changed", "resolved", "reopened"]
    assert {line["by"] for line in whole["log"]} == {"otto-acme"}


def test_the_list_is_filtered_and_shows_what_detectors_found(world: World, api: Caller, now: datetime) -> None:
    only("tool_errors", minimum=2)
    tool_called(running(world), now - MINUTE, "failed", "failed")
    watch.look(now)
    by_hand = opened(api, severity="minor")
    listed = api.get("/incidents?state=open").json()["items"]
    assert [one["detector"] for one in listed] == [None, "tool_errors"]
    for query, n in (("state=live", 2), ("state=resolved", 0), ("severity=minor", 1), ("detector=tool_errors", 1), ("limit=1", 1)):
        assert len(api.get(f"/incidents?{query}").json()["items"]) == n, query
    api.post(f"/incidents/{by_hand['incident_id']}/acknowledge")
    summary = api.get("/incidents/summary").json()
    assert (summary["opened"], summary["opened_by_detectors"], summary["live"]) == (2, 1, {"major": 1, "minor": 1})
    assert summary["mean_time_to_acknowledge_s"] >= 0 and summary["mean_time_to_resolve_s"] is None
    assert shell.live_counts(world.operator)["incidents"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/incidents?state=shut", None, 400, "bad_state"),
        ("GET", "/incidents?severity=dire", None, 422, "bad_severity"),
        ("GET", "/incidents/inc_x", None, 404, "not_found"),
        ("POST", "/incidents", {"title": " "}, 422, "title_missing"),
        ("POST", "/incidents", {"title": "t", "severity": "dire"}, 422, "bad_severity"),
        ("POST", "/incidents", {"title": "t", "subject": {"moon": "x"}}, 422, "bad_subject"),
        ("POST", "/incidents", {"title": "t", "chart": "moon"}, 422, "bad_chart"),
        ("POST", "/incidents", {"title": "t", "chart": "tool_errors"}, 422, "bad_subject"),
        ("POST", "/incidents", {"title": "t", "tenant": "globex"}, 404, "not_found"),
        ("POST", "/incidents", {}, 422, "validation"),
        ("PUT", "/detectors/tool_errors", {"parameters": {"threshold": 1}}, 403, "scope_missing"),
        ("POST", "/detectors/approvals_ageing/backtest", {}, 422, "no_history"),
        ("POST", "/detectors/none/backtest", {}, 404, "not_found"),
        ("POST", "/detectors/tool_errors/backtest", {"days": 400}, 422, "validation"),
        ("POST", "/detectors/tool_errors/backtest", {"parameters": {"threshold": -1}}, 422, "detector_invalid"),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(api: Caller, method: str, path: str, body: Any, status: int, code: str) -> None:
    assert refusal(api(method, path, body)) == (status, code)


def test_another_tenants_are_not_there(world: World, api: Caller) -> None:
    other = make_world("globex", "other-agent")
    theirs = opened(caller(other.operator))
    assert api.get("/incidents").json()["items"] == []
    for move in ("acknowledge", "resolve", "note"):
        assert refusal(api.post(f"/incidents/{theirs['incident_id']}/{move}", {"text": "x"})) == (404, "not_found")
    assert api.get("/incidents/summary").json()["opened"] == 0


def test_detectors_are_read_by_everybody_and_set_by_platform_admins(world: World, api: Caller) -> None:
    items = {one["name"]: one for one in api.get("/detectors").json()["items"]}
    assert items["tool_errors"]["parameters"]["threshold"] == 0.2 and items["steps_per_run"]["unit"] == "steps"
    root = caller(person(world.tenant, "root", "admin", platform=True))
    answer = root.put("/detectors/tool_errors", {"severity": "critical", "parameters": {"threshold": 0.5}, "reason": "too loud"})
    assert (answer.status_code, answer.json()["severity"], answer.json()["parameters"]["minimum"]) == (200, "critical", 20)
    assert root.put("/detectors/second", {"kind": "tool_errors", "tenants": ["globex"]}).status_code == 201
    assert refusal(api.get("/detectors/second")) == (404, "not_found")
    for bad in ("NaN", "Infinity", "-1"):
        raw = f'{{"parameters": {{"threshold": {bad}}}}}'
        assert root("PUT", "/detectors/tool_errors", raw=raw).status_code in (400, 422), bad
    assert Detector.objects.get(name="tool_errors").parameters["threshold"] == 0.5


def test_a_backtest_counts_what_would_have_been_opened(world: World, api: Caller, now: datetime) -> None:
    past_runs(world, now, hours=48)
    told = api.post("/detectors/steps_per_run/backtest", {"days": 14}).json()
    assert (told["count"], told["days"], told["incidents"]) == (0, 14, [])
    other = make_world("globex", "other-agent")
    past_runs(other, now, hours=10)
    past_runs(other, now, hours=0)
    loud = {"days": 1, "parameters": {"threshold": 0.5, "minimum": 1}}
    assert api.post("/detectors/steps_per_run/backtest", loud).json()["count"] == 1
    root = caller(person(world.tenant, "root", "admin", platform=True))
    assert root.post("/detectors/steps_per_run/backtest", loud).json()["count"] == 2, "of every tenant"


# the document and the admin ---------------------------------------------------------------------------------------------------


def test_the_document_sets_detectors_and_the_second_time_changes_nothing(world: World) -> None:
    given = document.load({"detectors": [{"name": "tool_errors", "enabled": False, "parameters": {"threshold": 0.4}}]})
    [change] = apply.apply(None, given)
    assert (change.kind, change.name, change.action, change.fields) == ("detector", "tool_errors", "update", ("enabled", "parameters"))
    assert [change.action for change in apply.apply(None, given)] == ["unchanged"]
    assert Detector.objects.get(name="tool_errors").enabled is False


@pytest.mark.parametrize(
    "block",
    [
        {"name": "x", "kind": "unheard_of"},
        {"name": "tool_errors", "parameters": {"threshold": -1}},
        {"name": "tool_errors", "parameters": {"treshold": 1}},
        {"name": "tool_errors", "severity": "dire"},
        {"name": "tool_errors", "parameters": {"threshold": float("nan")}},
    ],
)
def test_a_document_with_a_bad_detector_is_refused_whole(world: World, block: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        apply.apply(None, document.load({"detectors": [block]}))
    assert refused.value.code in ("detector_invalid", "bad_document")


def test_a_platform_admin_sets_a_detector_in_the_admin_and_nobody_else_sees_it(world: World) -> None:
    settings.ensure()
    root = person(world.tenant, "root", "admin", platform=True)
    type(root.user).objects.filter(pk__in=[root.user.pk, world.approver.user.pk]).update(is_staff=True)
    place, form = "/admin/console/detector/tool_errors/change/", {"enabled": "on", "severity": "minor", "runbook": "", "tenants": ""}
    client = browser(root)
    for wrong in ('{"threshold": -1}', '{"threshold": NaN}', "[1]"):
        answer = client.post(place, form | {"parameters": wrong})
        assert answer.status_code == 200 and Detector.objects.get(name="tool_errors").severity == "major", wrong
    answer = client.post(place, form | {"parameters": '{"threshold": 0.3}', "reason": "calmer"})
    assert answer.status_code == 302, answer.content.decode()[-3000:]
    row = Detector.objects.get(name="tool_errors")
    assert (row.severity, row.parameters["threshold"], row.parameters["minimum"]) == ("minor", 0.3, 20)
    assert AuditEntry.objects.get(object_kind="detector", action="detector.updated").reason == "calmer"
    assert browser(world.approver).get(place).status_code in (302, 403)


def test_incidents_are_counted_by_tenant_for_the_sidebar(world: World, api: Caller) -> None:
    opened(api)
    other = make_world("globex", "other-agent")
    Incident.objects.create(tenant=None, title="t", severity="major")
    root = person(world.tenant, "root", "admin", platform=True)
    assert [shell.live_counts(one)["incidents"] for one in (world.operator, other.operator, root)] == [1, 0, 2]
