"""Incidents open from real rows, are one for the same trouble, and are over when it is; people work on them, and it is all written."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from approvals.models import Approval
from console.incidents import book, watch
from console.models import Detector, Incident, IncidentEntry
from runs.models import Call, ModelDefinition, Run, UnknownWrite
from tenants.errors import Refused
from tools.models import Breaker

from .happening import MINUTE, finished, model_called, only, past_calls, past_runs, tool_called
from .waiting import World, at_once, make_world, person, queued, running, waiting

pytestmark = pytest.mark.mission("P11.1")


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def found(now: datetime) -> Incident:
    """The one that a look opens."""
    [incident] = watch.look(now).opened
    incident.refresh_from_db()
    return incident


# what opens one ---------------------------------------------------------------------------------------------------------------


def test_a_tool_that_fails_too_often_opens_one_with_its_evidence(world: World, now: datetime) -> None:
    only("tool_errors", minimum=5)
    run, other = running(world), running(world)
    tool_called(run, now - MINUTE, "failed", "failed", "unknown", "ok", "ok", "retried", "duplicate")
    tool_called(other, now - MINUTE, "failed", "ok")
    tool_called(other, now - MINUTE, *["ok"] * 9, tool="search_docs")
    incident = found(now)
    assert (incident.tenant, incident.subject, incident.state) == (world.tenant, {"tool": "create_ticket"}, "open")
    assert incident.title == "create_ticket fails too often" and incident.value == pytest.approx(4 / 9)
    assert incident.evidence["window"]["n"] == 9 and incident.evidence["threshold"] == 0.2 and incident.evidence["unit"] == "share"
    assert incident.evidence["runs"][0]["run_id"] == run.run_id, "the worst first"
    assert [one.run_id for one in incident.runs.order_by("-value")] == [run.id, other.id]
    [line] = incident.entries.all()
    assert (line.kind, line.actor) == ("opened", None) and "44% of 9 in the last 10 minutes" in line.text


@pytest.mark.parametrize(
    ("kind", "bad", "value"),
    [
        ("steps_per_run", {"steps": 9}, 9),
        ("cost_per_run", {"cost_micro": 25_000}, 0.025),
        ("fallback_rate", {"fell": True}, 1),
        ("budget_exceeded", {"outcome": "budget_exceeded"}, 1),
    ],
)
def test_runs_that_are_unlike_those_of_the_last_days_open_one(
    world: World, now: datetime, kind: str, bad: dict[str, Any], value: float
) -> None:
    only(kind, minimum=3)
    past_runs(world, now)
    for _ in range(3):
        finished(world, now - MINUTE)
    assert watch.look(now).opened == []
    runs = [finished(world, now - MINUTE, **bad) for _ in range(12)]
    incident = found(now)
    if kind in ("steps_per_run", "cost_per_run"):
        assert incident.value == pytest.approx(value)
    assert incident.subject == {"agent": "support-triage"} and incident.evidence["baseline"]["hours"] in (23, 24)
    assert {one["run_id"] for one in incident.evidence["runs"]} <= {run.run_id for run in runs}
    assert len(incident.evidence["series"]) == 24 and len(incident.evidence["runs"]) == 10


def test_what_only_rehearses_is_neither_measured_nor_among_the_runs_that_it_touched(world: World, now: datetime) -> None:
    only("steps_per_run", minimum=3)
    past_runs(world, now)
    rehearsed = [finished(world, now - MINUTE, steps=30) for _ in range(3)]
    Run.objects.filter(pk__in=[run.pk for run in rehearsed]).update(mode="shadow")
    assert watch.look(now).opened == []
    runs = [finished(world, now - MINUTE, steps=9) for _ in range(3)]
    assert {one.run_id for one in found(now).runs.all()} == {run.pk for run in runs}


def test_its_chart_goes_on_until_it_is_over(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2, hold_minutes=0)
    tool_called(running(world), now - MINUTE, "failed", "failed")
    incident = found(now)
    tool_called(running(world), now, *["ok"] * 6)
    watch.look(now + MINUTE)
    tool_called(running(world), now + MINUTE, *["ok"] * 12)
    watch.look(now + 2 * MINUTE)
    incident.refresh_from_db()
    assert incident.state == "resolved" and [point["value"] for point in incident.evidence["since"]] == [0.25, 0.1]


def test_the_same_write_made_twice_opens_one(world: World, now: datetime) -> None:
    only("duplicate_writes")
    made: dict[str, Any] = {"name": "create_ticket", "effect": "write", "attempt": 1}
    first, second = running(world), running(world)
    for run, args in ((first, b'{"a":1}'), (second, b'{"a":2}')):
        applied(run, args, now, **made)
    assert watch.look(now).opened == []
    applied(second, b'{"a":1}', now, ord=2, **made)
    incident = found(now)
    assert (incident.severity, incident.value) == ("critical", 1)
    assert {one.run_id for one in incident.runs.all()} == {first.id, second.id}


def applied(run: Any, args: bytes, now: datetime, ord: int = 1, **made: Any) -> None:
    Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, fence=1, state="dispatched", args=args,
                        dispatched_at=now - MINUTE, **made)  # fmt: skip
    Call.objects.filter(run_id=run.id, step=1, ord=ord).update(state="done")


def test_answers_that_it_is_made_already_above_the_usual_open_one(world: World, now: datetime) -> None:
    only("duplicate_answers", minimum=4)
    past_calls(world, now, "tool", "create_ticket", classes={"duplicate_request": 1})
    tool_called(running(world), now - MINUTE, "duplicate", "duplicate", "ok", "ok")
    assert found(now).value == 0.5


def test_calls_that_are_sent_again_and_again_open_one(world: World, now: datetime) -> None:
    only("retry_cascade", minimum=3)
    run = running(world)
    tool_called(run, now - MINUTE, "retried", "retried", "retried")
    incident = found(now)
    assert incident.value == 2 and [one.value for one in incident.runs.all()] == [3]


def test_a_write_whose_outcome_is_unknown_opens_one(world: World, now: datetime) -> None:
    only("unknown_outcomes")
    run = running(world)
    UnknownWrite.objects.create(tenant=world.tenant, run_id=run.id, step=1, ord=1, tool="send_email", opened_at=now - MINUTE)
    assert found(now).subject == {"tool": "send_email"}


def test_an_approval_that_waits_too_long_opens_one(world: World, now: datetime) -> None:
    only("approvals_ageing", threshold=30)
    run, approval = waiting(world, expires_s=86_400)
    assert watch.look(now).opened == []
    Approval.objects.filter(pk=approval.pk).update(created_at=now - 31 * MINUTE)
    incident = found(now)
    assert incident.subject == {} and incident.runs.get().run_id == run.id


def test_a_model_whose_calls_fail_opens_one_and_so_does_its_open_breaker(world: World, now: datetime) -> None:
    only("provider_degraded", minimum=4)
    model_called(running(world), now - MINUTE, "failed", "failed", "ok", "ok")
    assert found(now).value == 0.5
    ModelDefinition.objects.create(name="spare", provider="openai", base_url="http://127.0.0.1:9/v1", model="m")
    Breaker.objects.create(tenant=world.tenant, host_port="127.0.0.1:9", state="open")
    incident = found(now)
    assert incident.subject == {"model": "spare"} and "The breaker of 127.0.0.1:9 is open." in incident.evidence["sentence"]


def test_a_model_that_is_slower_than_usual_opens_one(world: World, now: datetime) -> None:
    only("provider_slow", minimum=3)
    past_calls(world, now, "model", "primary")
    model_called(running(world), now - MINUTE, "ok", "ok", "ok", ms=2000)
    assert found(now).value == 2000


def test_a_chain_that_does_not_verify_opens_one_of_the_platform(world: World, now: datetime) -> None:
    from tenants.chain import PLATFORM
    from tenants.models import AuditVerified

    only("audit_chain")
    AuditVerified.objects.create(chain=PLATFORM, seq=1, at=now, problem={"chain": str(PLATFORM), "why": "x"}, walked_hash=bytes(32))
    incident = found(now)
    assert incident.tenant is None and "Broken: platform." in incident.entries.get().text
    root = person(world.tenant, "root", "admin", platform=True)
    assert book.visible(root).get() == incident and not book.visible(world.approver).exists()


def test_a_release_under_watch_is_opened_from_outside_and_once(world: World, now: datetime) -> None:
    run = queued(world)
    subject = {"release": "rel_1", "agent": "support-triage"}
    values: dict[str, Any] = {"value": 0.4, "threshold": 0.2, "runs": [(run.id, 1.0)], "now": now}
    opened = watch.open_for(world.tenant.pk, "release_guard", subject, "Failures: 40% against 10%.", **values)
    assert opened is not None and opened.title == "support-triage is worse than its baseline"
    assert watch.open_for(world.tenant.pk, "release_guard", subject, "Failures: 45%.", **values) is None
    Detector.objects.filter(name="release_guard").update(enabled=False)
    assert watch.open_for(world.tenant.pk, "release_guard", {"release": "rel_2"}, "x", **values) is None


def test_calls_that_were_never_sent_and_those_before_the_window_do_not_count(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2)
    run = running(world)
    from .happening import said

    for n in range(5):
        said(run, "tool_call_failed", now - MINUTE, tool="t", ord=n, result="error", retryable=False, data={"sent": False})
    tool_called(run, now - 11 * MINUTE, "failed", "failed", "failed")
    assert watch.look(now).opened == []


# one for the same trouble -----------------------------------------------------------------------------------------------------


def failing(world: World, at: datetime, n: int = 6) -> None:
    tool_called(running(world), at, *["failed"] * n)


def test_the_same_trouble_is_one_incident_and_its_log_says_when_it_gets_worse(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2)
    tool_called(running(world), now - MINUTE, "failed", "ok", "ok")
    incident = found(now)
    assert watch.look(now + MINUTE / 4).opened == []
    failing(world, now)
    assert watch.look(now + MINUTE).opened == []
    incident.refresh_from_db()
    assert incident.value == incident.worst == pytest.approx(7 / 9) and incident.seen_at == now + MINUTE
    assert [line.kind for line in incident.entries.order_by("id")] == ["opened", "value"]


def test_it_is_over_only_when_it_stayed_well_below_the_line_for_a_while(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2, hold_minutes=10)
    failing(world, now)
    incident = found(now)
    later = now + 11 * MINUTE
    assert watch.look(later).resolved == 0
    tool_called(running(world), later, "failed", "ok", "ok", "ok", "ok", "ok")  # 17 %: below the line, not well below
    assert watch.look(later + MINUTE).resolved == 0
    incident.refresh_from_db()
    assert incident.clear_since is None, "the clock of its calm begins anew"
    calm = later + 12 * MINUTE
    assert [watch.look(calm).resolved, watch.look(calm + 9 * MINUTE).resolved, watch.look(calm + 10 * MINUTE).resolved] == [0, 0, 1]
    incident.refresh_from_db()
    assert (incident.state, incident.resolved_by, incident.resolved_at) == ("resolved", None, calm + 10 * MINUTE)


def test_what_comes_back_within_a_day_is_the_same_incident_and_later_a_new_one(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2, hold_minutes=0)
    failing(world, now)
    incident = found(now)
    assert watch.look(now + timedelta(hours=1)).resolved == 1
    failing(world, now + timedelta(hours=2))
    look = watch.look(now + timedelta(hours=2))
    assert (look.opened, look.reopened) == ([], 1)
    incident.refresh_from_db()
    assert (incident.state, incident.reopened, incident.resolved_at) == ("open", 1, None)
    assert watch.look(now + timedelta(hours=3)).resolved == 1
    failing(world, now + timedelta(hours=28))
    assert found(now + timedelta(hours=28)).pk != incident.pk


def test_what_a_person_resolved_stays_so_while_the_window_still_sees_what_was_before(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2, window_minutes=10)
    failing(world, now)
    incident = found(now)
    book.resolve(world.operator, incident, "The address was wrong.")
    Incident.objects.update(resolved_at=now + MINUTE)
    look = watch.look(now + 2 * MINUTE)
    assert (look.opened, look.reopened) == ([], 0)
    failing(world, now + 12 * MINUTE)
    assert found(now + 12 * MINUTE).pk != incident.pk, "a person said that the first one is over"


def test_two_watchers_at_once_open_one_incident(committed_db: None) -> None:
    world, now = make_world(), timezone.now()
    only("tool_errors", minimum=2)
    failing(world, now)
    looks = at_once(*[lambda: watch.look(now)] * 4)
    assert sorted(len(look.opened) for look in looks) == [0, 0, 0, 1], looks
    assert Incident.objects.count() == IncidentEntry.objects.count() == 1


def test_the_database_itself_holds_that_there_is_one(world: World) -> None:
    values = {"tenant": None, "fingerprint": "audit_chain:*", "title": "t", "severity": "major"}
    Incident.objects.create(**values)
    with pytest.raises(IntegrityError), transaction.atomic():
        Incident.objects.create(**values)


def test_a_tenants_trouble_is_its_own_and_a_detector_looks_where_it_is_told_to(world: World, now: datetime) -> None:
    other = make_world("globex", "other-agent")
    only("tool_errors", minimum=2)
    failing(world, now)
    failing(other, now)
    assert {one.tenant_id for one in watch.look(now).opened} == {world.tenant.pk, other.tenant.pk}
    assert [one.tenant for one in book.visible(world.operator)] == [world.tenant]
    with pytest.raises(Refused, match="no such incident"):
        book.find(world.operator, str(Incident.objects.get(tenant=other.tenant)))
    Detector.objects.filter(name="tool_errors").update(tenants=["globex"])
    Incident.objects.all().update(state="resolved", resolved_by=world.operator.user, resolved_at=now - timedelta(days=1))
    assert [one.tenant_id for one in watch.look(now).opened] == [other.tenant.pk]


def test_a_detector_that_is_set_wrongly_keeps_no_other_from_its_turn(world: World, now: datetime) -> None:
    only("tool_errors", minimum=2)
    Detector.objects.create(name="a-broken-one", kind="tool_errors", parameters={"threshold": "NaN"})
    failing(world, now)
    assert [one.detector for one in watch.look(now).opened] == ["tool_errors"]


# by people --------------------------------------------------------------------------------------------------------------------
