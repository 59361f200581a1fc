"""`manage.py sandbox`: the demo world in a process of its own."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import uvloop
from django.core.management.base import BaseCommand, CommandError, CommandParser

from console.sandbox.fixtures import start


class Command(BaseCommand):
    help = "Run the demo world: desk tools and a simulated model over HTTP, with fault switches. State is in memory."
    requires_system_checks: list[str] = []  # it uses neither database nor settings, and starts without them

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=9009, help="port, 0 for a free one (default: %(default)s)")
        parser.add_argument("--model-latency-ms", type=int, default=350, help="delay of the model (default: %(default)s)")
        parser.add_argument("--desk-latency-ms", type=int, default=80, help="delay of a tool (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(options))

    async def _serve(self, options: dict[str, Any]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        latencies = {name: max(0, options[name]) for name in ("model_latency_ms", "desk_latency_ms")}
        try:
            runner, url = await start(options["port"], options["host"], **latencies)
        except OSError as error:
            raise CommandError(f"Cannot listen on port {options['port']} ({error.strerror}); choose another with --port.")
        self.stdout.write(f"Sandbox ready at {url}")
        self.stdout.flush()
        await stop.wait()
        await runner.cleanup()
