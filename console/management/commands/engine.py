"""`manage.py engine`: drive runs until SIGTERM. A second SIGTERM ends it at once."""

import asyncio
import os
import signal
from argparse import ArgumentParser
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand

from runs.engine.engine import Engine


class Command(BaseCommand):
    help = "Drive agent runs: one asyncio engine, any number of them on any number of hosts."
    requires_system_checks = ()  # `make check` and `up` run them: an engine starts at once and without the pages

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--slots", type=int, default=settings.ENGINE_SLOTS, help="runs in flight at most")
        parser.add_argument("--lease", type=float, default=settings.LEASE_TTL_S, help="seconds of the engine's lease")

    def handle(self, *args: Any, **options: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(drive(options["slots"], options["lease"]))


async def drive(slots: int, ttl_s: float) -> None:
    engine = Engine(settings.ENGINE_URL, slots=slots, ttl_s=ttl_s)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        engine.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: os._exit(1))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await engine.run()
