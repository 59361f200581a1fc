"""Who may not decide, tried over every surface a person has, and what ten thousand waiting requests cost. Long forms under CHAOS=1."""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.db.models import Model
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from approvals import delegations, gate
from approvals.digest import FIELDS, digest
from approvals.models import Approval
from runs.engine.engine import sweep
from runs.engine.statements import CLAIM
from runs.models import Call, Run, RunInput
from runs.states import RunState
from tenants.actors import Actor
from tenants.ids import new_id
from tenants.models import Tenant
from tests.console.callers import caller
from tests.console.past import browser
from tests.runtime import waiting
from tests.runtime.world import TICKET, World, call
from tools import catalog
from tools.models import ToolVersion
from tools.spec import ToolSpec

from .approving import ARGUMENTS, drive, letter, stop
from .figures import figure
from .test_chaos import size

State = Approval.State
Row = TypeVar("Row", bound=Model)


# who may not say it ---------------------------------------------------------------------------------------------------------------


class Office:
    """One tenant's people and its requests, asked over every surface a person has."""

    def __init__(self) -> None:
        self.world = w = waiting.make_world()
        self.boss = waiting.person(w.tenant, "boss", "admin")
        self.stranger = waiting.person(Tenant.objects.create(slug="globex"), "gil", "admin")
        spec = {"adapter": {"kind": "http", "url": "https://desk.example.com/x"}, "description": "Writes.", "effect": "write"}
        catalog.put(None, "create_ticket", ToolSpec.model_validate(spec | {"input_schema": ARGUMENTS}))
        self.version = ToolVersion.objects.get(tool_id="create_ticket")
        self.rnd = random.Random(22)

    def request(self, **values: Any) -> Approval:
        args = json.dumps(letter(self.rnd, "x")).encode()
        fields: dict[str, str | None] = dict.fromkeys(FIELDS, "") | {"args_sha256": waiting.sha256(args.decode())}
        given = {"args": args, "sealed": fields, "digest": digest(fields), "tool_version_id": self.version.id}
        return waiting.waiting(self.world, **(given | values))[1]

    def said(self, actor: Actor, one: Approval, surface: str, **said: Any) -> int:
        """The status that this person gets."""
        body = {"verdict": "approve", "digest": one.digest, "reason": "because I can"} | said
        if surface == "api":
            return int(caller(actor).post(f"/approvals/{one.approval_id}/decision", body).status_code)
        return int(browser(actor).post(f"/approvals/{one.approval_id}/", body).status_code)


def own_run(o: Office, surface: str) -> Approval:
    one = o.request()
    assert o.said(o.world.starter, one, surface) == 403
    return one


def own_run_broken_glass(o: Office, surface: str) -> Approval:
    one = o.request(starter_id=o.boss.user.pk, needed=2)
    assert o.said(o.boss, one, "api", break_glass=True) == 403
    return one


def own_run_edited(o: Office, surface: str) -> Approval:
    one = o.request()
    assert o.said(o.world.starter, one, "api", args=letter(o.rnd, "mine")) == 403
    return one


def own_run_in_anothers_name(o: Office, surface: str) -> Approval:
    one = o.request(group="finance")
    until = datetime.now(UTC) + timedelta(hours=1)
    delegations.give(o.world.approver, o.world.tenant, to=o.world.starter.user.username, until=until)
    assert o.said(o.world.starter, one, surface) == 403
    return one


def twice(o: Office, surface: str) -> Approval:
    """A repeated click is answered, and counts once."""
    one = o.request(needed=2)
    assert {o.said(o.world.approver, one, surface), o.said(o.world.approver, one, "api"), o.said(o.world.approver, one, "page")} <= {
        200,
        303,
    }
    return one


def twice_by_a_delegate(o: Office, surface: str) -> Approval:
    """Theirs and their delegate's are one voice, where the delegate has none of their own."""
    one = o.request(needed=2, risk="high")
    until = datetime.now(UTC) + timedelta(hours=1)
    delegations.give(o.world.approver, o.world.tenant, to=o.world.operator.user.username, until=until)
    o.said(o.world.operator, one, surface)
    o.said(o.world.approver, one, surface)
    return one


def from_another_tenant(o: Office, surface: str) -> Approval:
    one = o.request()
    assert o.said(o.stranger, one, surface) == 404
    return one


def from_another_tenant_edited(o: Office, surface: str) -> Approval:
    one = o.request()
    assert o.said(o.stranger, one, "api", args=letter(o.rnd, "theirs"), break_glass=True) == 404
    return one


def edited_alone(o: Office, surface: str) -> Approval:
    """Also by editing again, by breaking the glass, and by a delegate in the editor's name."""
    first = o.request(risk="high")
    assert o.said(o.world.approver, first, "api", args=letter(o.rnd, "mine")) == 200
    for more in ({}, {"break_glass": True}, {"verdict": "reject"}):
        assert o.said(o.world.approver, Approval.objects.latest("id"), "api", **more) in (200, 409)
    assert o.said(o.world.approver, Approval.objects.latest("id"), "api", args=letter(o.rnd, "mine again")) == 200
    until = datetime.now(UTC) + timedelta(hours=1)
    delegations.give(o.world.approver, o.world.tenant, to=o.world.operator.user.username, until=until)
    one = Approval.objects.latest("id")
    o.said(o.world.operator, one, surface)
    return one


BOTH = ("api", "page")
FORBIDDEN: dict[Callable[[Office, str], Approval], tuple[str, tuple[str, ...]]] = {
    own_run: ("own_run", BOTH),
    own_run_broken_glass: ("own_run", ("api",)),
    own_run_edited: ("own_run", ("api",)),
    own_run_in_anothers_name: ("own_run", BOTH),
    twice: ("same_person_twice", BOTH),
    twice_by_a_delegate: ("same_person_twice", BOTH),
    from_another_tenant: ("another_tenant", BOTH),
    from_another_tenant_edited: ("another_tenant", ("api",)),
    edited_alone: ("editor_alone", BOTH),
}


