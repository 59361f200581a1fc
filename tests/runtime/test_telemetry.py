"""What ended is exported: to a receiver that answers, that is away for a while, that refuses; and the ids that requests carry."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db.models.functions import Now

from console.models import TelemetryExport, TelemetrySent
from console.telemetry import gather, otlp, progress
from console.telemetry.exporter import Exporter
from console.telemetry.target import target
from runs import intake, lifecycle
from runs.models import ModelDefinition, Run, RunInput
from runs.tracing import trace_of
from tenants import credentials

from .receiver import courier, receiving, settled, until
from .test_callbacks import accepted, hook, reaches
from .waiting import World, make_world, queued
from .world import TICKET, call
from .world import World as EngineWorld

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DAY = timedelta(days=1)


@dataclass
class Tap:
    """A receiver of traces in OTLP's JSON form. `status`: what it answers, from the body; `got`: headers and spans of each request."""

    port: int
    status: Callable[[bytes], int] = lambda body: 200
    got: list[tuple[dict[str, str], list[dict[str, Any]]]] = field(default_factory=list)
    runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def roots(self) -> list[str]:
        """The runs whose spans were taken, in the order in which they came."""
        return [value_of(span, "signalbox.run_id") for _, spans in self.got for span in spans if span["name"].startswith("invoke_agent")]

    async def up(self) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/v1/traces", self.take)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        if self.runner:
            await self.runner.cleanup()
            self.runner = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.status(body)
        if status == 200:
            (resource,) = json.loads(body)["resourceSpans"]
            self.got.append((dict(request.headers), resource["scopeSpans"][0]["spans"]))
        return web.json_response({}, status=status)


def value_of(span: dict[str, Any], name: str) -> Any:
    return next(iter(next(one["value"] for one in span["attributes"] if one["key"] == name).values()))


@asynccontextmanager
async def tap(*, up: bool = True, **options: Any) -> AsyncIterator[Tap]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Tap(free.getsockname()[1], **options)
    if up:
        await made.up()
    try:
        yield made
    finally:
        await made.down()


@asynccontextmanager
async def exporting(receiver: Tap, buffer: timedelta = DAY) -> AsyncIterator[None]:
    to = target(receiver.url, "x-tenant-key=k%3D1", "http/json")
    assert to is not None
    exporter = Exporter(to, poll_s=0.05, buffer=buffer)
    running = asyncio.create_task(exporter.run())
    try:
        yield
    finally:
        exporter.stop()
        await running


def ended(world: World, count: int = 1) -> list[Run]:
    """Runs that ended one after the other."""
    runs = [queued(world) for _ in range(count)]
    return [lifecycle.cancel(world.starter, run.id) for run in runs]


def row() -> TelemetryExport:
    return TelemetryExport.objects.get()


def again() -> None:
    """The time of the next try has come."""
    TelemetryExport.objects.update(next_at=Now(), lease_until=Now())


def sent(count: int) -> Callable[[], bool]:
    return lambda: TelemetryExport.objects.filter(sent=count).exists()


def failing(times: int) -> Callable[[], bool]:
    def look() -> bool:
        again()
        return TelemetryExport.objects.filter(failures__gte=times).exists()

    return look


