"""The courier: sends what stands in the outbox, signed, through the guarded way out. Any number of them may run.

`RENDERERS` says how each kind of message is written. A courier runs in a thread of the `jobs` process (`Background`): the network
on an event loop of its own, the database in one thread beside it.
"""

import asyncio
import contextlib
import logging
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import psycopg
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import Error, close_old_connections, connections

from tools.egress import Egress, EgressFailure, Request, build_request

from . import callbacks, webhooks
from .deliveries import FAILED, OUTBOX, Answer, Leased, allowed, lease, record
from .models import Channel
from .telling import Mail, Unsendable, notice, signing_key

log = logging.getLogger(__name__)
T = TypeVar("T")
POLL_S = 1.0
LEASE_S = 60.0
WALL_S = 10.0  # for one exchange, from the first byte to the last
MAX_ANSWER = 64 * 1024  # nobody reads it
MAIL_TAKEN = 250  # what a mail server says when it takes a letter
AT_ONCE = 16
PER_HOST = 4  # and one at a time of a host that did not answer


@dataclass(frozen=True, slots=True)
class Letter:
    """A message ready to send, or why it cannot be."""

    message: Leased
    request: Request | Mail | None
    error: str | None = None


def callback(message: Leased) -> Request:
    body = callbacks.body_of(message.event, message.run_id, message.body)
    headers = webhooks.headers(signing_key(message, message.secret_name), message.message_id, message.now, body)
    headers |= callbacks.trace_headers(message.run_id)
    return build_request("POST", message.url, headers=headers, json_bytes=body)


RENDERERS: dict[str, Callable[[Leased], Request | Mail]] = {"callback": callback} | dict.fromkeys(Channel.Kind.values, notice)


def render(message: Leased) -> Letter:
    try:
        if message.kind not in RENDERERS:
            raise Unsendable("kind_unknown")
        return Letter(message, RENDERERS[message.kind](message))
    except Unsendable as failure:
        return Letter(message, None, failure.error)
    except ValueError:
        return Letter(message, None, "url_unusable")


def fetch(room: dict[str, int], most: int, lease_s: float) -> tuple[list[Letter], frozenset[str]]:
    """Lease what is due and write it. -> (letters, addresses that may be reached)."""
    leased = lease(room, each=PER_HOST, most=most, lease_s=lease_s)
    return [render(message) for message in leased], allowed() if leased else frozenset()


def post(letter: Mail) -> str | None:
    """Hand a letter to the mail backend; -> the class of what went wrong. What one server accepted may still come back from another."""
    headers = {"Message-ID": f"<{letter.message_id}@signalbox>", "Auto-Submitted": "auto-generated"}
    try:
        EmailMessage(letter.subject, letter.text, to=letter.to, headers=headers).send()
    except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, ValueError):
        return "mail_refused"
    except (smtplib.SMTPException, OSError):
        return "connect"
    return None


