"""The other side of a callback: a real HTTP server on loopback that can be told what to answer, and couriers to send to it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from asgiref.sync import sync_to_async

from console.models import Delivery
from console.notify import Courier

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """`status`: what is answered. While `hold` is not set nothing is. `got`: (headers, body) of every message that came."""

    port: int
    status: int = 204
    answer: dict[str, Any] = field(default_factory=dict)  # further arguments of the response
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    @property
    def host_port(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host_port}/hook?tenant=acme"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    async def up(self) -> None:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_post("/hook", self.take)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        if self.runner:
            await self.runner.cleanup()
            self.runner = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, body))
        await self.hold.wait()
        return web.Response(status=self.status, **self.answer)


@asynccontextmanager
async def receiving(*, up: bool = True) -> AsyncIterator[Receiver]:
    """On a free port of loopback; nobody listens there when it is not `up`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Receiver(free.getsockname()[1])
    made.hold.set()
    if up:
        await made.up()
    try:
        yield made
    finally:
        made.hold.set()
        await made.down()


@asynccontextmanager
async def courier(**options: Any) -> AsyncIterator[Courier]:
    made = Courier(**{"poll_s": 0.05, "patience_s": 1.0, **options})
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        await running


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """`condition` asks the database."""
    async with asyncio.timeout(seconds):
        while not await sync_to_async(condition)():
            await asyncio.sleep(0.02)


def settled(count: int) -> Callable[[], bool]:
    return lambda: Delivery.objects.filter(state="delivered").count() == count
