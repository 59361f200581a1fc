"""Breakers and paces through real engines, against a model host and a tool host that count what they receive."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import signoff
from runs.models import Call, ModelDefinition, Run
from tenants.models import AuditEntry, EgressAllow
from tests.runtime.waiting import at_once
from tools import breakers
from tools.breakers import host_port
from tools.models import Breaker, Tool, ToolVersion

from .world import TICKET, World, call, make_world

TENTH = 0.1  # of the times that a breaker stays open: a minute in six seconds
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}


class Host:
    """A model behind HTTP. `mode`: ok, 500, 429, hang, half (every second answer is a 500), or closed (nobody listens)."""

    def __init__(self, mode: str) -> None:
        self.mode, self.received, self.most, self.inside, self.port = mode, 0, 0, 0, 0
        self.delay_s = 0.0
        self.runner: web.ServerRunner
        self.site: web.TCPSite
        self.released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self.site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await self.site.start()
        self.port = self.runner.addresses[0][1]

    async def heal(self) -> None:
        if self.mode == "closed":
            await self.listen()
        self.mode = "ok"
        self.released.set()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.received += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await request.read()
            if self.mode == "hang":
                await self.released.wait()
            await asyncio.sleep(self.delay_s)
            if self.mode in ("500", "429") or (self.mode == "half" and self.received % 2):
                return web.Response(status=429 if self.mode == "429" else 500)
            return web.json_response(ANSWER)
        finally:
            self.inside -= 1


@asynccontextmanager
async def a_host(mode: str) -> AsyncIterator[Host]:
    host = Host(mode)
    host.runner = web.ServerRunner(web.Server(host.handle), shutdown_timeout=0.1)
    await host.runner.setup()
    await host.listen()
    if mode == "closed":
        await host.site.stop()
    try:
        yield host
    finally:
        host.released.set()
        await host.runner.cleanup()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breakers that stay open for a tenth of their time."""
    monkeypatch.setattr("tools.breaker.FIRST_OPEN_S", 5 * TENTH)
    monkeypatch.setattr("tools.breaker.LONGEST_OPEN_S", 60 * TENTH)
    monkeypatch.setattr("runs.engine.circuits.SPREAD_S", 1 * TENTH)


async def use(host: Host, model: str = "primary", **values: Any) -> None:
    """The model is behind this host."""
    await EgressAllow.objects.aget_or_create(host_port=host_port(host.url))
    given = {"base_url": f"{host.url}/v1", "timeout_s": 1, "retry": {"max_attempts": 2, "backoff_ms": [10]}} | values
    await ModelDefinition.objects.filter(name=model).aupdate(**given)


async def until_row(world: World, url: str, state: str, seconds: float = 30) -> Breaker:
    for _ in range(int(seconds * 20)):
        found = await Breaker.objects.filter(tenant=world.tenant, host_port=host_port(url)).afirst()
        if found and found.state == state:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"the breaker is {found and found.state}, not {state}")


async def ended(world: World, runs: list[Run]) -> dict[str, int]:
    """Outcomes of the runs, all of them ended."""
    outcomes: dict[str, int] = {}
    for run in runs:
        done = await world.until(run, seconds=90)
        outcomes[str(done.outcome)] = outcomes.get(str(done.outcome), 0) + 1
    return outcomes


async def force(world: World, url: str, action: str, by: str = "operator") -> None:
    def word() -> None:
        found = breakers.of(world.people[by], host_port(url), world.tenant)
        breakers.force(world.people[by], found.id, action, "a test")

    await sync_to_async(word)()


@pytest.mark.mission("P3.1")
@pytest.mark.parametrize("mode", ["500", "429", "hang", "closed"])
async def test_a_dead_host_is_hardly_asked_and_its_runs_go_on_when_it_is_back(world: World, fast: None, mode: str) -> None:
    await world.agent(tools=(), deadlines={"model_call_s": 10, "tool_call_s": 5, "step_s": 100, "run_s": 300})
    async with a_host(mode) as host:
        await use(host)
        runs = [await world.submit("hello") for _ in range(120)]
        began = time.monotonic()
        await world.engine()
        await asyncio.sleep(60 * TENTH - (time.monotonic() - began))
        sends = sum([c.attempt async for c in Call.objects.filter(ord=0)])
        assert 10 <= sends <= 30 and (mode == "closed" or sends - 2 <= host.received <= sends)
        if mode != "hang":  # there the pace alone is enough: fewer than twenty have timed out yet
            await until_row(world, host.url, "open")
        await host.heal()
        outcomes = await ended(world, runs)
    assert set(outcomes) <= {"completed", "model_error"}
    spent = {c.run_id: c.attempt async for c in Call.objects.filter(ord=0)}
    failed = [run.id async for run in Run.objects.filter(outcome="model_error")]
    assert all(spent[run] == 2 for run in failed), "a run failed without having spent its attempts"
    assert outcomes["completed"] >= 105
    print(f"\nT32 {mode}: 120 runs, {sends} sends while dead, {len(failed)} runs spent their attempts on it")


