"""The live channel for tests over real sockets: uvicorn in the test's own loop, the client of `websockets`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import Client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from runs.events import Kind, event
from runs.history import append
from runs.models import Run
from tests.runtime import waiting

PATIENCE_S = 15


@pytest.fixture
def world(committed_db: None) -> waiting.World:
    return waiting.make_world()


def cookie_of(actor: Any) -> str:
    client = Client()
    client.force_login(actor.user)
    return f"sessionid={client.cookies['sessionid'].value}"


class Site:
    """The web process under test."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/ws"

    @asynccontextmanager
    async def open(
        self, actor: Any = None, *, origin: Any = "http://127.0.0.1:8000", cookie: str = "", **more: Any
    ) -> AsyncIterator["Page"]:
        headers = {"Cookie": await sync_to_async(cookie_of)(actor) if actor else cookie}
        options = {"compression": None, "max_queue": None, **more}  # a client that has stopped reading cannot close either
        async with connect(self.url, origin=origin, additional_headers=headers, **options) as socket:
            yield Page(socket)

    async def refusal(self, *args: Any, **kwargs: Any) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with self.open(*args, **kwargs):
                pass
        return refused.value.response.status_code

    async def headers_of_refusal(self, path: str = "/ws") -> Any:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(self.url.removesuffix("/ws") + path):
                pass
        return refused.value.response.headers


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, said: Any) -> None:
        await self.socket.send(said if isinstance(said, str | bytes) else json.dumps(said))

    async def next(self) -> Any:
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))

    async def until(self, wanted: Any) -> list[Any]:
        """Everything up to and with the first message that `wanted` says yes to."""
        got = []
        while not got or not wanted(got[-1]):
            got.append(await self.next())
        return got

    async def follow(self, *topics: str, **since: int) -> list[Any]:
        """Subscribe; what was said before the socket answered a ping."""
        numbers = {name.replace("__", ":"): seq for name, seq in since.items()}
        await self.say({"op": "sub", "topics": topics, "since": numbers})
        await self.say({"op": "ping"})
        return (await self.until(lambda m: m.get("op") == "pong"))[:-1]

    async def closed(self) -> int:
        """The code that the server ended with."""
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                await self.next()
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code


@pytest_asyncio.fixture
async def site(world: waiting.World) -> AsyncIterator[Site]:
    from console.asgi import application
    from console.live.feed import feed
    from console.live.hub import hub

    config = uvicorn.Config(application, port=0, lifespan="off", ws="websockets-sansio", log_level="warning")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    turns = asyncio.create_task(server.main_loop())
    hub.start()
    feed.start()
    await hub.listening.wait()
    while feed.hints.lost:  # told to look at everything because it has just begun to listen
        await asyncio.sleep(0.01)
    yield Site(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await turns
    await server.shutdown()


@transaction.atomic
def happen(run: Run, times: int = 1, note: str = "") -> None:
    """`times` events of `run` in one commit, as a person's transaction writes them."""
    row = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
    append(row, [event(Kind.PLAN_DECIDED, step_id=1, data={"note": note} if note else None) for _ in range(times)])
    row.save(update_fields=["seq"])


queued = sync_to_async(waiting.queued)
soon = sync_to_async(happen)


def seqs(messages: list[Any], topic: str) -> list[int]:
    return [m["seq"] for m in messages if m.get("t") == topic]


def topic_of(run: Run) -> str:
    return f"run:{run.run_id}"


async def sub(page: Page, run: Run, since: int) -> None:
    await page.say({"op": "sub", "topics": [topic_of(run)], "since": {topic_of(run): since}})
