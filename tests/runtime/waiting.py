"""A tenant, its people, an agent with a live release, and runs that wait for a person. For tests of the people's side."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models.functions import Now

from approvals import gate
from approvals.models import Approval
from runs.intake import Order, submit
from runs.models import Agent, Call, Release, Run
from runs.states import CallState, RunState
from tenants.actors import Actor
from tenants.ids import new_id
from tenants.models import Member, Tenant, User

SPEC: dict[str, Any] = {
    "instructions": "Help.",
    "models": {"planner": {"model": "primary"}},
    "budget": {"max_steps": 6, "max_cost_usd": "0.08"},
    "deadlines": {"run_s": 20},
}
DIGEST = "d" * 64


@dataclass
class World:
    tenant: Tenant
    agent: Agent
    starter: Actor
    operator: Actor
    approver: Actor
    second: Actor


def person(tenant: Tenant, name: str, role: str, *, platform: bool = False) -> Actor:
    user = User.objects.create(username=name, is_platform_admin=platform)
    Member.objects.create(tenant=tenant, user=user, role=role)
    return Actor(user, tenant, role)


def make_release(agent: Agent, number: int = 1, **changes: Any) -> Release:
    return Release.objects.create(agent=agent, number=number, spec=SPEC | changes, tools={}, sha256="0" * 64)


def make_world(slug: str = "acme", agent: str = "support-triage") -> World:
    tenant = Tenant.objects.create(slug=slug)
    worker = Agent.objects.create(name=agent)
    worker.live = make_release(worker)
    worker.save()
    names = (("ann", "operator"), ("otto", "operator"), ("abe", "approver"), ("amy", "approver"))
    return World(tenant, worker, *(person(tenant, f"{name}-{slug}", role) for name, role in names))


def queued(world: World) -> Run:
    return submit(world.starter, Order(agent=world.agent.name, input="Please refund me")).run


def running(world: World) -> Run:
    run = queued(world)
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id(), fence=1)
    run.refresh_from_db()
    return run


def add_call(run: Run, ord: int = 1, **values: Any) -> Call:
    given = {"state": CallState.WAITING_APPROVAL, "effect": "write", "name": "create_ticket", "args": b"{}"} | values
    return Call.objects.create(run=run, step=1, ord=ord, tenant_id=run.tenant_id, fence=1, **given)


def ask(run: Run, ord: int = 1, **values: Any) -> Approval:
    """Through the gate, as the engine does."""
    asked: dict[str, Any] = {
        "tenant_id": run.tenant_id, "run_id": run.id, "step": 1, "ord": ord, "agent": run.agent_id, "tool": "create_ticket",
        "tool_version_id": new_id(), "effect": "write", "args": b"{}", "digest": DIGEST, "risk": "normal", "why": "a write",
        "evidence": [], "starter_id": run.starter_id, "needed": 1, "expires_s": 60,
    }  # fmt: skip
    return gate.request(**(asked | values))


def waiting(world: World, **values: Any) -> tuple[Run, Approval]:
    """A run parked for a person, with one call and its approval."""
    run = running(world)
    add_call(run)
    approval = ask(run, **values)
    park(run)
    return run, approval


def park(run: Run, state: str = RunState.WAITING_APPROVAL, **values: Any) -> None:
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, **({"waiting_since": Now()} | values))
    run.refresh_from_db()


def make_late(approval: Approval) -> None:
    Approval.objects.filter(pk=approval.pk).update(expires_at=Now() - timedelta(seconds=1))


def kinds(run: Run) -> list[str]:
    """The run's events in order. Their numbers have no gap and the run knows the last one."""
    rows = list(run.events.order_by("seq").values_list("seq", "kind"))
    run.refresh_from_db()
    assert [seq for seq, _ in rows] == list(range(1, run.seq + 1))
    return [kind for _, kind in rows]


def call_of(run: Run, ord: int = 1) -> Call:
    return Call.objects.get(run_id=run.pk, step=1, ord=ord)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def at_once(*moves: Callable[[], Any]) -> list[Any]:
    """Each move on a thread and connection of its own, started together; what each returned or raised, in order."""
    start = threading.Barrier(len(moves))
    results: list[Any] = [None] * len(moves)

    def go(place: int, move: Callable[[], Any]) -> None:
        try:
            start.wait(timeout=30)
            results[place] = move()
        except Exception as error:
            results[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=go, args=pair) for pair in enumerate(moves)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results
