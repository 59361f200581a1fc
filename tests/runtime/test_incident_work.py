"""What people do with an incident: its log, what is refused, and who is told of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.utils import timezone

from console import histograms, notices
from console.incidents import backtest, book, moves, settings
from console.incidents.moves import Opening
from console.incidents.parameters import DetectorSpec
from console.models import Delivery, Detector, Incident, IncidentEntry
from console.runbooks import shelf
from runs import switches
from tenants import audit
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry

from .happening import MINUTE, only, past_calls, past_runs, tool_called
from .receiver import courier, receiving, settled, until
from .test_channels import channel
from .test_incidents import failing, found, now, world
from .waiting import World, at_once, make_world, person, running

__all__ = ["now", "world"]
pytestmark = pytest.mark.mission("P11.1")


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
