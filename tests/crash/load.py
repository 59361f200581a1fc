"""Load for the crash tests: many runs of three kinds, engines that can be struck at random, and waiting until everything rests."""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections

from runs.models import Engine, Event, Run
from tests.runtime.world import TEXT, TICKET, World, call, schema
from tools import catalog
from tools.breakers import host_port
from tools.models import Breaker
from tools.spec import ToolSpec

from .nursery import Forked, Nursery
from .oracle import HELD, violations

EFFECTS = ("read", "keyed", "unkeyed")
TOOL = {"read": "search_docs", "keyed": "create_ticket", "unkeyed": "send_email"}


def arguments(effect: str, tag: str) -> dict[str, Any]:
    if effect == "read":
        return {"query": tag}
    return {**TICKET, "summary": tag} if effect == "keyed" else {"to": "a@example.com", "subject": tag, "body": "b"}


@dataclass
class Load:
    """Runs in a world, and the engines that drive them."""

    world: World
    nursery: Nursery
    seed: int = 1
    lease: float = 1.0
    slots: int = 15
    engines: list[Forked] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    async def open(self, slow_ms: int = 0, **deadlines: float) -> None:
        """The agent, its permissions, and tools and models that take `slow_ms`. No breaker: here every call is to be sent."""
        await Breaker.objects.acreate(tenant=self.world.tenant, host_port=host_port(self.world.url), forced="closed")
        await self.world.agent(deadlines={"model_call_s": 3, "tool_call_s": 1, "step_s": 30, "run_s": 600, **deadlines})
        for tool in TOOL.values():
            await self.world.permit(tool, "allow", loosen=True)
        for target in (*TOOL.values(), "model") if slow_ms else ():
            await self.world.fault(target, "latency", times=-1, ms=slow_ms)

    async def submit(self, count: int, kinds: tuple[str, ...] = EFFECTS) -> None:
        for _ in range(count):
            number = len(self.runs)
            effect = kinds[number % len(kinds)]
            turn = call(TOOL[effect], **arguments(effect, f"run {number:05d}"))
            self.runs.append(await self.world.script(turn, {"text": "Done."}))

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            self.engines.append(self.nursery.start(lease=self.lease, slots=self.slots))

    async def strike(self, number: int = signal.SIGKILL) -> Forked | None:
        """Send a signal to one engine that drives runs, and take it from the list; None if nobody drives any."""
        owners = {e.pid async for e in Engine.objects.filter(id__in=Run.objects.filter(owner__isnull=False).values("owner"))}
        busy = [engine for engine in self.engines if engine.alive and engine.pid in owners]
        if not busy:
            return None
        victim = self.random.choice(busy)
        self.engines.remove(victim)
        victim.send(number)
        return victim

    async def unfinished(self) -> int:
        return await Run.objects.exclude(state__in=HELD).acount()

    async def rest(self, seconds: float = 120, while_waiting: Callable[[], Awaitable[None]] | None = None) -> None:
        """Until every run ended or waits for people, and nothing is wrong any more."""
        end = time.monotonic() + seconds
        while await self.unfinished():
            if while_waiting:
                await while_waiting()
            await asyncio.sleep(0.05)
            if time.monotonic() > end:
                left = Counter([(run.state, str(run.owner)) async for run in Run.objects.exclude(state__in=HELD)])
                raise AssertionError(f"not at rest after {seconds} s: {left}\n{self.log()[-3000:]}")
        wrong = await violations(self.world)
        end = time.monotonic() + 8  # cases are opened, and late evidence used, once a second
        while wrong and time.monotonic() < end:
            await asyncio.sleep(0.2)
            wrong = await violations(self.world)
        assert not wrong, "\n".join(wrong[:20])
        assert await Run.objects.acount() == len(self.runs), "a run is lost"

    def log(self) -> str:
        return "".join(engine.log.read_text() for engine in self.nursery.children)

    async def counters(self) -> dict[str, Any]:
        """What shows that something happened: ends by state, takeovers, unknown writes, stale engines that stopped."""
        states = Counter([run.state async for run in Run.objects.all()])
        kinds = Counter([kind async for kind in Event.objects.values_list("kind", flat=True)])
        stale = self.log().count("belongs to another engine now")
        return {
            **states,
            "takeovers": kinds["run_taken_over"],
            "unknown_writes": kinds["tool_call_unknown"],
            "stale_engines_stopped": stale,
        }

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


async def patiently(step: Callable[[], Awaitable[Any]]) -> Any:
    """Again while the database is away."""
    while True:
        try:
            return await step()
        except DatabaseError:
            with contextlib.suppress(DatabaseError):
                await sync_to_async(connections.close_all)()
            await asyncio.sleep(0.1)


async def put_python(world: World, name: str) -> None:
    spec = {"adapter": {"kind": "python", "name": name}, "description": name, "effect": "read", "input_schema": schema(tag=TEXT),
            "timeout_s": 20}  # fmt: skip
    await sync_to_async(catalog.put)(None, name, ToolSpec.model_validate(spec))