async def test_a_breaker_that_opens_and_closes_is_told_on_the_tenants_chain(world: World, fast: None) -> None:
    await world.agent(tools=())
    async with a_host("500") as host:
        await use(host)
        runs = [await world.submit("hello") for _ in range(30)]
        await world.engine()
        opened = await until_row(world, host.url, "open")
        assert opened.sends >= 20 and opened.failures == opened.sends and opened.probe_at is not None
        host.mode = "ok"
        await until_row(world, host.url, "closed")
        await ended(world, runs)
    entries = [entry async for entry in AuditEntry.objects.filter(tenant=world.tenant, object_kind="breaker").order_by("id")]
    assert [entry.action for entry in entries][:1] == ["breaker.opened"] and entries[-1].action == "breaker.closed"
    assert {entry.actor for entry in entries} == {"system"}
    assert entries[0].after["failures"] == opened.failures and entries[0].after["host_port"] == host_port(host.url)


async def test_two_engines_share_what_one_has_seen_and_send_one_probe_between_them(world: World, fast: None) -> None:
    await world.agent(tools=())
    async with a_host("500") as host:
        await use(host)
        await world.engine()
        await world.engine()
        await asyncio.sleep(1.2)  # each knows of the other
        runs = [await world.submit("hello") for _ in range(120)]
        await until_row(world, host.url, "open")
        await asyncio.sleep(1.2)  # what was on its way has arrived, the other engine has read the row
        assert host.received <= 40
        before, host.most, host.mode = host.received, 0, "hang"
        await until_row(world, host.url, "half_open")
        await asyncio.sleep(0.3)
        assert (host.inside, host.most) == (1, 1)
        assert host.received <= before + 3
        host.mode = "ok"
        host.released.set()
        assert (await ended(world, runs))["completed"] >= 90


async def test_one_host_of_one_tenant_says_nothing_of_others(world: World, fast: None) -> None:
    other, people = await sync_to_async(make_world)(world.url, "globex")
    await world.agent(tools=())
    async with a_host("500") as host:
        await use(host)
        runs = [await world.submit("hello") for _ in range(30)]
        engine = await world.engine()
        await until_row(world, host.url, "open")
        circuits = engine.services.circuits
        assert not circuits.lets_through(world.tenant.id, host.url)
        assert circuits.lets_through(other.id, host.url) and circuits.lets_through(world.tenant.id, world.url)
        host.mode = "ok"
        await ended(world, runs)
    assert people and not await Breaker.objects.filter(tenant=other).aexists()


@pytest.mark.mission("P5.3")
async def test_while_the_breaker_of_a_model_is_open_the_next_model_of_the_role_answers(world: World) -> None:
    await world.agent(tools=(), models={"planner": {"model": "primary", "fallback": ["spare"]}})
    async with a_host("ok") as host:
        await use(host)
        await force(world, host.url, "open")
        run = await world.submit("hello")
        await world.engine()
        done = await world.until(run)
        assert done.outcome == "completed" and host.received == 0
    [moved] = [e.payload for e in await world.events(run) if e.kind == "fallback_activated"]
    assert moved["data"] == {"from": "primary", "to": "spare", "reason": "breaker_open"}
    assert [(c.name, c.attempt) for c in await world.calls(run)] == [("spare", 1)]


async def test_a_run_without_another_model_is_parked_and_spends_no_attempt(world: World) -> None:
    await world.agent(tools=())
    async with a_host("ok") as host:
        await use(host)
        await force(world, host.url, "open")
        run = await world.submit("hello")
        await world.engine()
        parked = await world.until(run, "waiting_timer")
        assert parked.owner is None and await world.calls(run) == [] and host.received == 0
        held = next(e.payload["data"] for e in await world.events(run) if e.kind == "call_held")
        assert held["reason"] == "breaker_open" and held["wait_ms"] > 2000
        await force(world, host.url, "reset")
        await Run.objects.filter(id=run.id).aupdate(available_at=parked.created_at)
        assert (await world.until(run)).outcome == "completed" and host.received == 1


async def test_a_breaker_does_not_outlast_the_deadline_of_a_run(world: World) -> None:
    await world.agent(tools=(), deadlines={"model_call_s": 1, "tool_call_s": 1, "step_s": 2, "run_s": 3})
    await force(world, world.url, "open")
    run = await world.submit("hello")
    await world.engine()
    assert (await world.until(run)).outcome == "deadline_exceeded"


async def elsewhere(tool: str, url: str) -> None:
    """A version of the tool that is behind another host; the agents made from now on have it."""

    def change() -> None:
        row = Tool.objects.select_related("current").get(name=tool)
        values = {
            f.attname: getattr(row.current, f.attname) for f in ToolVersion._meta.concrete_fields if f.name not in ("id", "created_at")
        }
        row.current = ToolVersion.objects.create(**values | {"number": 2, "adapter": {"kind": "http", "url": url}, "sha256": "1" * 64})
        row.save()
        EgressAllow.objects.get_or_create(host_port=host_port(url))

    await sync_to_async(change)()


