"""A small committed world for tests of the engine: a tenant, people, tools of the sandbox, models, and agents made on the spot."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from asgiref.sync import sync_to_async

from console.sandbox import fixtures
from runs import intake
from runs.engine.engine import Engine
from runs.models import Agent, Call, Event, ModelDefinition, Release, Run
from runs.spec import ReleaseSpec
from tenants.actors import Actor
from tenants.models import Controls, EgressAllow, Member, Tenant, User
from tools import catalog
from tools.models import Permission
from tools.spec import ToolSpec

OPEN: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


TEXT = {"type": "string", "maxLength": 500}
TOOLS: dict[str, dict[str, Any]] = {
    "search_docs": {"path": "/desk/docs/search", "effect": "read", "input": schema(query=TEXT)},
    "fetch_account": {"path": "/desk/accounts/fetch", "effect": "read", "input": schema(account_id={**TEXT, "pattern": "^acct_"})},
    "create_ticket": {
        "path": "/desk/tickets",
        "effect": "write",
        "idempotency": "key",
        "input": schema(account_id=TEXT, priority={"enum": ["low", "normal", "urgent"]}, summary=TEXT),
    },
    "send_email": {"path": "/desk/emails", "effect": "write", "input": schema(to=TEXT, subject=TEXT, body=TEXT)},
    "delete_account": {"path": "/desk/accounts/delete", "effect": "irreversible", "input": schema(account_id=TEXT)},
}
TICKET = {"account_id": "acct_1001", "priority": "urgent", "summary": "charged twice"}


@dataclass
class World:
    url: str
    dsn: str
    tenant: Tenant
    people: dict[str, Actor]
    engines: list[tuple[Engine, asyncio.Task[None]]] = field(default_factory=list)

    async def engine(self, **options: Any) -> Engine:
        engine = Engine(self.dsn, **{"ttl_s": 5.0, **options})
        self.engines.append((engine, asyncio.create_task(engine.run())))
        return engine

    async def permit(self, tool: str, decision: str, **more: Any) -> None:
        def write() -> None:
            Permission.objects.update_or_create(tool_id=tool, tenant=self.tenant, defaults={"decision": decision, **more})
            Controls.objects.filter(tenant=self.tenant).update(rev=int(time.time() * 1000))

        await sync_to_async(write)()

    async def agent(self, name: str = "helper", tools: tuple[str, ...] = tuple(TOOLS), **release: Any) -> None:
        await sync_to_async(make_agent)(name, tools, release)

    async def submit(self, text: str, agent: str = "helper", by: str = "operator", **order: Any) -> Run:
        made = await sync_to_async(intake.submit)(self.people[by], intake.Order(agent=agent, input=text, **order))
        return made.run

    async def script(self, *turns: Any, **order: Any) -> Run:
        """A run whose simulated model does exactly these turns."""
        return await self.submit("please\n#sim " + json.dumps({"turns": list(turns)}), **order)

    async def until(self, run: Run, *states: str, seconds: float = 60) -> Run:
        end = time.monotonic() + seconds
        while True:
            found = await Run.objects.select_related("asked").aget(id=run.id)
            if found.state in (states or ("succeeded", "failed", "cancelled")):
                return found
            if time.monotonic() > end:
                events = [e.kind async for e in Event.objects.filter(run_id=run.id).order_by("seq")]
                raise AssertionError(f"run is {found.state}, not {states}: {found.last_error} {events}")
            await asyncio.sleep(0.02)

    async def kinds(self, run: Run) -> list[str]:
        return [e.kind async for e in Event.objects.filter(run_id=run.id).order_by("seq")]

    async def events(self, run: Run) -> list[Event]:
        return [e async for e in Event.objects.filter(run_id=run.id).order_by("seq")]

    async def calls(self, run: Run) -> list[Call]:
        return [c async for c in Call.objects.filter(run_id=run.id).order_by("step", "ord")]

    async def answer(self, run: Run) -> str:
        call = await Call.objects.aget(run_id=run.id, step=run.answer_step, ord=0)
        return str(call.result["text"])

    async def http(self, method: str, path: str, body: Any = None) -> Any:
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, json=body) as answer:
            return await answer.json() if answer.content_type == "application/json" else None

    async def fault(self, target: str, fault: str, times: int = 1, **more: Any) -> None:
        await self.http("PUT", "/faults", {"target": target, "fault": fault, "times": times, **more})

    async def ledger(self) -> list[dict[str, Any]]:
        return list((await self.http("GET", "/ledger"))["effects"])

    async def received(self) -> list[dict[str, Any]]:
        return list((await self.http("GET", "/received"))["requests"])


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": name, "arguments": arguments}]}


def make_agent(name: str, tools: tuple[str, ...], release: dict[str, Any]) -> None:
    block = {
        "instructions": "You are a test.",
        "tools": list(tools),
        "models": {"planner": {"model": "primary"}},
        "budget": {"max_steps": 12},
        "deadlines": {"model_call_s": 10, "tool_call_s": 5, "step_s": 100, "run_s": 300},
        **release,
    }
    spec = ReleaseSpec.model_validate(block).model_dump(mode="json")
    pinned = {t.name: str(t.current_id) for t in catalog_tools(tools)}
    agent, _ = Agent.objects.get_or_create(name=name)
    number = Release.objects.filter(agent=agent).count() + 1
    agent.live = Release.objects.create(agent=agent, number=number, spec=spec, tools=pinned, sha256=f"{number:064d}")
    agent.save()


def catalog_tools(names: tuple[str, ...]) -> list[Any]:
    from tools.models import Tool

    return list(Tool.objects.filter(name__in=names))


def make_people(tenant: Tenant) -> dict[str, Actor]:
    people = {}
    for role in ("viewer", "operator", "approver", "admin"):
        user = User.objects.create(username=f"{role}-{tenant.slug}", is_active=True)
        Member.objects.create(tenant=tenant, user=user, role=role)
        people[role] = Actor(user, tenant, role)
    second = User.objects.create(username=f"second-{tenant.slug}")
    Member.objects.create(tenant=tenant, user=second, role="approver")
    people["second"] = Actor(second, tenant, "approver")
    return people


def make_world(url: str, slug: str) -> tuple[Tenant, dict[str, Actor]]:
    tenant = Tenant.objects.create(slug=slug)
    Controls.objects.get_or_create(tenant=tenant)
    EgressAllow.objects.get_or_create(host_port=urlsplit(url).netloc)
    for name, size in (("primary", "sim-medium"), ("spare", "sim-small")):
        ModelDefinition.objects.get_or_create(
            name=name,
            defaults={
                "provider": "openai", "base_url": f"{url}/v1", "model": size, "price_input": "1", "price_output": "2", "timeout_s": 5,
                "retry": {"max_attempts": 2, "backoff_ms": [10]},
            },
        )  # fmt: skip
    for name, tool in TOOLS.items():
        catalog.put(None, name, ToolSpec.model_validate({
            "adapter": {"kind": "http", "url": url + tool["path"]}, "description": f"{name} of the test desk", "effect": tool["effect"],
            "idempotency": tool.get("idempotency", "none"), "input_schema": tool["input"], "timeout_s": 2,
            "retry": {"max_attempts": 3, "backoff_ms": [10]},
        }))  # fmt: skip
    return tenant, make_people(tenant)


@asynccontextmanager
async def opened(dsn: str, **sandbox: Any) -> AsyncIterator[World]:
    """The sandbox in this loop, a tenant `acme`, and every engine that the test starts stopped again."""
    runner, url = await fixtures.start(**sandbox)
    tenant, people = await sync_to_async(make_world)(url, "acme")
    world = World(url, dsn, tenant, people)
    try:
        yield world
    finally:
        for engine, _ in world.engines:
            engine.stop()
        await asyncio.gather(*(task for _, task in world.engines), return_exceptions=True)
        await runner.cleanup()


Check = Callable[[World], Any]
