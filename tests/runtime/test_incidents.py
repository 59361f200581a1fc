"""Incidents open from real rows, are one for the same trouble, and are over when it is; people work on them, and it is all written."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from approvals.models import Approval
from console import histograms, notices
from console.incidents import backtest, book, moves, settings, watch
from console.incidents.moves import Opening
from console.incidents.parameters import DetectorSpec
from console.models import Delivery, Detector, Incident, IncidentEntry
from console.runbooks import shelf
from runs import switches
from runs.models import Call, ModelDefinition, Run, UnknownWrite
from tenants import audit
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry
from tools.models import Breaker

from .happening import MINUTE, finished, model_called, only, past_calls, past_runs, tool_called
from .receiver import courier, receiving, settled, until
from .test_channels import channel
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


@pytest.fixture
def incident(world: World, now: datetime) -> Incident:
    return book.by_hand(world.operator, Opening(world.tenant.pk, "Refunds are wrong", "major", "Seen by a customer."), now)


@pytest.mark.mission("P11.3")
def test_everything_that_people_do_is_in_one_log_and_on_the_audit_trail(world: World, incident: Incident) -> None:
    actor = world.operator
    held = book.acknowledge(actor, incident)
    assert (held.state, held.owner) == ("acknowledged", actor.user)
    held = book.assign(actor, held, world.approver.user.username)
    book.note(actor, held, "It began at noon.")
    held = book.change_severity(actor, held, "critical")
    assert book.tick(actor, held, "2") and not book.tick(actor, held, "2")
    book.acted(actor, held, "disable_tool", "Disabled create_ticket.", tool="create_ticket")
    held = book.resolve(actor, held, "Rolled back.")
    held = book.reopen(actor, held)
    assert (held.state, held.reopened, held.owner, held.severity) == ("open", 1, world.approver.user, "critical")
    log = [(line.kind, line.actor.username if line.actor else None) for line in held.entries.order_by("id")]
    name = actor.user.username
    kinds = ["opened", "acknowledged", "assigned", "note", "changed", "step_ticked", "action", "resolved", "reopened"]
    assert log == [(kind, name) for kind in kinds]
    audited = AuditEntry.objects.filter(object_kind="incident", object_id=str(incident), tenant=world.tenant).order_by("id")
    actions = [entry.action.removeprefix("incident.") for entry in audited]
    assert actions == ["opened", "acknowledged", "assigned", "noted", "severity_changed", "step_ticked", "resolved", "reopened"]
    assert all("noon" not in json.dumps([entry.before, entry.after]) for entry in audited)


def test_the_log_cannot_be_changed(incident: Incident) -> None:
    with pytest.raises(Exception, match=r"append only|permission denied"), transaction.atomic():
        incident.entries.update(text="it was nothing")


def test_moves_that_are_too_late_are_refused(world: World, incident: Incident) -> None:
    book.acknowledge(world.operator, incident)
    moves_and_codes: list[tuple[Callable[[], Any], str]] = [
        (lambda: book.acknowledge(world.operator, incident), "incident_not_open"),
        (lambda: book.reopen(world.operator, incident), "incident_not_resolved"),
        (lambda: book.assign(world.operator, incident, "nobody"), "unknown_person"),
        (lambda: book.change_severity(world.operator, incident, "dire"), "bad_severity"),
        (lambda: book.note(world.operator, incident, " "), "text_missing"),
    ]
    for move, code in moves_and_codes:
        with pytest.raises(Refused) as refused:
            move()
        assert refused.value.code == code
    book.resolve(world.operator, incident)
    with pytest.raises(Refused) as refused:
        book.resolve(world.approver, incident)
    assert (refused.value.code, refused.value.status) == ("incident_resolved", 409)


def test_of_two_people_one_acknowledges(committed_db: None) -> None:
    world = make_world()
    incident = book.by_hand(world.operator, Opening(world.tenant.pk, "t", "major", ""), timezone.now())
    answers = at_once(lambda: book.acknowledge(world.operator, incident), lambda: book.acknowledge(world.approver, incident))
    assert sorted(type(one).__name__ for one in answers) == ["Incident", "Refused"]
    assert IncidentEntry.objects.filter(kind="acknowledged").count() == 1


def test_a_viewer_and_a_narrow_key_change_nothing(world: World, incident: Incident) -> None:
    viewer = person(world.tenant, "vera", "viewer")
    narrow = Actor(world.operator.user, world.tenant, "operator", frozenset({"runs:read"}))
    for actor in (viewer, narrow):
        with pytest.raises(Refused) as refused:
            book.note(actor, incident, "hello")
        assert refused.value.code == "scope_missing"


def test_one_that_is_open_again_as_another_is_not_reopened(world: World, now: datetime) -> None:
    opening = Opening(world.tenant.pk, "t", "major", "", fingerprint="tool_errors:tool=x", detector="tool_errors")
    first = moves.begin(opening, now)
    assert first is not None and moves.begin(opening, now) is None
    book.resolve(world.operator, first)
    second = moves.begin(opening, now)
    with pytest.raises(Refused) as refused:
        book.reopen(world.operator, first)
    assert refused.value.code == "incident_already_open" and refused.value.fields["incident"] == str(second)


def test_one_opened_from_a_chart_holds_what_the_chart_showed(world: World, now: datetime) -> None:
    past_calls(world, now, "tool", "create_ticket", errors=2)
    tool_called(running(world), now - MINUTE, "failed")
    opening = Opening(world.tenant.pk, "Tickets fail", "minor", "", {"tool": "create_ticket"})
    made = book.by_hand(world.operator, opening, now, "tool_errors")
    assert [point["value"] for point in made.evidence["series"]] == [0.1] * 24 and made.runs.count() == 1
    with pytest.raises(Refused, match="name it in the subject"):
        book.by_hand(world.operator, Opening(world.tenant.pk, "t", "minor", ""), now, "tool_errors")


@pytest.mark.mission("P11.3")
def test_the_evidence_names_what_changed_before_and_nothing_that_another_tenant_alone_sees(world: World, now: datetime) -> None:
    other = make_world("globex", "secret-agent")
    type(other.agent).objects.filter(pk="secret-agent").update(tenants=["globex"])
    root = person(world.tenant, "root", "admin", platform=True)
    for agent in ("support-triage", "secret-agent"):
        audit.append(root, "agent.updated", "agent", agent, None, {"live": "r2"}, tenant=None)
    audit.append(other.operator, "permission.created", "permission", "9", None, {"tool": "x"})
    only("tool_errors", minimum=2)
    failing(world, now)
    named = [(change["by"], change["id"]) for change in found(now + MINUTE).evidence["changes"]]
    assert ("root", "support-triage") in named
    assert not {"secret-agent", "9"} & {name for _, name in named}


def test_the_runbook_is_pinned_at_the_version_of_the_opening(world: World, now: datetime) -> None:
    text = "# Tools that time out\n\n## Look\n\n1. Read the errors.\n"
    shelf.put(None, "tool-timeouts", text)
    only("tool_errors", minimum=2)
    failing(world, now)
    incident = found(now)
    shelf.put(None, "tool-timeouts", text + "2. Tell somebody.\n")
    incident.refresh_from_db()
    assert (incident.runbook, incident.runbook_version) == ("tool-timeouts", 1)


# the past ---------------------------------------------------------------------------------------------------------------------


def test_a_backtest_says_what_would_have_been_opened(world: World) -> None:
    now = datetime(2026, 5, 20, 12, 30, tzinfo=UTC)
    past_runs(world, now, hours=24 * 20, n=20)
    bad = histograms.of([9] * 20)
    from console.models import RunHour

    for hours_ago, hours in ((200, 2), (100, 1), (24 * 18, 3)):  # the last is before the period
        since = now.replace(minute=0) - timedelta(hours=hours_ago)
        assert RunHour.objects.filter(hour__gte=since, hour__lt=since + timedelta(hours=hours)).update(steps=bad) == hours
    settings.ensure()
    rule = settings.rule_of(Detector.objects.get(name="steps_per_run"))
    episodes = backtest.backtest(rule, world.tenant.pk, now, 14)
    assert [(one.since, one.until) for one in episodes] == [
        (now.replace(minute=0) - timedelta(hours=100), now.replace(minute=0) - timedelta(hours=98)),
        (now.replace(minute=0) - timedelta(hours=200), now.replace(minute=0) - timedelta(hours=197)),
    ]
    told = backtest.as_json(rule, episodes, 14)
    assert told["text"] == "It would have opened 2 incidents in the last 14 days." and told["incidents"][0]["value"] == 9
    assert backtest.backtest(settings.rule_of(Detector.objects.get(name="steps_per_run"), {"threshold": 4}), None, now, 14) == []
    with pytest.raises(Refused, match="not kept by the hour"):
        backtest.backtest(settings.rule_of(Detector.objects.get(name="approvals_ageing")), None, now)


# how they are set -------------------------------------------------------------------------------------------------------------


def test_settings_are_changed_by_platform_admins_and_audited(world: World) -> None:
    root = person(world.tenant, "root", "admin", platform=True)
    given = DetectorSpec(severity="critical", parameters={"threshold": 0.5})
    row, action, fields = settings.put(root, "tool_errors", given, "too loud")
    assert (action, fields, row.parameters["threshold"], row.parameters["minimum"]) == ("update", ("severity", "parameters"), 0.5, 20)
    assert settings.put(root, "tool_errors", given)[1] == "unchanged"
    entry = AuditEntry.objects.get(object_kind="detector")
    assert entry.before and entry.after
    assert (entry.tenant, entry.before["severity"], entry.after["severity"], entry.reason) == (None, "major", "critical", "too loud")
    for actor, name, spec, code in [
        (person(world.tenant, "ada", "admin"), "tool_errors", given, "platform_admin_needed"),
        (root, "unheard_of", DetectorSpec(), "detector_invalid"),
        (root, "Bad Name", DetectorSpec(kind="tool_errors"), "detector_invalid"),
        (root, "tool_errors", DetectorSpec(kind="retry_cascade"), "kind_fixed"),
        (root, "tool_errors", DetectorSpec(runbook="none-such"), "unknown_runbook"),
        (root, "tool_errors", DetectorSpec(parameters={"threshold": -1}), "detector_invalid"),
    ]:
        with pytest.raises(Refused) as refused:
            settings.put(actor, name, spec)
        assert refused.value.code == code


# what is told -----------------------------------------------------------------------------------------------------------------


def told() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("set constraints all immediate")
    return list(Delivery.objects.order_by("id").values_list("event", flat=True))


def test_channels_are_told_when_it_opens_is_acknowledged_resolved_and_back(world: World, now: datetime) -> None:
    channel(world, events=notices.INCIDENT_EVENTS)
    incident = book.by_hand(world.operator, Opening(world.tenant.pk, "t", "major", ""), now)
    held = book.acknowledge(world.operator, incident)
    book.note(world.operator, held, "hm")
    book.reopen(world.operator, book.resolve(world.operator, held))
    assert told() == ["incident.opened", "incident.acknowledged", "incident.resolved", "incident.opened"]
    assert [row.body["again"] for row in Delivery.objects.order_by("id")] == [False, False, False, True]


def test_an_opening_that_is_taken_back_is_told_to_nobody(world: World, now: datetime) -> None:
    channel(world, events=notices.INCIDENT_EVENTS)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        book.by_hand(world.operator, Opening(world.tenant.pk, "t", "major", ""), now)
        raise ZeroDivisionError
    assert told() == []


def test_switches_are_told_to_those_who_see_what_they_name(world: World) -> None:
    other = make_world("globex", "secret-agent")
    channel(world, events=notices.SWITCH_EVENTS)
    channel(other, events=notices.SWITCH_EVENTS, name="theirs")
    type(other.agent).objects.filter(pk="secret-agent").update(tenants=["globex"])
    root = person(world.tenant, "root", "admin", platform=True)
    switches.engage(root, switches.Order("agent", "pause", "r", agent="secret-agent"))
    assert [row.tenant for row in Delivery.objects.all()] == [other.tenant]
    switch = switches.engage(root, switches.Order("all", "pause", "r", drill=True))
    switches.lift(root, switch.pk, "over")
    assert sorted(told()) == ["switch.engaged"] * 3 + ["switch.lifted"] * 2


async def test_the_notices_arrive_signed_and_say_what_and_how_bad(committed_db: None) -> None:
    async with receiving() as receiver:
        await sync_to_async(tell)(receiver)
        async with courier():
            await until(settled(2))
    said = {json.loads(body)["type"]: json.loads(body)["data"] for _, body in receiver.got}
    incident, switch = said["incident.opened"], said["switch.engaged"]
    assert incident["severity"] == "critical" and incident["title"] == "Incident: Refunds are wrong"
    assert incident["link"].endswith(f"/incidents/{incident['incident_id']}/")
    assert (switch["title"], switch["scope"], switch["by"]) == ("Kill switch on: the tenant", "tenant", "abe-acme")
    assert all(b"because" not in body for _, body in receiver.got), "reasons and notes stay at home"


def tell(receiver: Any) -> None:
    world = make_world()
    channel(world, receiver, events=[*notices.INCIDENT_EVENTS, *notices.SWITCH_EVENTS])
    book.by_hand(world.operator, Opening(world.tenant.pk, "Refunds are wrong", "critical", "because of it"), timezone.now())
    switches.engage(world.approver, switches.Order("tenant", "pause", "because", tenant=world.tenant))
