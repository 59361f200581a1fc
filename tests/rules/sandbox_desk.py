"""One sandbox of a test's own, somebody who talks to it, and whole conversations with its model."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import yaml

from console.sandbox.fixtures import start

TICKET = {"account_id": "acct_1001", "priority": "urgent", "summary": "charged twice"}
TICKETS = "/desk/tickets"
DEMO = Path(__file__).parents[2] / "console" / "sandbox" / "demo.yaml"


class Client:
    """Talks to one sandbox over a new connection each time, as separate callers would."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def send(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, Any]:
        return await self.send("POST", path, body, key)

    async def fault(self, target: str, fault: str, times: int = 1, **more: Any) -> None:
        status, answer = await self.send("PUT", "/faults", {"target": target, "fault": fault, "times": times, **more})
        assert status == 200, answer

    async def effects(self, query: str = "") -> list[dict[str, Any]]:
        return (await self.send("GET", "/ledger" + query))[1]["effects"]

    async def received(self) -> list[dict[str, Any]]:
        return (await self.send("GET", "/received"))[1]["requests"]

    async def chat(self, text: str, *tools: str, model: str = "sim-medium", **more: Any) -> tuple[int, Any]:
        return await self.post("/v1/chat/completions", request([user(text)], tools, model, **more))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def request(messages: list[Any], tools: tuple[str, ...] = (), model: str = "sim-medium", **more: Any) -> dict[str, Any]:
    offered = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in tools]
    return {"model": model, "messages": messages, **({"tools": offered} if offered else {}), **more}


@pytest.fixture
async def desk() -> AsyncIterator[Client]:
    runner, url = await start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield Client(session, url)
    await runner.cleanup()


def demo() -> dict[str, Any]:
    return yaml.safe_load(DEMO.read_text())


TOOLS = {tool["name"]: tool for tool in demo()["tools"]}


async def play(
    desk: Client, text: str, tools: tuple[str, ...], *, model: str = "sim-medium", **answers: dict[str, Any]
) -> tuple[list[str], str]:
    """Plays a whole conversation as an agent would; `answers` replaces the desk's result of a tool.

    Returns the names of the tools called, in order, and the final text. Checks every message against demo.yaml.
    """
    messages, called = [user(text)], []
    for turn in range(10):
        status, body = await desk.post("/v1/chat/completions", request(messages, tools, model))
        assert status == 200, body
        message = body["choices"][0]["message"]
        if not message.get("tool_calls"):
            assert body["choices"][0]["finish_reason"] == "stop"
            return called, message["content"]
        (call,) = message["tool_calls"]
        name, args = call["function"]["name"], json.loads(call["function"]["arguments"])
        jsonschema_rs.validate(TOOLS[name]["input_schema"], args)
        called.append(name)
        result = answers.get(name) or await use(desk, name, args, f"{text}/{turn}")
        messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}]
    raise AssertionError("the story does not end")


async def use(desk: Client, name: str, args: Any, key: str) -> dict[str, Any]:
    path = TOOLS[name]["adapter"]["url"].removeprefix("${SANDBOX_URL}")
    status, body = await desk.post(path, args, key)
    if status != 200:
        return {"ok": False, "error_type": "validation", "message": body["error"]}
    jsonschema_rs.validate(TOOLS[name]["output_schema"], body)
    return {"ok": True, **body}


def script(*turns: dict[str, Any]) -> str:
    return "Do as the script says.\n#sim " + json.dumps({"turns": turns})
