"""A canary that the watch holds or takes back opens an incident that names it and the writes to undo."""

import pytest

from console import canary_watch, watchman
from console.incidents import actions, book, settings
from console.incidents.kinds import KINDS
from console.models import Detector, Incident
from runs import canaries, shadows
from runs.models import Rollout
from tests.console.release_world import Desk, canary, ended, make_desk, with_a_write

pytestmark = pytest.mark.mission("P12.2", "P11.1")


@pytest.fixture
def desk(db: None) -> Desk:
    return make_desk()


def bad(desk: Desk) -> None:
    ended(desk, desk.live, 60)
    ended(desk, desk.candidate, 59, steps=9)
    with_a_write(desk, desk.candidate)


def opened() -> Incident:
    return Incident.objects.get(detector="release_guard")


def test_the_watchman_looks_at_canaries_and_launches_shadows() -> None:
    assert canary_watch.round in watchman.ROUNDS and shadows.launch in watchman.ROUNDS
    assert KINDS[canary_watch.KIND].runbook == "planner-loops"


def test_a_canary_that_is_rolled_back_opens_an_incident_with_its_figures(desk: Desk) -> None:
    rollout = canary(desk)
    bad(desk)
    assert canary_watch.round() == 1
    incident = opened()
    assert incident.subject == {"agent": "support-triage", "release": desk.candidate.release_id}
    text = incident.entries.get().text
    assert f"The canary of {desk.candidate} was rolled back against r{desk.live.number}: Steps per run" in text and "60 runs" in text
    [guard] = [one for one in incident.evidence["guards"] if one["name"] == "steps"]
    assert (guard["n"], guard["verdict"]) == (60, "roll_back") and guard["confidence"] > 0.99
    assert incident.evidence["rollout"] == str(rollout)
    assert canary_watch.round() == 0 and Incident.objects.filter(detector="release_guard").count() == 1


def test_the_writes_of_the_candidate_are_undone_from_that_incident(desk: Desk) -> None:
    canary(desk)
    bad(desk)
    canary_watch.round()
    incident = book.find(desk.root, str(opened()))
    _, preview = actions.preview(desk.root, incident, "undo_writes", None)
    assert len(preview.choices) == 1
    actions.carry_out(desk.root, incident, "undo_writes", None, reason="it was wrong", typed="", value="", chosen=(preview.choices[0].key,))
    assert "Started 1 undo" in incident.entries.order_by("-id")[0].text


def test_what_was_rolled_back_just_before_a_crash_is_told_after_it(desk: Desk) -> None:
    canary(desk)
    bad(desk)
    assert len(canaries.look()) == 1  # and nobody told anybody
    assert canary_watch.round() == 1 and opened().live


def test_a_canary_that_was_held_and_then_rolled_back_is_one_incident(desk: Desk) -> None:
    canary(desk, enough=30)
    ended(desk, desk.live, 30)
    ended(desk, desk.candidate, 22)
    ended(desk, desk.candidate, 8, writes=1)
    assert canary_watch.round() == 1
    assert Rollout.objects.get().state == "held"
    ended(desk, desk.candidate, 60, steps=9)
    ended(desk, desk.live, 60)
    assert canary_watch.round() == 0
    assert [entry.kind for entry in opened().entries.order_by("id")] == ["opened", "note"]


def test_a_detector_that_is_off_opens_nothing(desk: Desk) -> None:
    canary(desk)
    bad(desk)
    settings.listed()
    Detector.objects.filter(name="release_guard").update(enabled=False)
    assert canary_watch.round() == 0 and not Incident.objects.filter(detector="release_guard").exists()
