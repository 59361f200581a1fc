"""Runs parked for people in bulk, a desk that keeps every byte it receives, and what people do at a chosen moment of the dispatch."""

import random
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from asgiref.sync import sync_to_async
from django.db import connections

from approvals.models import Approval
from runs import failpoints, signoff
from runs.models import Run
from runs.states import RunState
from tenants import controls, credentials
from tenants.actors import Actor
from tenants.models import EgressAllow
from tests.runtime.receiver import until
from tests.runtime.world import TEXT, World, call, schema
from tools import catalog, permissions
from tools.models import Breaker
from tools.spec import ToolSpec

TOOLS = tuple(f"desk_{number:02d}" for number in range(16))
MOVING = (RunState.QUEUED, RunState.RUNNING, RunState.CANCELLING, RunState.WAITING_TIMER)
WORDS = ("refund", "Grüße", "日本", "1e400", '"quoted"', "\\", "<b>", "\u202eright-to-left", "", "e\u0301", "null", "\t")
ARGUMENTS = schema(to=TEXT, subject=TEXT, amount={"type": "integer"}, urgent={"type": "boolean"})


@dataclass
class Desk:
    """`got`: run id -> the body of each request that came for it, as it came."""

    url: str
    got: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    async def take(self, request: web.Request) -> web.Response:
        self.got[request.headers["X-Signalbox-Run"]].append(await request.read())
        return web.json_response({"ok": True})


@asynccontextmanager
async def desk(world: World, tools: tuple[str, ...]) -> AsyncIterator[Desk]:
    """Listening, with these tools (writes, half of them without a key, each with a credential of its own) and the agent `clerk`."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    made = Desk("")
    app.router.add_post("/{tool}", made.take)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host_port = f"127.0.0.1:{runner.addresses[0][1]}"
    made.url = f"http://{host_port}"
    await EgressAllow.objects.acreate(host_port=host_port)
    await Breaker.objects.acreate(tenant=world.tenant, host_port=host_port, forced="closed")
    await sync_to_async(put_tools)(world, made.url, tools)
    await world.agent("clerk", tools, deadlines={"run_s": 3600, "step_s": 600})
    try:
        yield made
    finally:
        failpoints.arm("")
        await runner.cleanup()


def put_tools(world: World, url: str, tools: tuple[str, ...]) -> None:
    for number, name in enumerate(tools):
        spec = {
            "adapter": {"kind": "http", "url": f"{url}/{name}"}, "description": f"{name} of the desk", "effect": "write",
            "idempotency": "key" if number % 2 else "none", "input_schema": ARGUMENTS, "credential": f"of_{name}",
        }  # fmt: skip
        catalog.put(None, name, ToolSpec.model_validate(spec))
        credentials.store(world.tenant, f"of_{name}", "bearer", f"secret of {name}")


def letter(rnd: random.Random, tag: str) -> dict[str, Any]:
    """Arguments whose bytes are easy to get wrong; `tag` makes them the only ones of their kind."""
    words = " ".join(rnd.choices(WORDS, k=rnd.randint(1, 4)))
    return {"to": tag, "subject": words, "amount": rnd.choice([0, -1, 7, 2**53 + 1, 10**17]), "urgent": rnd.random() < 0.5}


async def parked(world: World, tools: list[str], rnd: random.Random) -> list[Run]:
    """One run for each tool named, waiting for people; the engine that brought them there is gone."""
    runs = [await world.script(call(t, **letter(rnd, f"{n:05d}")), {"text": "Done."}, agent="clerk") for n, t in enumerate(tools)]
    await drive(world)
    waiting = await Run.objects.filter(state=RunState.WAITING_APPROVAL, id__in=[run.id for run in runs]).acount()
    assert waiting == len(runs), f"{waiting} of {len(runs)} wait for people"
    return runs


async def drive(world: World, engines: int = 1) -> None:
    """Engines come, drive until nothing moves, and go."""
    for _ in range(engines):
        await world.engine(slots=60)
    await until(lambda: not Run.objects.filter(state__in=MOVING).exists(), 300)
    await stop(world)


async def stop(world: World) -> None:
    while world.engines:
        engine, task = world.engines.pop()
        engine.stop()
        await task


def asked(run: Run) -> Approval:
    """The newest request of a run that waits."""
    return Approval.objects.filter(run_id=run.id, state=Approval.State.PENDING).latest("id")


def drift_tool(world: World, tool: str, kind: str) -> None:
    """credential, disabled, denied, approvers: what changes about every call of a tool."""
    if kind == "credential":
        credentials.store(world.tenant, f"of_{tool}", "bearer", "another secret")
        controls.bump(world.tenant)
    elif kind == "disabled":
        catalog.set_enabled(None, tool, False)
    else:
        more = {"decision": "deny"} if kind == "denied" else {"decision": "ask", "approvers": 2}
        permissions.set_permission(None, tool, world.tenant, **more)


def yes(actor: Actor, approval: Approval, **more: Any) -> Approval:
    return signoff.decide(actor, approval.id, **({"verdict": "approve", "digest": approval.digest} | more))


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """On a connection that is closed afterwards."""

    def go() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return go


def before_consumption(work: Callable[[], Any]) -> None:
    """A person's own transaction, over before the engine goes on: everything about the next approved call has been checked but once."""

    def act() -> None:
        person = threading.Thread(target=in_thread(work))
        person.start()
        person.join()

    failpoints.put("before_consume", act)
