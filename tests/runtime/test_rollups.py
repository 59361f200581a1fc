"""Hours that are kept: the same figures as a slow count over the rows, and late ones set right."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.models import Approval, StandingGrant
from console import metrics, readings, rollups, stored_hours
from console.histograms import ERROR
from console.metric_definitions import record
from console.models import CallHour, FoldedHour, RunHour
from console.readings import Cut
from console.rollups import HOUR, hour_of
from console.watchman import Watchman
from runs.models import Call, Canary, Event, Run
from tenants.ids import SKEW, first_at, new_id
from tests.runtime.waiting import DIGEST, World, make_world

NAMES = ("search_docs", "create_ticket", "t" * 128, '=cmd|"x"\n')
CLASSES = ("timeout", "server_error", "duplicate_request", "a_class_of_tomorrow")
KINDS = ("fallback_activated", "rung_entered", "rung_missed", "policy_violated", "plan_decided", "an_event_of_tomorrow")
ENDS = {
    "succeeded": ("completed", "completed_degraded"),
    "failed": ("budget_exceeded", "step_limit", "tool_error"),
    "cancelled": ("cancelled",),
}


@pytest.fixture
def worlds(db: None) -> list[World]:
    return [make_world(), make_world("globex", "billing")]


def id_at(at: datetime) -> UUID:
    """An id as it is made at that time."""
    return UUID(int=first_at(at + SKEW).int | int.from_bytes(os.urandom(10)))


def run_at(
    world: World, at: datetime, state: str = "queued", outcome: str | None = None, seconds: float | None = None, **values: Any
) -> Run:
    assert world.agent.live is not None
    run = Run.objects.create(
        id=id_at(at), tenant=world.tenant, agent=world.agent, release=world.agent.live, deadline_at=at + HOUR, created_at=at
    )
    if state != "queued":
        Run.objects.filter(pk=run.pk).update(state="running", owner=new_id())
        end(run, state, outcome, seconds or 0, **values)
    elif values:
        Run.objects.filter(pk=run.pk).update(**values)
    return run


def end(run: Run, state: str, outcome: str | None, seconds: float, **values: Any) -> None:
    over = {"ended_at": run.created_at + timedelta(seconds=seconds), "outcome": outcome}
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, **over, **values)


def call_of(run: Run, place: int, state: str, **values: Any) -> None:
    born = state if state in ("blocked", "ready") else "dispatched"
    about = {"run": run, "tenant_id": run.tenant_id, "step": 1 + place // 4, "ord": place % 4, "fence": 1}
    Call.objects.create(**about, state=born, **values)
    if born != state:
        Call.objects.filter(run_id=run.pk, step=1 + place // 4, ord=place % 4).update(state=state)


def tell(run: Run, seq: int, kind: str, at: datetime, **payload: Any) -> None:
    Event.objects.create(run=run, seq=seq, tenant_id=run.tenant_id, kind=kind, payload=payload, at=at)


def ask(run: Run, ord: int, state: str, grant: StandingGrant | None) -> None:
    Approval.objects.create(
        tenant_id=run.tenant_id, run_id=run.pk, step=1, ord=ord, agent=run.agent_id, tool="create_ticket", effect="write", args=b"{}",
        digest=DIGEST, why="a write", state=state, expires_at=run.created_at, grant=grant,
    )  # fmt: skip


# the oracle -------------------------------------------------------------------------------------------------------------------

calls = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["done", "failed_not_applied", "unknown", "dispatched", "abandoned", "blocked", "ready"]),
        "name": st.sampled_from(NAMES),
        "attempt": st.integers(0, 3),
        "error_class": st.one_of(st.none(), st.sampled_from(CLASSES)),
        "latency_ms": st.one_of(st.none(), st.integers(-5, 90_000)),
        "effect": st.sampled_from(["read", "write"]),
        "tokens_in": st.integers(0, 9000),
        "cost_micro": st.integers(0, 10**9),
        "decision": st.sampled_from([None, {"decision": "deny"}, {"decision": "allow"}]),
    }
)
tales = st.tuples(st.sampled_from(KINDS), st.sampled_from([-5000, 0, 5000]))
retries = st.tuples(st.sampled_from(["tool", "model"]), st.sampled_from(NAMES), st.sampled_from(CLASSES))
plans = st.fixed_dictionaries(
    {
        "world": st.integers(0, 1),
        "minute": st.integers(0, 59),
        "end": st.one_of(st.none(), st.sampled_from([(state, outcome) for state, found in ENDS.items() for outcome in found])),
        "seconds": st.one_of(st.just(-3600.0), st.floats(0, 10**6)),
        "values": st.fixed_dictionaries(
            {"step": st.integers(0, 40), "writes": st.integers(0, 5), "cost_micro": st.integers(0, 10**9), "unpriced": st.booleans()}
        ),
        "calls": st.lists(calls, max_size=4),
        "events": st.lists(tales, max_size=3),
        "retries": st.lists(retries, max_size=2),
        "approvals": st.lists(
            st.tuples(st.sampled_from(["approved", "rejected", "consumed", "expired", "void"]), st.booleans()), max_size=2
        ),
    }
)


def write(worlds: list[World], hour: datetime, plan: dict[str, Any]) -> None:
    state, outcome = plan["end"] or ("queued", None)
    world = worlds[plan["world"]]
    run = run_at(world, hour + timedelta(minutes=plan["minute"]), state, outcome, plan["seconds"], **plan["values"])
    for place, values in enumerate(plan["calls"]):
        call_of(run, place, **values)
    for seq, (kind, hours) in enumerate(plan["events"], 1):
        tell(run, seq, kind, run.created_at + hours * HOUR, v=99, something="of tomorrow")
    for seq, (what, name, error) in enumerate(plan["retries"], 10):
        tell(run, seq, "retry_scheduled", run.created_at, error_type=error, **{what: name})
    by_policy = StandingGrant.objects.create(
        tenant=world.tenant, agent="a", tool="t", most=1, expires_at=hour, reason="r", created_by=world.approver.user
    )
    for ord, (state, granted) in enumerate(plan["approvals"], 1):
        ask(run, ord, state, by_policy if granted else None)


@dataclass
class Slow:
    """Every metric over the raw rows, one run after the other."""

    runs: list[Run]

    def __post_init__(self) -> None:
        self.ended = [run for run in self.runs if run.state in ENDS]
        self.calls = [c for run in self.runs for c in run.calls.all() if c.attempt and c.state in ("done", "failed_not_applied", "unknown")]
        self.tools = [call for call in self.calls if call.ord]
        self.events = [event for run in self.runs for event in run.events.all()]

    def share(self, found: Iterable[object], whole: list[Any]) -> dict[str, Any]:
        part = sum(map(bool, found))
        return {"value": round(part / len(whole), 6) if whole else None, "n": len(whole)}

    def told(self, *kinds: str) -> Iterable[object]:
        return ([event for event in run.events.all() if event.kind in kinds] for run in self.ended)

    def record(self) -> dict[str, Any]:
        states, won = Counter(run.state for run in self.ended), [run for run in self.ended if run.state == "succeeded"]
        classes = Counter(event.payload["error_type"] for event in self.events if event.kind == "retry_scheduled")
        bad = [call.state == "unknown" or call.error_class not in (None, "duplicate_request") for call in self.tools]
        paid, many = sum(run.cost_micro for run in self.ended), len(self.ended)
        return {
            "run_success_rate": self.share(won, self.ended),
            "terminal_states": {"value": {s: round(states[s] / many, 6) for s in ENDS} if many else None, "n": many},
            "steps_per_run": {"value": round(sum(run.step for run in self.ended) / many, 3) if many else None, "n": many},
            "tool_error_rate": self.share(bad, self.tools),
            "retry_rate": self.share((call.attempt > 1 for call in self.calls), self.calls)
            | {"by_class": {name: round(n / len(self.calls), 6) if self.calls else None for name, n in sorted(classes.items())}},
            "budget_exceeded_rate": self.share((run.outcome in ("budget_exceeded", "step_limit") for run in self.ended), self.ended),
            "fallback_rate": self.share(self.told("fallback_activated", "rung_entered"), self.ended),
            "cost_per_success": {
                "value": paid / len(won) / 1e6 if won else None,
                "n": len(won),
                "partial": any(r.unpriced for r in self.runs),
            },
            "policy_violation_rate": self.share(self.told("policy_violated"), self.ended),
            "duration_ms": {name: {"value": self.duration(q), "n": many} for name, q in (("p50", 0.5), ("p95", 0.95))},
        }

    def duration(self, q: float) -> float | None:
        spans = sorted(max((run.ended_at - run.created_at) / timedelta(milliseconds=1), 0.0) for run in self.ended if run.ended_at)
        return spans[max(1, math.ceil(q * len(spans))) - 1] if spans else None


def same(told: dict[str, Any], slow: dict[str, Any]) -> None:
    """Exactly, but for quantiles (their stated error) and the last digit of a price."""
    for name in ("p50", "p95"):
        mine, exact = told["duration_ms"][name], slow["duration_ms"].pop(name)
        assert mine["n"] == exact["n"]
        if exact["value"] is None or exact["value"] < 1:
            assert mine["value"] == (None if exact["value"] is None else 0)
        else:
            assert mine["value"] == pytest.approx(exact["value"], rel=ERROR, abs=0.06)
    cost, exact_cost = told["cost_per_success"].pop("value"), slow["cost_per_success"].pop("value")
    assert (cost is None) == (exact_cost is None) and (cost is None or float(cost) == pytest.approx(exact_cost, abs=2e-8))
    del told["duration_ms"], slow["duration_ms"]
    assert told == slow


@pytest.mark.mission("P8.2")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(plans, min_size=1, max_size=7))
def test_every_metric_is_what_a_slow_count_over_the_rows_says(worlds: list[World], found: list[dict[str, Any]]) -> None:
    earliest = Run.objects.order_by("created_at").values_list("created_at", flat=True).first()
    hour = hour_of(earliest or timezone.now() - 5 * HOUR) - 2 * HOUR  # of this example alone
    for plan in found:
        write(worlds, hour, plan)
    rows = list(Run.objects.filter(created_at__gte=hour, created_at__lt=hour + HOUR))
    raw = metrics.summary(Cut(), hour, hour + HOUR)[""]  # nobody has counted the hour
    rollups.fold(hour)
    assert metrics.summary(Cut(), hour, hour + HOUR)[""] == raw
    same(record(raw), Slow(rows).record())
    for world in worlds:
        mine = [run for run in rows if run.tenant_id == world.tenant.id]
        same(record(metrics.summary(world.tenant.id, hour, hour + HOUR)[""]), Slow(mine).record())
        agents = metrics.summary(Cut(), hour, hour + HOUR, "agent")
        assert (world.agent.pk in agents) is bool(mine)
    assert (
        raw.decided
        == Approval.objects.filter(run_id__in=[r.pk for r in rows], grant=None, state__in=["approved", "rejected", "consumed"]).count()
    )
    assert raw.denied == Call.objects.filter(run__in=rows, ord__gt=0, state="blocked", decision__decision="deny").count()


@pytest.mark.mission("P8.2")
def test_groups_by_tool_and_class_tell_what_is_counted_by_call_and_nothing_else(worlds: list[World]) -> None:
    at = timezone.now() - 3 * HOUR
    run = run_at(worlds[0], at, "succeeded", "completed", 1)
    call_of(run, 1, "failed_not_applied", name="search_docs", effect="read", attempt=1, error_class="timeout")
    call_of(run, 2, "done", name="create_ticket", effect="write", attempt=1)
    by_tool = metrics.summary(None, at, at + HOUR, "tool")
    assert {name: (made.tool_error_rate, made.success_rate) for name, made in by_tool.items()} == {
        "search_docs": (1.0, None), "create_ticket": (0.0, None),
    }  # fmt: skip
    [(name, made)] = metrics.summary(None, at, at + HOUR, "failure_class").items()
    assert (name, made.tool_errors, made.tool_calls) == ("timeout", 1, 2)
    assert metrics.summary(Cut(tool="create_ticket"), at, at + HOUR)[""].calls == 1
    assert metrics.summary(Cut(agent="nobody"), at, at + HOUR)[""].runs == 0


# when an hour is counted ------------------------------------------------------------------------------------------------------


def ended_of(hour: datetime) -> int:
    return sum(RunHour.objects.filter(hour=hour_of(hour)).values_list("ended", flat=True))


@pytest.mark.mission("P8.2")
def test_a_run_that_ends_hours_later_has_its_hour_counted_again(worlds: list[World]) -> None:
    at = timezone.now() - 5 * HOUR
    run = run_at(worlds[0], at)
    rollups.fold_due()
    assert ended_of(at) == 0 and FoldedHour.objects.filter(hour=hour_of(at)).exists()
    Run.objects.filter(pk=run.pk).update(state="running", owner=new_id())
    end(run, "succeeded", "completed", 5 * 3600)
    tell(run, 1, "run_completed", timezone.now())
    rollups.fold_due()
    assert ended_of(at) == 1 and RunHour.objects.count() == 1


@pytest.mark.parametrize("jump", [timedelta(days=-3), timedelta(days=3)], ids=["back", "ahead"])
def test_a_clock_that_jumps_delays_a_figure_and_spoils_none(worlds: list[World], jump: timedelta) -> None:
    at = timezone.now() - 5 * HOUR
    run = run_at(worlds[0], at)
    rollups.fold_due()
    Run.objects.filter(pk=run.pk).update(state="running", owner=new_id())
    end(run, "failed", "tool_error", 60)
    tell(run, 1, "run_completed", timezone.now() + jump)
    if jump < timedelta():  # no look finds it by its time: the turn of the hour comes once in a while
        assert hour_of(at) not in rollups.dirty(timezone.now())
        FoldedHour.objects.filter(hour=hour_of(at)).update(at=timezone.now() - 2 * HOUR)
    rollups.fold_due()
    assert ended_of(at) == 1


def test_a_look_from_the_future_hides_no_event(worlds: list[World]) -> None:
    at = timezone.now() - 5 * HOUR
    run = run_at(worlds[0], at)
    Canary.objects.create(name=rollups.LOOK, at=timezone.now() + timedelta(days=30))
    tell(run, 1, "run_accepted", timezone.now())
    assert rollups.dirty(timezone.now()) == [hour_of(at)]


def test_history_is_counted_backwards_a_bounded_number_of_hours_a_round(worlds: list[World]) -> None:
    now = timezone.now()
    run_at(worlds[0], now - 30 * HOUR)
    rollups.fold_due(10)
    hours = list(FoldedHour.objects.order_by("-hour").values_list("hour", flat=True))
    assert hours == [hour_of(now) - n * HOUR for n in range(10)]
    for _ in range(3):
        rollups.fold_due(10)
    assert FoldedHour.objects.count() == 31 and rollups.uncounted(now, 10) == []


def test_an_hour_is_replaced_whole(worlds: list[World]) -> None:
    hour = hour_of(timezone.now() - 5 * HOUR)
    run = run_at(worlds[0], hour)
    call_of(run, 1, "done", name="search_docs", effect="read", attempt=1)
    rollups.fold(hour)
    RunHour.objects.filter(hour=hour).update(agent="somebody-else", started=77)
    rollups.fold(hour)
    assert [(row.agent, row.started) for row in RunHour.objects.filter(hour=hour)] == [(worlds[0].agent.pk, 1)]
    assert CallHour.objects.filter(hour=hour).count() == 1


def test_a_recount_says_what_was_different(worlds: list[World], capsys: pytest.CaptureFixture[str]) -> None:
    hour = hour_of(timezone.now() - 5 * HOUR)
    run_at(worlds[0], hour, "succeeded", "completed", 1)
    rollups.fold(hour)
    RunHour.objects.filter(hour=hour).update(ended=9)
    asked = {"since": f"{hour:%Y-%m-%dT%H:%M:%SZ}", "until": f"{hour + HOUR:%Y-%m-%dT%H:%M:%SZ}"}
    call_command("rollups", **asked)
    said = capsys.readouterr().out
    assert "ended 9 -> 1" in said and "1 hour counted, 1 row changed." in said
    call_command("rollups", **asked)
    assert "0 rows changed" in capsys.readouterr().out
    with pytest.raises(CommandError, match="is no time with a zone"):
        call_command("rollups", since="yesterday")


# reading ----------------------------------------------------------------------------------------------------------------------


def test_the_hour_that_runs_now_is_read_from_its_runs_while_they_are_few(worlds: list[World], monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    run_at(worlds[0], hour_of(now))
    rollups.fold(now)
    FoldedHour.objects.update(at=now - timedelta(seconds=40))
    run_at(worlds[0], hour_of(now))
    few = readings.read(None, hour_of(now), hour_of(now) + HOUR)
    assert sum(row.started for row in few.runs) == 2 and few.as_of and few.as_of >= now
    monkeypatch.setattr(readings, "RAW_MOST", 1)
    many = readings.read(None, hour_of(now), hour_of(now) + HOUR)
    assert sum(row.started for row in many.runs) == 1 and many.as_of == now - timedelta(seconds=40)


def started_in(since: datetime, until: datetime) -> int:
    return sum(row.started for row in readings.read(None, since, until).runs)


def test_the_hour_that_runs_now_is_read_as_it_was_counted_last_while_that_is_fresh(worlds: list[World]) -> None:
    now = datetime.now(UTC)
    run_at(worlds[0], hour_of(now))
    rollups.fold(now)
    FoldedHour.objects.update(at=now + timedelta(minutes=5))
    run_at(worlds[0], hour_of(now))
    assert started_in(hour_of(now), hour_of(now) + HOUR) == 1


def test_an_hour_that_was_read_is_read_again_once_it_is_counted_anew(worlds: list[World]) -> None:
    hour = hour_of(timezone.now() - 5 * HOUR)
    for many in (1, 2):
        run_at(worlds[0], hour)
        rollups.fold(hour)
        assert started_in(hour, hour + HOUR) == started_in(hour, hour + HOUR) == many


def test_what_is_read_is_added_up_but_for_what_is_to_be_told_apart(worlds: list[World]) -> None:
    hour = hour_of(timezone.now() - 5 * HOUR)
    for world in (*worlds, worlds[0]):
        call_of(run_at(world, hour, "succeeded", "completed", 2), 1, "done", name="search_docs", effect="read", attempt=1)
    rollups.fold(hour)
    whole = readings.read(None, hour, hour + HOUR)
    assert [(row.started, row.states, row.agent) for row in whole.runs] == [(3, {"succeeded": 3}, "")]
    assert [(row.name, row.calls) for row in whole.calls] == [("search_docs", 3)]
    apart = readings.read(None, hour, hour + HOUR, apart=("agent",)).runs
    assert {row.agent: row.started for row in apart} == {worlds[0].agent.pk: 2, worlds[1].agent.pk: 1}


def test_a_process_remembers_a_bounded_number_of_hours() -> None:
    memory = stored_hours.Memory(2)
    memory.keep({(n,): () for n in range(2)})
    memory.of([(0,)])
    memory.keep({(2,): ()})
    assert memory.of([(0,), (1,), (2,)]).keys() == {(0,), (2,)}


def test_hours_that_are_too_many_to_count_at_once_are_told_as_uncounted(worlds: list[World], monkeypatch: pytest.MonkeyPatch) -> None:
    since = hour_of(timezone.now()) - 3 * HOUR
    for _ in range(2):
        run_at(worlds[0], since)
    monkeypatch.setattr(readings, "RAW_MOST", 1)
    assert readings.read(None, since, since + 2 * HOUR).uncounted == 2


# the watchman -----------------------------------------------------------------------------------------------------------------


def test_what_fails_on_a_round_keeps_nothing_else_from_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fails() -> None:
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        Watchman((fails, lambda: done.append("second"))).round()
    assert done == ["second"] and "fails failed and is tried again" in caplog.text


def test_a_watchman_that_is_asked_to_stop_ends_soon() -> None:
    watchman = Watchman((), every_s=600)
    watchman.start()
    watchman.stop(30)
    assert not watchman.thread.is_alive()
