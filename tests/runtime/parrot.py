"""The other side at its worst: tools that quote the key they were sent in every answer, and models that repeat what they know."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tools.redaction import spellings


def spelled(secret: str) -> list[str]:
    """As it is, and in every encoding, also in the middle of something longer."""
    inside = [base64.b64encode(b"x" * n + secret.encode() + b"yy").decode() for n in range(3)]
    return [*spellings(secret), *inside, f"Bearer {secret}"]


def escaped(secret: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in secret)


Answer = Callable[[str, web.Request], web.StreamResponse]
HTML = {"content_type": "text/html"}


def said(status: int, **fields: Any) -> Answer:
    def answer(secret: str, request: web.Request) -> web.StreamResponse:
        filled = json.loads(json.dumps(fields).replace("SECRET", json.dumps(secret)[1:-1]))
        return web.json_response(filled, status=status, headers={"Location": f"/elsewhere?key={secret}", "Retry-After": "0"})

    return answer


TOOLS: dict[str, Answer] = {
    "echo": lambda s, r: web.json_response({"headers": dict(r.headers), "seen": spelled(s), s: {s.encode().hex(): s}, "found": True}),
    "quoting_401": said(401, message="the key SECRET is wrong"),
    "quoting_403": said(403, error={"code": 7, "detail": ["SECRET", {"SECRET": 1}]}),
    "quoting_500": lambda s, r: web.Response(status=500, text=f"<h1>{s}</h1>" + "".join(spelled(s)), **HTML),
    "quoting_429": said(429, message="slow down, SECRET"),
    "cut_400": lambda s, r: web.Response(status=400, text="x" * 490 + s),
    "broken": lambda s, r: web.Response(text=json.dumps({"a": s})[:-2], content_type="application/json"),
    "own_error": said(200, ok=False, error_type="SECRET", message="y" * 493 + "SECRET"),
    "misfit": said(200, token="SECRET" + "z" * 400),
    "redirect": said(302, message="SECRET"),
    "applied": said(409, already_applied=True, message="SECRET", seen="SECRET"),
}


class Parrot:
    """`secrets`: name -> value, as `t3` and `m3` of case 3; `kinds`: how the tool of a case answers. Keeps all it was sent."""

    def __init__(self, secrets: dict[str, str], modes: list[str]) -> None:
        self.secrets, self.modes = secrets, modes
        self.told: list[str] = []  # bodies of what models and tools were sent
        self.headers: list[dict[str, str]] = []

    async def tool(self, request: web.Request) -> web.StreamResponse:
        await self.keep(request)
        number = request.match_info["case"]
        mode = request.match_info["mode"]
        if mode == "hang":
            await asyncio.sleep(60)
        if mode == "drop" and request.transport is not None:
            request.transport.close()
        return TOOLS.get(mode, TOOLS["echo"])(self.secrets[f"t{number}"], request)

    async def model(self, request: web.Request) -> web.StreamResponse:
        body = await self.keep(request)
        number = int(request.match_info["case"])
        mine, other = self.secrets[f"m{number}"], self.secrets[f"t{number}"]
        if body["messages"][-1]["role"] != "tool":
            name = body["tools"][0]["function"]["name"]
            calls = [(f"call-{mine[:20]}", name, f'{{"text": "{escaped(mine)} {escaped(other)}"}}')]
            return completion(mine, calls=calls, text=f"I use {mine} and {' '.join(spelled(other))}")
        match number % 5:
            case 0:
                return completion(mine, text=" ".join(spelled(mine) + spelled(other)))
            case 1:
                return web.json_response({"error": {"message": "w" * 280 + f" Incorrect API key provided: {mine}"}}, status=401)
            case 2:
                return web.json_response({"error": f"{mine} {other}"}, status=500)
            case 3:
                return web.Response(text=f'{{"choices": "{mine}', content_type="application/json")
            case _:
                unknown = [("1", mine, json.dumps({mine: spelled(other)})), ("2", "nobody", f"no JSON {mine}"), ("3", other, "[]")]
                asked = sum(message["role"] == "assistant" for message in body["messages"])
                return completion(mine, calls=unknown) if asked < 2 else completion(mine, text=f"It was {mine}.")

    async def keep(self, request: web.Request) -> Any:
        text = await request.text()
        self.told.append(f"{request.rel_url} {text}")
        self.headers.append(dict(request.headers))
        return json.loads(text)


def completion(model: str, text: str = "", calls: list[tuple[str, str, str]] | None = None) -> web.Response:
    asks = [{"id": i, "type": "function", "function": {"name": name, "arguments": raw}} for i, name, raw in calls or []]
    message = {"role": "assistant", "content": text, **({"tool_calls": asks} if asks else {})}
    choice = {"message": message, "finish_reason": "tool_calls" if asks else "stop"}
    return web.json_response({"model": model, "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})


@asynccontextmanager
async def listening(parrot: Parrot) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/tools/{case}/{mode}", parrot.tool)
    app.router.add_post("/models/{case}/chat/completions", parrot.model)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
