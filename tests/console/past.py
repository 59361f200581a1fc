"""Runs that have ended, some time ago, and people at their browsers. For tests of the pages."""

from datetime import datetime, timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from runs.models import Call, Run
from runs.states import RunState
from tenants.actors import Actor
from tests.runtime.waiting import World, queued, running

HTMX = {"HX-Request": "true"}


def browser(actor: Actor) -> Client:
    client = Client()
    client.force_login(actor.user)
    return client


def moved(run: Run, at: datetime) -> Run:
    """The run as if it had been accepted at `at`."""
    Run.objects.filter(pk=run.pk).update(created_at=at)
    run.refresh_from_db()
    return run


def ended(world: World, ago: timedelta, outcome: str = "completed", *, seconds: float = 10, cost_micro: int = 0, **values: Any) -> Run:
    """A run that started `ago` and ended `seconds` later."""
    state = RunState.SUCCEEDED if outcome.startswith("completed") else RunState.CANCELLED if outcome == "cancelled" else RunState.FAILED
    run = running(world)
    at = timezone.now() - ago
    end = {"ended_at": at + timedelta(seconds=seconds), "cost_micro": cost_micro}
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome=outcome, **end, **values)
    return moved(run, at)


def waits(world: World, ago: timedelta) -> Run:
    return moved(queued(world), timezone.now() - ago)


def called(run: Run, ord: int = 1, name: str = "search_docs", state: str = "done", **values: Any) -> Call:
    """A call that was sent, once unless `attempt` says otherwise."""
    given = {"attempt": 1, "latency_ms": 100, "effect": "read", "ended_at": timezone.now()} | values
    if state == "unknown":
        given["effect"] = "write"
    call = Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, fence=1, name=name, state="dispatched", **given)
    Call.objects.filter(run_id=run.id, step=1, ord=ord).update(state=state)
    return call
