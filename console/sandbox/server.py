"""The demo world over HTTP: desk tools, simulated model, fault switches, ledger. aiohttp, because a fault must be able to
close a connection without an answer, which no ASGI server lets an application do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from console.sandbox import messages
from console.sandbox.completions import Answer, answer_json, complete, error, list_models
from console.sandbox.faults import Fault, FaultBoard
from console.sandbox.world import READS, WRITES, World, args_sha256, parse_since, rfc3339

DESK_PATHS = {
    "/desk/docs/search": "search_docs",
    "/desk/accounts/fetch": "fetch_account",
    "/desk/charges/list": "list_charges",
    "/desk/tickets": "create_ticket",
    "/desk/tickets/close": "close_ticket",
    "/desk/refunds": "issue_refund",
    "/desk/emails": "send_email",
    "/desk/accounts/delete": "delete_account",
    "/desk/lookup": "lookup",
}
_MAX_BODY = 8 << 20


class Sandbox:
    """One demo world and its HTTP application. Latencies in milliseconds."""

    def __init__(self, *, model_latency_ms: int = 350, desk_latency_ms: int = 80) -> None:
        self.world = World()
        self.faults = FaultBoard(frozenset({*READS, *WRITES, "model"}))
        self._model_latency_ms = model_latency_ms
        self._desk_latency_ms = desk_latency_ms
        self._cleared = asyncio.Event()

    def build_app(self) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(client_max_size=_MAX_BODY)
        for path, tool in DESK_PATHS.items():
            app.router.add_post(path, self._desk_handler(tool))
        app.router.add_get("/desk/lookup", self._lookup)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/ledger", self._ledger)
        app.router.add_get("/received", self._received)
        app.router.add_post("/reset", self._reset)
        app.router.add_get("/faults", self._list_faults)
        app.router.add_put("/faults", self._put_fault)
        app.router.add_delete("/faults", self._clear_faults)
        app.router.add_get("/healthz", self._healthz)
        app.on_shutdown.append(self._release_held)
        return app

    def _desk_handler(self, tool: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(request, tool, lambda raw: self._desk(request, tool, raw))

        return handle

    def _desk(self, request: web.Request, tool: str, raw: bytes) -> Answer:
        try:
            args = json.loads(raw)
        except (ValueError, RecursionError):
            return answer_json(422, {"error": "the body is not JSON"}, latency_ms=self._desk_latency_ms)
        key = request.headers.get("Idempotency-Key")
        status, body = self.world.perform(tool, key, args, time.time())
        return answer_json(status, body, latency_ms=self._desk_latency_ms)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "model", complete)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        version = request.headers.get("anthropic-version")
        return await self._serve(request, "model", lambda raw: messages.complete(raw, version))

    async def _serve(self, request: web.Request, target: str, work: Callable[[bytes], Answer]) -> web.StreamResponse:
        """Note the request, let a fault have its way, do the work in one step, answer after the usual delay.

        The work comes before the delay: a caller that gives up early meets a write that is applied, not one that
        is applied later, so what a lookup says stays true.
        """
        raw = await request.read()
        fault = self.faults.take(target, raw)
        self._note(request, target, raw, fault)
        kind = fault.fault if fault else None
        if kind in ("429", "500"):
            return _refuse(target, int(kind))
        if fault and kind == "hang":
            await self._hold(fault.ms)
        if kind in ("hang", "drop_before"):
            return _abort(request)
        answer = work(raw)
        usual = self._model_latency_ms if answer.latency_ms is None else answer.latency_ms
        await asyncio.sleep((usual + (fault.ms if fault and kind == "latency" else 0)) / 1000)
        if kind == "drop_after":
            return _abort(request)
        if fault and kind == "slow_drip":
            return await self._drip(request, answer, fault.ms)
        return _response(_spoil(target, answer) if kind == "malformed" else answer)

    def _note(self, request: web.Request, target: str, raw: bytes, fault: Fault | None) -> None:
        try:
            digest: str | None = args_sha256(json.loads(raw))
        except (ValueError, RecursionError):
            digest = None
        self.world.received.append(
            {
                "target": target,
                "key": request.headers.get("Idempotency-Key"),
                "run": request.headers.get("X-Signalbox-Run"),
                "traceparent": request.headers.get("traceparent"),
                "args_sha256": digest,
                "fault": fault.fault if fault else None,
                "at": rfc3339(time.time()),
            }
        )

    async def _hold(self, ms: float) -> None:
        """Waits, at most until the faults are cleared."""
        try:
            await asyncio.wait_for(self._cleared.wait(), ms / 1000)
        except TimeoutError:
            return

    async def _drip(self, request: web.Request, answer: Answer, ms: int) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_type = answer.content_type
        response.content_length = len(answer.body)
        try:
            await response.prepare(request)
            for place in range(len(answer.body)):
                await response.write(answer.body[place : place + 1])
                await self._hold(ms / len(answer.body))
            await response.write_eof()
        except ConnectionError:
            return _abort(request)  # the caller gave up, which is what this fault is for
        return response

    async def _lookup(self, request: web.Request) -> web.Response:
        status, body = self.world.perform("lookup", None, dict(request.query), time.time())
        return web.json_response(body, status=status)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(list_models())

    async def _ledger(self, request: web.Request) -> web.Response:
        try:
            since = parse_since(request.query.get("since", "0"))
        except ValueError:
            return web.json_response({"error": "since is a number of seconds or an ISO 8601 time"}, status=422)
        return web.json_response({"effects": [e.as_json() for e in self.world.effects if e.at >= since]})

    async def _received(self, request: web.Request) -> web.Response:
        return web.json_response({"requests": list(self.world.received)})

    async def _reset(self, request: web.Request) -> web.Response:
        self.world.reset()
        return await self._clear_faults(request)

    async def _list_faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self.faults.as_json()})

    async def _put_fault(self, request: web.Request) -> web.Response:
        try:
            self.faults.put(json.loads(await request.read()))
        except (ValueError, RecursionError) as problem:
            return web.json_response({"error": str(problem)}, status=422)
        return await self._list_faults(request)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear(request.query.get("target"))
        await self._release_held()
        return await self._list_faults(request)

    async def _release_held(self, app: web.Application | None = None) -> None:
        held, self._cleared = self._cleared, asyncio.Event()
        held.set()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type, headers=answer.headers)


def _refuse(target: str, status: int) -> web.Response:
    headers = {"Retry-After": "1"} if status == 429 else {}
    message = "too many requests" if status == 429 else "something broke"
    if target == "model":
        return _response(error(status, message, "injected", headers=headers))
    return _response(answer_json(status, {"error": message}, headers=headers))


def _spoil(target: str, answer: Answer) -> Answer:
    if target == "model":
        return Answer(200, b"<!doctype html><title>502 Bad Gateway</title>", "text/html")
    return Answer(200, answer.body[: len(answer.body) // 2] + b"<<<")


def _abort(request: web.Request) -> web.Response:
    """Closes the connection at once; what is returned is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
