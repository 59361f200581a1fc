"""A model provider that counts: what is in flight, and what it bills for every request that it received, answered or not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from asgiref.sync import sync_to_async

from runs.models import ModelDefinition
from tenants import controls
from tenants.models import EgressAllow

ANSWER = "Your refund was made today, and the money will be there in three to five days. " * 3
TOKENS_OUT = 60  # of that answer


@dataclass
class Provider:
    """Prices as in tests.runtime.world: a micro-USD for a token in, two for a token out."""

    url: str = ""
    wait_s: float = 0.03
    in_flight: int = 0
    most: int = 0
    requests: int = 0
    billed_micro: int = 0

    async def complete(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        tokens_in = sum(len(message["content"]) for message in body["messages"]) // 4 + 8
        self.requests += 1
        self.billed_micro += tokens_in + 2 * TOKENS_OUT
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.wait_s)
        finally:
            self.in_flight -= 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
        usage = {"prompt_tokens": tokens_in, "completion_tokens": TOKENS_OUT}
        return web.json_response({"id": "x", "model": body["model"], "choices": [choice], "usage": usage})


@asynccontextmanager
async def opened(model: str = "primary", **options: Any) -> AsyncIterator[Provider]:
    """Listening on loopback, and the model of that name is there."""
    provider = Provider(**options)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        await EgressAllow.objects.aget_or_create(host_port=urlsplit(provider.url).netloc)
        await ModelDefinition.objects.filter(name=model).aupdate(base_url=f"{provider.url}/v1")
        await sync_to_async(controls.bump)(None)
        yield provider
    finally:
        await runner.cleanup()
