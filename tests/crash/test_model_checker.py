"""Every state of the small model: nothing is done twice, nothing is done unasked, everything can end. And each guard is needed for it."""

import dataclasses
import os

import pytest

from runs import states
from runs.states import CallState, RunState

from .model_checker import Faults, Guards, Report, explore

NO_FAULTS = Faults(0, 0, 0, 0, 0, 0)
SCENARIOS = [Faults(crashes=1, lapses=0), Faults(crashes=0, changes=0, revocations=0), Faults(1, 1, 0, 0, 0, 0)]
LONG = [Faults(losses=0), Faults(1, 1, 1, 0, 0, 0)]
TWICE, RACED = "applied twice", "taken over while"
# guard -> the faults that make it necessary, and what happens without it
NEEDED = {
    "fence": (NO_FAULTS._replace(lapses=1), "a stale engine's entry was written"),
    "entry": (NO_FAULTS._replace(losses=1), "an entry was written twice"),
    "intent": (NO_FAULTS, "sent without a committed intent"),
    "rev": (NO_FAULTS._replace(changes=1), "sent after it was denied"),
    "cancel": (NO_FAULTS._replace(cancels=1), "sent after a cancel was asked for"),
    "consume": (NO_FAULTS, "sent under an approval that is approved"),
    "lease_check": (NO_FAULTS._replace(lapses=1), RACED),
    "lease_kept": (NO_FAULTS._replace(lapses=1), TWICE),
    "hold": (NO_FAULTS._replace(lapses=1), RACED),
    "unknown": (NO_FAULTS._replace(crashes=1), TWICE),
    "stable_key": (NO_FAULTS._replace(crashes=1), TWICE),
    "run_lock": (NO_FAULTS._replace(cancels=1), "sent without a committed intent"),
    "quiescence": (NO_FAULTS._replace(crashes=1), TWICE),
    "this_send": (NO_FAULTS._replace(lapses=1, crashes=1), TWICE),
    "orphans": (NO_FAULTS._replace(lapses=1), "can never end"),
}


def told(report: Report) -> str:
    return f"{report.violation or 'nothing'} after {len(report.trace)} moves: {' > '.join(report.trace)}"


@pytest.mark.mission("P3.5")
def test_no_state_of_the_protocol_violates_anything_and_every_one_can_end() -> None:
    scenarios = SCENARIOS + (LONG if os.environ.get("CHAOS") else [])
    reports = [explore(Guards(), faults) for faults in scenarios]
    for faults, report in zip(scenarios, reports, strict=True):
        print(f"{report.states:,} states, {report.moves:,} moves, {report.seconds:.1f} s: {faults}")
        assert not report.violation, told(report)
    assert sum(report.states for report in reports) >= 100_000
    reached = frozenset().union(*(report.ends for report in reports))
    assert {RunState.SUCCEEDED, RunState.CANCELLED, RunState.WAITING_APPROVAL, RunState.NEEDS_RECONCILIATION} <= reached


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize("guard", [field.name for field in dataclasses.fields(Guards)])
def test_without_this_guard_there_is_a_counterexample(guard: str) -> None:
    faults, expected = NEEDED[guard]
    assert not explore(Guards(), faults).violation
    report = explore(dataclasses.replace(Guards(), **{guard: False}), faults)
    print(f"without {guard}: {told(report)}")
    assert expected in report.violation


@pytest.mark.parametrize(
    ("table", "target", "source"),
    [
        (states.CALL, CallState.UNKNOWN, CallState.DISPATCHED),
        (states.CALL, CallState.DISPATCHED, CallState.FAILED_NOT_APPLIED),
        (states.RUN, RunState.QUEUED, RunState.NEEDS_RECONCILIATION),
        (states.RUN, RunState.WAITING_APPROVAL, RunState.RUNNING),
    ],
)
def test_the_model_moves_by_the_same_tables_as_the_database(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, tuple[str, ...]], target: str, source: str
) -> None:
    """A move that the tables lose is missed by the model as well."""
    monkeypatch.setitem(table, target, tuple(one for one in table[target] if one != source))
    report = explore(Guards(), NO_FAULTS._replace(crashes=1))
    assert "illegal move" in report.violation
