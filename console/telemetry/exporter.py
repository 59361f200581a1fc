"""Sends what `progress` says is still to be told, through the guarded way out, from a thread of the `jobs` process.

Runs are never waited for and never wait: their spans are made of rows, after they have ended. A receiver that does not answer, or not
with a 2xx, keeps everything in the rows; the next try comes later and later.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections, connections

from tools.egress import Egress, EgressFailure, build_request

from . import gather, otlp, progress
from .spans import Span
from .target import Target, target

log = logging.getLogger(__name__)
T = TypeVar("T")
POLL_S = 5.0
WALL_S = 10.0  # for one exchange
SPANS = 512  # in one request; a run with more of them leaves in parts
MAX_ANSWER = 64 * 1024
REFUSED = (400, 413, 422)  # what was sent is at fault and not the moment: the protocol forbids to send it again


@dataclass(frozen=True, slots=True)
class Batch:
    """`bad`: runs that cannot be told at all."""

    runs: list[UUID]
    bodies: list[bytes] = field(default_factory=list)
    bad: list[UUID] = field(default_factory=list)


def configured() -> Target | None:
    """Raises ValueError, naming the setting that is wrong."""
    return target(settings.OTEL_ENDPOINT, settings.OTEL_HEADERS, settings.OTEL_PROTOCOL)


def batch_due(to: Target, buffer: timedelta) -> Batch | None:
    """None: it is not ours now. Without runs: there is nothing to tell."""
    due = progress.take(buffer)
    if due is None:
        return None
    made, bad = gather.spans_of(due)
    runs: list[UUID] = []
    spans: list[Span] = []
    for run_id, of_run in made:
        if spans and len(spans) + len(of_run) > SPANS:
            break  # the rest is due the next time
        runs.append(run_id)
        spans += of_run
    write = otlp.as_json if to.protocol == "http/json" else otlp.as_protobuf
    parts = [spans[at : at + SPANS] for at in range(0, len(spans), SPANS)]
    return Batch(runs, [write(otlp.document(part, settings.OTEL_SERVICE_NAME)) for part in parts], bad)


class Exporter:
    """`run()` returns soon after `stop()`. Any number of them may run: one works, the others look on."""

    def __init__(self, to: Target, *, poll_s: float = POLL_S, buffer: timedelta | None = None) -> None:
        self.to, self.poll_s = to, poll_s
        self.buffer = buffer or timedelta(seconds=settings.OTEL_BUFFER_S)
        self.egress = Egress(dns_threads=1)
        self.database = ThreadPoolExecutor(1, thread_name_prefix="telemetry")
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Inside its loop."""
        self.stopping.set()

    async def run(self) -> None:
        try:
            while not self.stopping.is_set():
                if not await self._tell_some():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.stopping.wait(), self.poll_s)
        finally:
            await self.egress.aclose()
            await self._in_database(connections.close_all)
            self.database.shutdown()

    async def _tell_some(self) -> bool:
        """True: something was told, so there may be more."""
        try:
            batch = await self._in_database(batch_due, self.to, self.buffer)
            if batch is None:
                return False
            if not batch.runs and not batch.bad:
                await self._in_database(progress.leave)
                return False
            return await self._tell(batch)
        except Error as error:
            log.warning("telemetry: rows not read or not written (%s)", str(error).strip())
            return False

    async def _tell(self, batch: Batch) -> bool:
        for body in batch.bodies:
            status, error = await self._post(body)
            if error:
                return await self._not_taken(batch, status, error)
            await self._in_database(progress.keep)
        await self._in_database(progress.told, batch.runs, batch.bad)
        return True

    async def _not_taken(self, batch: Batch, status: int | None, error: str) -> bool:
        """A batch that is refused is tried in smaller ones; a run that is refused alone is given up, and keeps no other back."""
        log.warning("telemetry: %s runs not taken by %s (%s)", len(batch.runs), self.to.host_port, error)
        if status in REFUSED and len(batch.runs) == 1:
            await self._in_database(progress.told, [], [*batch.runs, *batch.bad], error)
            return True
        smaller = status in REFUSED
        await self._in_database(progress.failed, error, smaller)
        return smaller

    async def _post(self, body: bytes) -> tuple[int | None, str]:
        """-> (status, what went wrong: a class or a status, never a word of what was sent or answered)."""
        request = build_request("POST", self.to.url, headers=dict(self.to.headers), json_bytes=body)
        request.headers["Content-Type"] = self.to.content_type
        try:
            allow = frozenset({self.to.host_port})
            answer = await self.egress.exchange(request, allow=allow, timeout_s=WALL_S, max_bytes=MAX_ANSWER)
            status = answer.status
        except EgressFailure as failure:
            if failure.status is None:
                return None, failure.reason
            status = failure.status  # only its text could not be read
        return status, "" if 200 <= status < 300 else f"answered {status}"

    async def _in_database(self, work: Callable[..., T], *args: Any) -> T:
        def briefly() -> T:
            close_old_connections()
            try:
                return work(*args)
            except Error:
                connections.close_all()
                raise

        return await asyncio.get_running_loop().run_in_executor(self.database, briefly)