class Courier:
    """`run()` returns after `stop()`; what is being sent then has `patience_s` to end, and else goes to another courier."""

    def __init__(self, *, lease_s: float = LEASE_S, poll_s: float = POLL_S, egress: Egress | None = None, patience_s: float = 5.0) -> None:
        self.lease_s, self.poll_s, self.patience_s = lease_s, poll_s, patience_s
        self.egress = egress or Egress(dns_threads=4)
        self.database = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self.wake = asyncio.Event()
        self.stopping = False
        self.sending: dict[asyncio.Task[None], str] = {}  # -> host
        self.ailing: set[str] = set()  # hosts whose last message got no answer

    def stop(self) -> None:
        """Inside its loop."""
        self.stopping = True
        self.wake.set()

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while not self.stopping:
                self.wake.clear()
                if not await self._send_due():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.wake.wait(), self.poll_s)
            if self.sending:
                await asyncio.wait(self.sending, timeout=self.patience_s)
        finally:
            for task in (listening, *self.sending):
                task.cancel()
            await asyncio.gather(listening, *self.sending, return_exceptions=True)
            await self.egress.aclose()
            await self._in_database(connections.close_all)
            self.database.shutdown()

    async def _send_due(self) -> bool:
        """False: there is nothing to send now, or no room to send it."""
        free = AT_ONCE - len(self.sending)
        if free <= 0:
            return False
        try:
            letters, allow = await self._in_database(fetch, self._room(), free, self.lease_s)
        except Error as error:
            log.warning("outbox: not read (%s)", str(error).strip())
            return False
        for letter in letters:
            task = asyncio.create_task(self._deliver(letter, allow))
            self.sending[task] = letter.message.host
            task.add_done_callback(self._landed)
        return bool(letters)

    def _room(self) -> dict[str, int]:
        """Host -> how many more of it, for those that are not as all others."""
        busy = Counter(self.sending.values())
        return {host: (1 if host in self.ailing else PER_HOST) - busy[host] for host in busy.keys() | self.ailing}

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self.sending.pop(task, None)
        self.wake.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("outbox: a delivery failed", exc_info=error)

    async def _deliver(self, letter: Letter, allow: frozenset[str]) -> None:
        message = letter.message
        answer = await self._exchange(letter.request, allow) if letter.request else Answer(None, letter.error, 0)
        (self.ailing.add if letter.request and answer.status is None else self.ailing.discard)(message.host)
        try:
            state = await asyncio.shield(self._in_database(record, message, answer))
        except Error as error:  # the lease runs out, and it is sent again
            log.warning("outbox: what came of %s is not written (%s)", message.message_id, str(error).strip())
            return
        if state == FAILED:
            log.warning("outbox: %s (%s) is given up: %s", message.message_id, message.event, answer.error or answer.status)

    async def _exchange(self, request: Request | Mail, allow: frozenset[str]) -> Answer:
        began = time.monotonic()
        if isinstance(request, Mail):
            failed = await asyncio.to_thread(post, request)
            return Answer(None if failed else MAIL_TAKEN, failed, round((time.monotonic() - began) * 1000))
        status: int | None = None
        error: str | None = None
        try:
            status = (await self.egress.exchange(request, allow=allow, timeout_s=WALL_S, max_bytes=MAX_ANSWER)).status
        except EgressFailure as failure:
            status, error = failure.status, failure.reason
        return Answer(status, error, round((time.monotonic() - began) * 1000))

    async def _in_database(self, work: Callable[..., T], *args: Any) -> T:
        def briefly() -> T:
            close_old_connections()
            try:
                return work(*args)
            except Error:
                connections.close_all()
                raise

        return await asyncio.get_running_loop().run_in_executor(self.database, briefly)

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(settings.PLAIN_URL, autocommit=True) as connection:
                    await connection.execute(f"listen {OUTBOX}")
                    self.wake.set()
                    async for _ in connection.notifies():
                        self.wake.set()
            except psycopg.Error as error:
                log.warning("outbox: not listening (%s)", str(error).strip())
            await asyncio.sleep(1)


class Sender(Protocol):
    """`run()` returns after `stop()`, which is called inside its loop."""

    def stop(self) -> None: ...
    async def run(self) -> None: ...


class Background:
    """A courier, or another sender, in a thread of this process. One that fails is replaced."""

    def __init__(self, make: Callable[[], Sender] = Courier, name: str = "courier") -> None:
        self.make = make
        self.over = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.courier: Sender | None = None
        self.thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def ask_to_stop(self) -> None:
        """May be called from a signal handler."""
        self.over.set()
        if self.loop and self.courier:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self.courier.stop)

    def stop(self, timeout_s: float = 8.0) -> None:
        self.ask_to_stop()
        self.thread.join(timeout_s)

    def _keep(self) -> None:
        while not self.over.is_set():
            try:
                asyncio.run(self._once())
            except Exception:
                log.exception("the %s failed and is replaced", self.thread.name)
                self.over.wait(1)

    async def _once(self) -> None:
        self.loop, self.courier = asyncio.get_running_loop(), self.make()
        if not self.over.is_set():
            await self.courier.run()
