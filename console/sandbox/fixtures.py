"""Starts the demo world inside a running event loop: for tests, and for the `sandbox` command."""

from __future__ import annotations

from aiohttp import web

from console.sandbox.server import Sandbox


async def start(
    port: int = 0, host: str = "127.0.0.1", *, model_latency_ms: int = 0, desk_latency_ms: int = 0
) -> tuple[web.AppRunner, str]:
    """Listens and returns (runner, base url). Port 0 takes a free one. `await runner.cleanup()` stops it.

    Raises OSError when the port is taken.
    """
    sandbox = Sandbox(model_latency_ms=model_latency_ms, desk_latency_ms=desk_latency_ms)
    runner = web.AppRunner(sandbox.build_app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, f"http://{host}:{runner.addresses[0][1]}"
