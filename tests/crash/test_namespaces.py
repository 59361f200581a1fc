"""Hosts that lose their network and hosts that die, with namespaces for hosts. In the long form (`make chaos`), as root, with `ip`."""

import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio
from aiohttp import web
from asgiref.sync import sync_to_async
from django.db import connection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from console import doctor
from console.sandbox import fixtures
from runs.models import Engine, Event, Run
from tests.console.live_site import cookie_of
from tests.runtime.world import World, call, make_world
from tools.models import Breaker

from .figures import figure
from .hosts import HUB_ADDRESS, POSSIBLE, Hosts, forward
from .load import EFFECTS, TOOL, arguments
from .oracle import HELD, violations

pytestmark = pytest.mark.skipif(not (os.environ.get("CHAOS") and POSSIBLE), reason="long: CHAOS=1, as root, with iproute2")
FIRST, SECOND, WEB = "first", "second", "web"
FOLLOWED = 40  # a socket takes 50 topics
PATIENCE_S = 120


class Site:
    """Three hosts around one with the database and the tools."""

    def __init__(self, hosts: Hosts, urls: Any, database: int, logs: Path) -> None:
        self.hosts, self.logs = hosts, logs
        self.base = f"http://{hosts.address(WEB)}:8000"
        self.environment = {
            "DATABASE_URL": over_tcp(urls.web, database), "DATABASE_ENGINE_URL": over_tcp(urls.engine, database),
            "DATABASE_OWNER_URL": over_tcp(urls.engine, database), "PUBLIC_URL": self.base, "PYTHONWARNINGS": "ignore",
        }  # fmt: skip

    def engine(self, name: str) -> Any:
        command = [sys.executable, "manage.py", "engine", "--lease", "2", "--slots", "15"]
        return self.hosts.start(name, self.logs / f"{name}.log", *command, **self.environment, SIGNALBOX_ROLE="engine")

    def web(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "console.asgi:application", "--host", self.hosts.address(WEB), "--port", "8000",
                   "--ws", "websockets-sansio", "--no-access-log"]  # fmt: skip
        role = {"SIGNALBOX_ROLE": "web", "SIGNALBOX_POOL": "1"}
        self.hosts.start(WEB, self.logs / "web.log", *command, **self.environment, **role)

    async def page(self, cookie: str) -> ClientConnection:
        """A live connection, from the web host itself, once it answers."""
        end, address = time.monotonic() + PATIENCE_S, (self.hosts.address(WEB), 8000)
        while True:
            with suppress(OSError, WebSocketException):
                made = await asyncio.to_thread(self.hosts.inside, WEB, lambda: socket.create_connection(address, 5))
                made.setblocking(False)
                return await connect(f"ws://{address[0]}:8000/ws", sock=made, origin=self.base, max_queue=None,
                                     additional_headers={"Cookie": cookie})  # type: ignore[arg-type]  # fmt: skip
            assert time.monotonic() < end, self.log()
            await asyncio.sleep(0.2)

    def log(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.logs.glob("*.log")))


def over_tcp(url: str, port: int) -> str:
    parts = urlsplit(url)
    return f"postgresql://{quote(parts.username or '')}:{quote(parts.password or '')}@{HUB_ADDRESS}:{port}{parts.path}"


@pytest_asyncio.fixture
async def world(committed_db: None, urls: Any) -> AsyncIterator[World]:
    """Its tools and models are reached at the hub, by this process also at loopback."""
    runner, near = await fixtures.start()
    hosts = Hosts(FIRST, SECOND, WEB)
    try:
        hosts.open()
        tools, database = hosts.listening(), hosts.listening()
        there = f"http://{HUB_ADDRESS}:{tools.getsockname()[1]}"
        await web.SockSite(runner, tools).start()
        server = await forward(database, urls.engine)
        tenant, people = await sync_to_async(make_world)(there, "acme")
        await Breaker.objects.acreate(tenant=tenant, host_port=urlsplit(there).netloc, forced="closed")
        made = World(near, urls.engine, tenant, people)
        made.site = lambda logs: Site(hosts, urls, database.getsockname()[1], logs)  # type: ignore[attr-defined]
        yield made
        server.close()
    finally:
        await asyncio.to_thread(hosts.close)
        await runner.cleanup()


async def owners() -> set[str]:
    """The hosts whose engines hold runs."""
    held = Run.objects.filter(owner__isnull=False).values("owner")
    return {host async for host in Engine.objects.filter(id__in=held).values_list("host", flat=True)}