@pytest.mark.mission("P10.4")
def test_who_may_not_decide_is_refused_on_every_surface(db: None) -> None:
    began, tried = time.monotonic(), Counter[str]()
    for _ in range(size(10, 1)):
        for case, (kind, surfaces) in FORBIDDEN.items():
            for surface in surfaces:
                with transaction.atomic():
                    one = case(Office(), surface)
                    one.refresh_from_db()
                    assert one.state == State.PENDING, f"{case.__name__} by {surface}: {one.state}"
                    assert not gate.consume(one, one.digest, one.sealed)
                    tried[kind] += 1
                    transaction.set_rollback(True)
    figure("T22", "decisions by those who may not make them, over the API and the pages: nothing is approved", n=tried.total(),
           seconds=time.monotonic() - began, **tried, approved=0)  # fmt: skip


# what waiting costs ---------------------------------------------------------------------------------------------------------------


def copied(row: Row, **changes: Any) -> Row:
    return type(row)(**{field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields} | changes)


@transaction.atomic
def fill(run: Run, many: int) -> None:
    """So many more runs that wait exactly as this one does."""
    ids = [new_id() for _ in range(many)]
    asked, one, calls = run.asked, Approval.objects.get(run_id=run.id), list(Call.objects.filter(run_id=run.id))
    Run.objects.bulk_create([copied(run, id=i, state=RunState.QUEUED) for i in ids], 1000)
    RunInput.objects.bulk_create([copied(asked, run_id=i) for i in ids], 1000)
    for call_ in calls:
        keys = (f"{n:032d}" if call_.idem_key else None for n in range(Run.objects.count(), 10**9))
        made = [copied(call_, run_id=i, state="waiting_approval", idem_key=key) for i, key in zip(ids, keys, strict=False)]
        Call.objects.bulk_create(made, 1000)
    soon = ({"expires_at": one.expires_at + timedelta(seconds=n)} for n in range(many))
    Approval.objects.bulk_create([copied(one, id=new_id(), run_id=i, **at) for i, at in zip(ids, soon, strict=False)], 1000)
    rows = Run.objects.filter(id__in=ids)
    rows.update(state=RunState.RUNNING, owner=new_id(), fence=1)
    rows.update(state=RunState.WAITING_APPROVAL, owner=None, waiting_since=Now())


def claim_ms(dsn: str) -> float:
    """The median of one claim of twenty due runs, each undone."""
    asked = {"engine": new_id(), "n": 20, "deep": 60, "tenants": [], "held": []}
    took = []
    with psycopg.connect(dsn) as session:
        for _ in range(15):
            began = time.perf_counter()
            rows = session.execute(CLAIM, asked).fetchall()
            took.append((time.perf_counter() - began) * 1000)
            assert len(rows) == 20
            session.rollback()
    return statistics.median(took)


def inbox(actor: Actor) -> tuple[int, float]:
    """-> (queries, milliseconds) of the page."""
    client = browser(actor)
    client.get("/approvals/")
    with CaptureQueriesContext(connection) as queries:
        began = time.perf_counter()
        assert client.get("/approvals/").status_code == 200
    return len(queries), (time.perf_counter() - began) * 1000


async def measured(world: World) -> dict[str, float]:
    """Twenty runs come, are claimed and end, while the others wait; and people look at their inbox."""
    runs = [await world.script(call("search_docs", query=f"{n}"), {"text": "Done."}) for n in range(20)]
    claim = await sync_to_async(claim_ms)(world.dsn)
    began = time.perf_counter()
    await drive(world)
    ended = time.perf_counter() - began
    assert await Run.objects.filter(id__in=[run.id for run in runs], state="succeeded").acount() == 20
    queries, page = await sync_to_async(inbox)(world.people["approver"])
    began = time.perf_counter()
    await sync_to_async(sweep)()
    swept = (time.perf_counter() - began) * 1000
    return {"claim": claim, "twenty_runs": ended, "queries": queries, "page": page, "sweep": swept}


async def test_ten_thousand_waiting_requests_hold_nothing(world: World) -> None:
    many, began = size(10_000, 2000), time.monotonic()
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await drive(world)
    run = await Run.objects.select_related("asked").aget(id=run.id)
    await sync_to_async(fill)(run, 59)
    few = await measured(world)
    await sync_to_async(fill)(run, many - 60)
    lots = await measured(world)
    engine = await world.engine()
    await asyncio.sleep(0.3)  # long enough to claim whatever it can
    held = await Run.objects.filter(owner__isnull=False).acount()
    pending = await Approval.objects.filter(state=State.PENDING).acount()
    assert (len(engine.flights), held, pending) == (0, 0, many)
    await stop(world)
    assert lots["queries"] == few["queries"]
    assert lots["claim"] < 10 * max(few["claim"], 100), "hang guard"
    figure("T25", "requests that wait: no run in flight, no lease; against 60 that wait", n=many, seconds=time.monotonic() - began,
           in_flight=0, leases=0, claim_ms=f"{few['claim']:.1f} -> {lots['claim']:.1f}", inbox_queries=lots["queries"],
           inbox_ms=f"{few['page']:.0f} -> {lots['page']:.0f}", sweep_ms=f"{few['sweep']:.0f} -> {lots['sweep']:.0f}",
           twenty_other_runs_s=f"{few['twenty_runs']:.2f} -> {lots['twenty_runs']:.2f}")  # fmt: skip