# export ---------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.3")
async def test_each_run_that_ends_is_told_once_and_nothing_else_is(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    await sync_to_async(queued)(world)
    runs = await sync_to_async(ended)(world, 3)
    async with tap() as receiver:
        async with exporting(receiver):
            await until(sent(3))
            runs += await sync_to_async(ended)(world)
            await until(sent(4))
        async with exporting(receiver):  # another process, later
            await until(lambda: progress.pending() == 0)
            runs += await sync_to_async(ended)(world)
            await until(sent(5))
    assert receiver.roots == [run.run_id for run in runs]
    headers = receiver.got[0][0]
    assert (headers["x-tenant-key"], headers["Content-Type"]) == ("k=1", "application/json")


async def test_while_the_receiver_is_away_or_fails_nothing_is_lost(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    runs = await sync_to_async(ended)(world, 2)
    async with tap(up=False) as receiver, exporting(receiver):
        await until(failing(2))
        assert (await sync_to_async(row)()).last_error == "connect"
        receiver.status = lambda body: 503
        await receiver.up()
        await until(failing(4))
        runs += await sync_to_async(ended)(world)
        receiver.status = lambda body: 200
        await until(lambda: again() or sent(3)())  # type: ignore[func-returns-value]
    found = await sync_to_async(row)()
    assert receiver.roots == [run.run_id for run in runs]
    assert (found.failures, found.last_error, found.dropped) == (0, "", 0)


def test_each_failure_waits_longer_than_the_one_before(db: None) -> None:
    progress.take(DAY)
    waits = []
    for _ in range(9):
        progress.failed("connect")
        found = row()
        assert found.failed_at is not None
        waits.append((found.next_at - found.failed_at).total_seconds())
        again()
    assert all(4 <= waits[n] / 2**n <= 5 for n in range(6)) and 240 <= waits[-1] <= 300


async def test_what_is_older_than_the_buffer_is_given_up_and_counted(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    async with tap(up=False) as receiver, exporting(receiver):
        await until(TelemetryExport.objects.exists)
        old = await sync_to_async(ended)(world, 2)
        await until(failing(1))
        await Run.objects.filter(id__in=[run.id for run in old]).aupdate(ended_at=Now() - timedelta(hours=25))
        await TelemetryExport.objects.aupdate(floor=Now() - timedelta(hours=26))
        (young,) = await sync_to_async(ended)(world)
        await receiver.up()
        await until(lambda: again() or sent(1)())  # type: ignore[func-returns-value]
    found = await sync_to_async(row)()
    assert receiver.roots == [young.run_id]
    assert found.dropped == 2 and found.dropped_at is not None


def test_a_run_that_becomes_visible_late_is_found_below_those_that_were_told(db: None) -> None:
    world = make_world()
    progress.take(DAY)
    (first,) = ended(world)
    progress.told([first.id], [])
    again()
    (late,) = ended(world)
    Run.objects.filter(pk=late.pk).update(ended_at=Now() - timedelta(minutes=1))
    assert progress.take(DAY) == [late.id]


def test_what_is_told_is_remembered_only_as_long_as_something_may_come_late(db: None) -> None:
    world = make_world()
    progress.take(DAY)
    runs = ended(world, 2)
    TelemetryExport.objects.update(floor=Now() - timedelta(hours=2))
    Run.objects.filter(pk=runs[0].pk).update(ended_at=Now() - timedelta(hours=1))
    progress.told([runs[0].id], [])
    assert list(TelemetrySent.objects.values_list("run_id", flat=True)) == []
    again()
    assert progress.take(DAY) == [runs[1].id], "and the floor is above what was told"


def test_one_exporter_works_and_the_others_look_on(db: None) -> None:
    world = make_world()
    assert progress.take(DAY) == []
    runs = ended(world)
    assert progress.take(DAY) is None
    progress.leave()
    assert progress.take(DAY) == [runs[0].id]


async def test_a_run_that_is_refused_is_given_up_alone(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    runs = await sync_to_async(ended)(world, 5)
    bad = runs[2]
    async with tap(status=lambda body: 400 if bad.run_id.encode() in body else 200) as receiver, exporting(receiver):
        await until(sent(4))
    found = await sync_to_async(row)()
    assert receiver.roots == [run.run_id for run in runs if run != bad] and found.dropped == 1


async def test_a_run_that_cannot_be_told_keeps_no_other_back(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    broken, whole = await sync_to_async(ended)(world, 2)
    await RunInput.objects.filter(run_id=broken.id).adelete()
    async with tap() as receiver, exporting(receiver):
        await until(sent(1))
    assert receiver.roots == [whole.run_id] and (await sync_to_async(row)()).dropped == 1


async def test_many_runs_leave_in_batches(committed_db: None) -> None:
    world = await sync_to_async(make_world)()
    runs = await sync_to_async(ended)(world, progress.BATCH + 3)
    async with tap() as receiver, exporting(receiver):
        await until(sent(len(runs)))
    assert [len(spans) for _, spans in receiver.got] == [progress.BATCH, 3]


# traces -----------------------------------------------------------------------------------------------------------------


def started(world: EngineWorld, traceparent: str, *turns: Any) -> Run:
    order = intake.Order(agent="helper", input="charged-twice-question\n#sim " + json.dumps({"turns": turns}))
    return intake.submit(world.people["operator"], order, traceparent=traceparent).run


def spans_of(run: Run) -> list[Any]:
    return gather.of_run(Run.objects.select_related("tenant", "asked").get(pk=run.pk), {"primary": "openai"})


@pytest.mark.mission("P8.3")
@pytest.mark.parametrize("given", [GIVEN, "", "00-aa-bb-01"])
async def test_every_request_of_a_run_carries_the_span_it_is_exported_as(world: EngineWorld, given: str) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "500")
    await ModelDefinition.objects.filter(name="primary").aupdate(retry={"max_attempts": 2, "backoff_ms": [10]})
    await world.fault("model", "500")
    await world.engine()
    run = await sync_to_async(started)(world, given, call("create_ticket", **TICKET), {"text": "Done."})
    assert (await world.until(run)).outcome == "completed"
    told = [one["traceparent"] for one in await world.received()]
    root, *sends = await sync_to_async(spans_of)(run)
    assert told == [f"00-{one.trace_id}-{one.id}-01" for one in sends] and len(set(told)) == 5  # both calls were sent twice
    assert {one.parent_id for one in sends} == {root.id}
    assert (root.trace_id, root.parent_id) == (tuple(GIVEN.split("-")[1:3]) if given == GIVEN else (run.id.hex, ""))
    assert [one.failed for one in sends] == [True, False, True, False, False]


async def test_content_leaves_only_when_it_was_switched_on_and_then_without_secrets(
    world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(credentials.store)(world.tenant, "desk", "bearer", "hunter2-hunter2")
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    await world.engine()
    ticket = TICKET | {"summary": "double-charge-argument hunter2-hunter2"}
    run = await sync_to_async(started)(world, "", call("create_ticket", **ticket), {"text": "the-answer hunter2-hunter2"})
    await world.until(run)
    words = ("charged-twice-question", "double-charge-argument", "the-answer", "ticket_id", "hunter2")

    def found() -> list[str]:
        document = otlp.document(spans_of(run), "signalbox")
        return [word for word in words if word.encode() in otlp.as_json(document) or word.encode() in otlp.as_protobuf(document)]

    assert await sync_to_async(found)() == []
    monkeypatch.setattr(settings, "OTEL_CONTENT", True)
    assert set(await sync_to_async(found)()) == set(words) - {"hunter2"}


async def test_a_callback_belongs_to_the_trace_of_its_run(committed_db: None) -> None:
    async with receiving() as receiver:

        def prepared() -> Run:
            world = make_world()
            run = accepted(world, hook(world.tenant, receiver))
            RunInput.objects.filter(run_id=run.id).update(traceparent=GIVEN)
            reaches(run, "succeeded", outcome="completed")
            return run

        run = await sync_to_async(prepared)()
        async with courier():
            await until(settled(1))
    assert receiver.got[0][0]["traceparent"] == trace_of(run.run_id, GIVEN).root_header