@pytest.mark.mission("P6.1")
async def test_a_tool_call_is_not_dispatched_while_its_host_is_open_and_others_of_the_turn_are(world: World) -> None:
    async with a_host("ok") as host:
        await elsewhere("fetch_account", host.url)
        await world.agent()
        await force(world, host.url, "open")
        asks = call("search_docs", query="refund")["calls"] + call("fetch_account", account_id="acct_1001")["calls"]
        run = await world.script({"calls": asks}, {"text": "Done."})
        await world.engine()
        parked = await world.until(run, "waiting_timer")
        states = {c.name: (c.state, c.attempt) for c in await world.calls(run) if c.ord}
        assert states == {"search_docs": ("done", 1), "fetch_account": ("ready", 0)} and host.received == 0
        await force(world, host.url, "reset")
        await Run.objects.filter(id=run.id).aupdate(available_at=parked.created_at)
        done = await world.until(run)
        assert done.outcome == "completed" and host.received == 1 and done.tool_calls == 2


async def test_an_approved_call_waits_for_its_host_and_is_sent_once(world: World) -> None:
    async with a_host("ok") as host:
        await elsewhere("create_ticket", host.url)
        await world.agent()
        run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
        await world.engine()
        await world.until(run, "waiting_approval")
        await force(world, host.url, "open")
        approval = await Approval.objects.aget(run_id=run.id)
        await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
        parked = await world.until(run, "waiting_timer")
        assert host.received == 0 and (await Approval.objects.aget(run_id=run.id)).state == "approved"
        await force(world, host.url, "close")
        await Run.objects.filter(id=run.id).aupdate(available_at=parked.created_at)
        assert (await world.until(run)).outcome == "completed"
        assert host.received == 1 and (await Approval.objects.aget(run_id=run.id)).state == "consumed"


async def test_a_burst_at_a_healthy_host_starts_with_ten_at_once_and_speeds_up(world: World) -> None:
    await world.agent(tools=())
    async with a_host("hang") as host:
        await use(host, timeout_s=30)
        runs = [await world.submit("hello") for _ in range(60)]
        await world.engine()
        for _ in range(200):
            if host.inside == 10:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert host.inside == 10
        host.delay_s = 0.2
        host.released.set()
        assert await ended(world, runs) == {"completed": 60}
        assert host.received == 60 and host.most > 10
    assert not await Breaker.objects.aexists()


@pytest.mark.mission("P3.1")
async def test_a_storm_of_errors_is_not_answered_with_a_storm_of_retries(world: World) -> None:
    """T33. A person keeps the breaker closed, so that the budget of retries is what holds."""
    await world.agent(tools=())
    async with a_host("half") as host:
        await use(host, retry={"max_attempts": 4, "backoff_ms": [10]})
        await force(world, host.url, "close")
        runs = [await world.submit("hello") for _ in range(300)]
        began = time.monotonic()
        await world.engine()
        await ended(world, runs)
        seconds = time.monotonic() - began
        sent, first = host.received, len(runs)
    assert sent <= 1.1 * first + 3 * (seconds + 10)
    print(f"\nT33: {first} first sends, {sent - first} retries in {seconds:.1f} s, {sent / first:.2f}x")


def open_row(world: Any, **values: Any) -> Breaker:
    from django.db.models.functions import Now

    given = {"state": "open", "host_port": "127.0.0.1:9", "probe_at": Now(), "opened_at": Now()} | values
    return Breaker.objects.create(tenant=world.tenant, **given)


def test_of_two_engines_that_ask_at_once_one_gets_the_probe(committed_db: None) -> None:
    from tests.runtime.waiting import make_world as people

    world = people()
    for n in range(20):
        open_row(world, host_port=f"127.0.0.1:{n}")
        asked = at_once(*(lambda host=f"127.0.0.1:{n}": breakers.take_probe(world.tenant.id, host, 30.0) for _ in range(4)))
        assert sorted(ours for ours, _ in asked) == [False, False, False, True]


def test_a_probe_that_was_lost_is_taken_again_once_its_time_is_over(db: None) -> None:
    from tests.runtime.waiting import make_world as people

    world = people()
    open_row(world)
    assert breakers.take_probe(world.tenant.id, "127.0.0.1:9", 0.0)[0]
    assert breakers.take_probe(world.tenant.id, "127.0.0.1:9", 60.0)[0]
    assert not breakers.take_probe(world.tenant.id, "127.0.0.1:9", 60.0)[0]


def test_a_persons_word_stays_until_a_person_takes_it_back(db: None) -> None:
    from tests.runtime.waiting import make_world as people

    world = people()
    found = open_row(world, forced="closed", state="closed", probe_at=None)
    told = breakers.opened(world.tenant.id, found.host_port, 5.0, 20, 20)
    assert told is not None and (told.state, told.forced) == ("closed", "closed")
    breakers.force(world.operator, found.id, "open", "the host is being moved")
    assert not breakers.take_probe(world.tenant.id, found.host_port, 1.0)[0]
    breakers.force(world.operator, found.id, "reset", "moved")
    told = breakers.opened(world.tenant.id, found.host_port, 5.0, 20, 20)
    assert told is not None and told.state == "open"
