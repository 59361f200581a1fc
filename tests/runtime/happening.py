"""What detectors look at, as rows: events of calls and runs at a time, and hours of the past. For tests of incidents."""

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import JSONField

from console import histograms
from console.incidents import settings
from console.incidents.parameters import DetectorSpec
from console.models import CallHour, Detector, RunHour
from console.rollups import KEYS, hour_of
from runs.models import Event, Run
from runs.states import RunState

from .waiting import World, running

numbers = itertools.count(1000)
MINUTE = timedelta(minutes=1)


def said(run: Run, kind: str, at: datetime, **payload: Any) -> None:
    Event.objects.create(run_id=run.id, seq=next(numbers), tenant_id=run.tenant_id, kind=kind, payload=payload, at=at)


def tool_called(run: Run, at: datetime, *answers: str, tool: str = "create_ticket") -> None:
    """One call for each answer: `ok`, `duplicate`, `unknown`, `failed`, or `retried` (it failed once and went well the second time)."""
    for answer in answers:
        place = {"step_id": 1, "ord": next(numbers), "tool": tool}
        said(run, "tool_call_started", at, **place)
        if answer == "retried":
            said(run, "tool_call_failed", at, **place, result="error", error_type="timeout", retryable=True)
            said(run, "retry_scheduled", at, **place)
            said(run, "tool_call_started", at, **place)
        if answer == "failed":
            said(run, "tool_call_failed", at, **place, result="error", error_type="timeout", retryable=False)
        elif answer == "unknown":
            said(run, "tool_call_failed", at, **place, result="unknown", error_type="timeout", retryable=False)
            said(run, "tool_call_unknown", at, **place, result="unknown", error_type="timeout")
        else:
            more = {"error_type": "duplicate_request"} if answer == "duplicate" else {}
            said(run, "tool_call_completed", at, **place, result="ok", **more)


def model_called(run: Run, at: datetime, *answers: str, model: str = "primary", ms: int = 400) -> None:
    for answer in answers:
        place = {"step_id": next(numbers), "ord": 0, "model": model}
        said(run, "model_call_started", at, **place)
        said(run, f"model_call_{'completed' if answer == 'ok' else 'failed'}", at, **place, latency_ms=ms)


def finished(
    world: World, at: datetime, *, steps: int = 3, cost_micro: int = 10_000, outcome: str = "completed", fell: bool = False
) -> Run:
    """A run that ended at `at`."""
    run = running(world)
    state = RunState.SUCCEEDED if outcome == "completed" else RunState.FAILED
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome=outcome, step=steps, cost_micro=cost_micro, ended_at=at)
    if fell:
        said(run, "fallback_activated", at)
    said(run, "run_completed", at)
    return run


def past_runs(world: World, now: datetime, hours: int = 24, n: int = 20, **figures: Any) -> None:
    """The same in each of the hours before this one: 3 steps and a cent, unless said otherwise."""
    given = nothing(RunHour) | {"started": n, "ended": n, "steps": histograms.of([3] * n), "cost": histograms.of([10_000] * n)} | figures
    release = world.agent.live_id
    about = {"tenant_id": world.tenant.pk, "agent": world.agent.name, "release_id": release}
    RunHour.objects.bulk_create(RunHour(hour=at, **about, **given) for at in before(now, hours))


def past_calls(world: World, now: datetime, kind: str, name: str, hours: int = 24, n: int = 20, **figures: Any) -> None:
    given = nothing(CallHour) | {"calls": n, "sends": n, "latency_ms": histograms.of([400] * n)} | figures
    about = {"tenant_id": world.tenant.pk, "agent": world.agent.name, "release_id": world.agent.live_id, "kind": kind, "name": name}
    CallHour.objects.bulk_create(CallHour(hour=at, **about, **given) for at in before(now, hours))


def nothing(model: type[RunHour | CallHour]) -> dict[str, Any]:
    """Every figure of an hour in which nothing happened."""
    fields = [field for field in model._meta.concrete_fields if field.attname not in KEYS]
    return {field.attname: {} if isinstance(field, JSONField) else 0 for field in fields}


def before(now: datetime, hours: int) -> Iterable[datetime]:
    return (hour_of(now) - timedelta(hours=n) for n in range(hours, 0, -1))


def only(kind: str, **given: Any) -> Detector:
    """The one detector that looks, with these parameters instead of its kind's."""
    settings.ensure()
    row, _, _ = settings.put(None, kind, DetectorSpec(parameters=given))
    Detector.objects.exclude(name=kind).update(enabled=False)
    return row
