"""Old history goes by tenant and age, whole, and only where nothing stands on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Model
from django.db.models.functions import Now

from approvals.models import Approval
from console import retention, rollups
from console.apply import apply
from console.doctor import examine
from console.document import load
from console.models import BulkItem, Delivery, Incident, IncidentRun, RunHour, TelemetrySent
from console.settings import ENGINE_URL
from runs.intake import Order, submit
from runs.models import (
    Call,
    Case,
    DeletedHistory,
    DraftDecision,
    EffectClaim,
    Event,
    MemoryItem,
    MemoryUse,
    Observation,
    Retention,
    Run,
    RunInput,
    Score,
    Step,
    Undo,
    UnknownWrite,
)  # fmt: skip
from runs.states import RunState
from tenants import ids
from tenants.models import AuditEntry, IdempotencyRecord
from tests.runtime import waiting
from tests.runtime.waiting import World, make_world, person, queued

from .callers import caller, refusal
from .past import browser, called, ended

OLD = timedelta(days=40)
GOES = (
    Call, Event, MemoryUse, Observation, RunInput, Step, Undo, DraftDecision, EffectClaim, Run, Delivery, IdempotencyRecord, TelemetrySent,
)  # fmt: skip
STAYS = {
    Approval: "an audit record of its own",
    UnknownWrite: "the case, which says who settled it how",
    IncidentRun: "of an incident that is over",
    DeletedHistory: "the tombstone",
    Score: "a figure of its release",
    Case: "a case of its own, which says where it is from",
    MemoryItem: "kept for runs to come, until it expires",
    BulkItem: "what a person did to many runs: ids and outcomes, no contents",
}


@pytest.fixture
def world(committed_db: None) -> World:
    made = make_world()
    retention.put(None, made.tenant, 30)
    return made


@contextmanager
def made_at(ago: timedelta) -> Iterator[None]:
    """Ids of now are ids of then."""
    with pytest.MonkeyPatch.context() as patch:
        now = time.time_ns
        patch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: now() - int(ago.total_seconds() * 1e9)))
        yield


def old(world: World, ago: timedelta = OLD) -> Run:
    """A run that ended `ago`, with a call and a step, its id as old as it is."""
    with made_at(ago):
        run = ended(world, ago)
    called(run)
    Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=1)
    return run


def left(run: Run) -> set[type[Model]]:
    told: list[Any] = [model for model in GOES if "run_id" in {f.attname for f in model._meta.fields}]
    found = {model for model in told if model.objects.filter(run_id=run.id).exists()}
    return found | ({Run} if Run.objects.filter(id=run.id).exists() else set())


@pytest.mark.mission("P8.3")
def test_an_old_run_goes_whole_and_leaves_a_tombstone_that_its_addresses_show(world: World) -> None:
    run = old(world)
    asked = waiting.ask(run)
    Approval.objects.filter(pk=asked.pk).update(state="rejected")
    MemoryUse.objects.create(tenant=world.tenant, run_id=run.id, step=1, ord=1, item_id=run.id, did="read")
    assert retention.prune() == retention.Pruned(runs=1)

    assert left(run) == set() and Approval.objects.filter(pk=asked.pk).exists()
    stone = DeletedHistory.objects.get(run_id=run.id)
    assert (stone.tenant_id, stone.agent, stone.outcome) == (world.tenant.id, "support-triage", "completed")
    api = caller(world.operator)
    for path in ("", "/events", "/steps", "/events?format=ndjson"):
        answer = api.get(f"/runs/{run.run_id}{path}")
        assert refusal(answer) == (410, "history_deleted") and answer.json()["outcome"] == "completed"
    page = browser(world.operator).get(f"/runs/{run.run_id}/")
    assert page.status_code == 410 and f"Its history was deleted on {stone.deleted_at:%d %B %Y}" in page.content.decode()
    stranger = person(make_world("globex", "other").tenant, "gil", "admin")
    assert refusal(caller(stranger).get(f"/runs/{run.run_id}")) == (404, "not_found")
    entry = AuditEntry.objects.get(action="history.deleted")
    assert entry.tenant_id == world.tenant.id and entry.after and entry.after["runs"] == 1
    assert [one for one in examine(connection) if not one.warning and one.name != "no_controls"] == []  # this world has none


def test_what_an_hour_came_to_stays_when_its_runs_go(world: World) -> None:
    run = old(world)
    run.refresh_from_db()
    rollups.fold(run.created_at)
    assert sum(RunHour.objects.values_list("started", flat=True)) == 1
    assert retention.prune() == retention.Pruned(runs=1)
    assert rollups.fold(run.created_at) == ([], [])
    assert sum(RunHour.objects.values_list("started", flat=True)) == 1


def test_a_live_run_a_young_one_and_another_tenants_stay_untouched(world: World) -> None:
    globex = make_world("globex", "other")
    with made_at(OLD):
        live = queued(world)
    Run.objects.filter(pk=live.pk).update(created_at=Now() - OLD)
    keeps = [live, old(world, timedelta(days=29)), old(globex)]
    before = Event.objects.count()
    assert retention.prune().runs == 0

    assert all(Run.objects.filter(pk=run.pk).exists() for run in keeps) and Event.objects.count() == before
    assert retention.prune(globex.tenant).runs == 0  # it keeps everything


def stands(world: World, run: Run, what: str) -> None:
    """Something that needs the run."""
    place = {"tenant": world.tenant, "run_id": run.id, "step": 1, "ord": 1}
    other = queued(world)
    if what == "unknown":
        UnknownWrite.objects.create(**place, tool="create_ticket")
    elif what == "approval":
        waiting.ask(run)
    elif what == "incident":
        IncidentRun.objects.create(incident=Incident.objects.create(tenant=world.tenant, title="t", severity="minor"), run_id=run.id)
    elif what == "undo":
        Undo.objects.create(**place, tool="close_ticket", action_run=other.id, by=world.operator.user, reason="r")
    elif what == "draft":
        DraftDecision.objects.create(**place, verdict="carried_out", action_run=other.id, by=world.operator.user)
    elif what == "retry":
        RunInput.objects.filter(run=other).update(retry_of=run.id)
    elif what == "fork":
        RunInput.objects.filter(run=other).update(fork={"of": str(run.id), "step": 1, "labels": []})
    elif what == "effect":
        EffectClaim.objects.create(**place, tool="create_ticket", effect_key="ticket:1")
    elif what == "message":
        Delivery.objects.create(tenant=world.tenant, kind="callback", event="run.failed", run_id=run.id, url="u", secret_name="s", body={})
    elif what == "hour":
        Run.objects.filter(pk=other.pk).update(created_at=run.created_at)


@pytest.mark.parametrize("what", ["unknown", "approval", "incident", "undo", "draft", "retry", "fork", "effect", "message", "hour"])
def test_a_run_that_something_stands_on_is_kept(world: World, what: str) -> None:
    run = old(world)
    stands(world, run, what)
    assert retention.prune() == retention.Pruned(kept=1)

    assert {Run, Event, Call} <= left(run) and not DeletedHistory.objects.exists()


def test_nobody_deletes_events_but_the_function_and_it_only_those_of_runs_that_ended_long_ago(world: World) -> None:
    run, live = old(world), queued(world)
    for statement in (
        f"delete from event where run_id = '{run.id}'",
        f"insert into runs_deletedhistory select id, tenant_id, agent_id, '', now(), now() from run where id = '{live.id}'",
    ):
        with psycopg.connect(ENGINE_URL) as plain, pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute(statement.encode())
    with pytest.raises(DatabaseError, match="append only"), transaction.atomic("owner"), connections["owner"].cursor() as owner:
        owner.execute("delete from event where run_id = %s", [run.id])
    with connection.cursor() as cursor:
        cursor.execute("select forget_runs(%s, now() - interval '2 days')", [[live.id]])
        assert cursor.fetchone() == ([],)
    with pytest.raises(DatabaseError, match="a day at least"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select forget_runs(%s, now())", [[run.id]])
    assert Event.objects.filter(run_id=run.id).exists() and Event.objects.filter(run_id=live.id).exists()


def test_the_web_may_not_even_ask_for_it(world: World, urls: Any) -> None:
    if urls.web == urls.engine:
        pytest.skip("one role for everything")
    with psycopg.connect(urls.web) as web, pytest.raises(psycopg.errors.InsufficientPrivilege):
        web.execute("select forget_runs('{}', now() - interval '2 days')")


def test_a_repeat_of_the_key_of_a_deleted_run_is_a_new_run(world: World) -> None:
    def again() -> Run:
        return submit(world.starter, Order(agent=world.agent.name, input="hello"), idempotency_key="k", body_sha256=b"x").run

    with made_at(OLD):
        first = again()
    Run.objects.filter(pk=first.pk).update(state=RunState.RUNNING, owner=first.id)
    Run.objects.filter(pk=first.pk).update(
        state=RunState.FAILED, owner=None, outcome="model_error", created_at=Now() - OLD, ended_at=Now() - OLD
    )
    assert retention.prune().runs == 1
    assert again().pk != first.pk


def test_messages_that_left_a_month_ago_go_and_those_that_wait_stay(world: World) -> None:
    given = {"tenant": world.tenant, "kind": "callback", "event": "run.failed", "url": "u", "secret_name": "s", "body": {}}
    with made_at(OLD):
        for state in ("delivered", "failed", "pending"):
            Delivery.objects.create(**given, state=state)
    Delivery.objects.update(created_at=Now() - timedelta(days=31))
    Delivery.objects.create(**given, state="delivered")
    assert retention.prune().messages == 2
    assert set(Delivery.objects.values_list("state", flat=True)) == {"pending", "delivered"}


def test_the_setting_is_configuration_and_audited(world: World) -> None:
    def given(days: int | None) -> list[tuple[str, str]]:
        changes = apply(None, load({"tenants": [{"slug": "acme", "retention": {"history_days": days}}]}))
        return [(change.kind, change.action) for change in changes if change.kind == "retention"]

    assert given(7) == [("retention", "update")] and given(7) == [("retention", "unchanged")]
    assert Retention.objects.get().history_days == 7
    assert given(None) == [("retention", "update")] and not Retention.objects.exists()
    assert AuditEntry.objects.filter(action="retention.updated").count() == 3
    apply(None, load({"tenants": [{"slug": "acme"}]}))
    assert not Retention.objects.exists()


def test_the_command_says_what_it_did_and_what_to_set(world: World) -> None:
    old(world)
    out = StringIO()
    call_command("prune", tenant="acme", stdout=out)
    assert out.getvalue().startswith("1 runs and 0 messages deleted; 0 old runs kept")
    retention.put(None, world.tenant, None)
    call_command("prune", stdout=out)
    assert "No tenant has a retention" in out.getvalue()
    with pytest.raises(CommandError, match="no tenant nowhere"):
        call_command("prune", tenant="nowhere")


def test_every_table_that_tells_of_runs_goes_with_them_or_has_a_reason_to_stay() -> None:
    ours = ("tenants", "tools", "approvals", "runs", "console")
    telling = {
        model for model in apps.get_models()
        if model._meta.app_label in ours and {f.attname for f in model._meta.fields} & {"run_id", "retry_of"}
    }  # fmt: skip
    reserved = {model for model in telling if model.__name__ in ("Reservation", "Settlement")}  # held until it is folded
    assert telling - reserved - set(GOES) - set(STAYS) == set()