async def until(what: Any, site: Site) -> None:
    end = time.monotonic() + PATIENCE_S
    while not await what():
        assert time.monotonic() < end, site.log()
        await asyncio.sleep(0.05)


async def listen(page: ClientConnection, heard: dict[str, list[int]]) -> None:
    async for text in page:
        said = json.loads(text)
        if said.get("t", "").startswith("run:") and said.get("k") != "reset":
            heard.setdefault(said["t"], []).append(said["seq"])


@pytest.mark.mission("P3.5")
async def test_a_host_is_cut_off_and_another_killed_while_people_watch(world: World, tmp_path: Path) -> None:
    site: Site = world.site(tmp_path)  # type: ignore[attr-defined]
    hosts, began = site.hosts, time.monotonic()
    deadlines = {"model_call_s": 3, "tool_call_s": 1, "step_s": 30, "run_s": 600}
    await world.agent(deadlines=deadlines)
    for tool in TOOL.values():
        await world.permit(tool, "allow", loosen=True)
    for target in (*TOOL.values(), "model"):
        await world.fault(target, "latency", times=-1, ms=300)
    runs = list[Run]()

    async def submit(count: int) -> None:
        for _ in range(count):
            effect = EFFECTS[len(runs) % 3]
            turn = call(TOOL[effect], **arguments(effect, f"run {len(runs):05d}"))
            runs.append(await world.script(turn, {"text": "Done."}))

    async def rests() -> bool:
        return not await Run.objects.exclude(state__in=HELD).aexists()

    async def taken_over() -> bool:
        return await Event.objects.filter(kind="run_taken_over").aexists()

    async def holds(name: str) -> bool:
        return name in await owners()

    site.web()
    page = await site.page(await sync_to_async(cookie_of)(world.people["operator"]))
    await submit(60)
    topics = [f"run:{run.run_id}" for run in runs[:FOLLOWED]]
    heard: dict[str, list[int]] = {}
    listening = asyncio.create_task(listen(page, heard))
    await page.send(json.dumps({"op": "sub", "topics": topics, "since": dict.fromkeys(topics, 0)}))
    site.engine(FIRST)
    await until(lambda: holds(FIRST), site)
    second = site.engine(SECOND)
    await until(lambda: holds(SECOND), site)

    for name in (FIRST, WEB):
        hosts.link(name, "down")
    cut = time.monotonic()
    await until(taken_over, site)
    taken_s = time.monotonic() - cut
    await submit(20)
    await asyncio.sleep(max(0.0, cut + 5 - time.monotonic()))  # long enough that what was sent is sent again, and later each time
    for name in (FIRST, WEB):
        hosts.link(name, "up")
    back = time.monotonic()
    await submit(40)
    await until(lambda: holds(FIRST), site)
    back_s = time.monotonic() - back
    await submit(20)
    await until(lambda: holds(SECOND), site)
    second.kill()  # `ip` and `unshare` became the engine: it is the process that we started
    await until(rests, site)

    async def caught_up() -> bool:
        latest = Run.objects.select_related("asked").filter(id__in=[run.id for run in runs[:FOLLOWED]])
        return all([heard.get(f"run:{run.run_id}", [0])[-1] >= run.seq async for run in latest])

    await until(caught_up, site)
    listening.cancel()
    await page.close()
    wrong = await violations(world)
    end = time.monotonic() + 8  # cases are opened, and late evidence used, once a second
    while wrong and time.monotonic() < end:
        await asyncio.sleep(0.2)
        wrong = await violations(world)
    assert not wrong, wrong[:20]
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in heard.values()) and len(heard) == FOLLOWED
    found = await sync_to_async(lambda: doctor.examine(connection))()
    assert [one for one in found if not one.warning] == []  # no jobs run here, and it says so
    states = Counter([run.state async for run in Run.objects.all()])
    assert sum(states.values()) == len(runs)
    takeovers = await Event.objects.filter(kind="run_taken_over").acount()
    ledger = await world.ledger()
    figure("T14", "hosts as network namespaces: one cut off for 5 s, one killed, a page watching across the cut (the lease is 2 s)",
           n=len(runs), seconds=time.monotonic() - began, **states, takeovers=takeovers, first_takeover_after_cut_s=round(taken_s, 1),
           at_work_after_link_s=round(back_s, 1), effects=len(ledger), effects_twice=0, events_watched=sum(map(len, heard.values())),
           gaps=0)  # fmt: skip
