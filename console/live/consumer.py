"""`/ws`: one socket of one signed-in person. It checks who asks for what; the feed does the rest.

In: {"op": "sub", "topics": [...], "since": {topic: seq}}, {"op": "unsub", "topics": [...]}, {"op": "ping"}.
Out: {"t", "seq", "v", "k", "d"}, {"op": "reset", "topic", "seq"} (fetch again, then go on from seq), {"op": "error", "code", "message"},
{"op": "pong"}. Ends with 4400 (hostile or broken client), 4401 (signed out), 4403 (rights changed), 4408 (too slow).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import Error as DatabaseError
from django.http import parse_cookie
from psycopg_pool import PoolTimeout

from tenants.actors import Actor
from tools.canonical import loads_limited

from . import rows
from .feed import feed
from .hub import hub, now_us
from .rights import RIGHTS_CHANGED, Turned, counted, header, is_ours, rights, runs_of, signed_in
from .rows import Scope, dumps

RECHECK_S = 20.0
LARGEST = 16 * 1024  # bytes of a message from the client
TOPICS = 50
MESSAGES_A_SECOND = 20
REPLAY = 2000  # events
WAITING = 4096  # messages for a client that does not read
WAITING_BYTES = 2 << 20
LISTS = {"runs": "runs:read", "approvals": "approvals:read", "incidents": "runs:read"}  # topic -> the scope it needs
CLOCKS_US = 3_000_000  # how far the clocks of web hosts, and a page and its socket, may lie apart
BAD_CLIENT, TOO_SLOW = 4400, 4408


def in_thread(read: Callable[..., Any], *args: Any) -> Any:
    return sync_to_async(read, thread_sensitive=False)(*args)


class Box:
    """What waits to be sent to one client, with a bound. `full` is called once, instead of growing."""

    def __init__(self, full: Callable[[], None]) -> None:
        self.texts: deque[str] = deque()
        self.bytes = 0
        self.filled = asyncio.Event()
        self.full: Callable[[], None] | None = full

    def put(self, text: str) -> None:
        if self.full is None:
            return
        if len(self.texts) >= WAITING or self.bytes + len(text) > WAITING_BYTES:
            full = self.full
            self.close()
            full()
            return
        self.texts.append(text)
        self.bytes += len(text)
        self.filled.set()

    def close(self) -> None:
        self.full = None
        self.texts.clear()

    async def next(self) -> str:
        while not self.texts:
            self.filled.clear()
            await self.filled.wait()
        text = self.texts.popleft()
        self.bytes -= len(text)
        return text


class Live(AsyncWebsocketConsumer):
    actor: Actor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.followed: dict[str, UUID | Scope] = {}
        self.heard: deque[float] = deque()
        self.tasks: set[asyncio.Task[None]] = set()
        self.over = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()

    async def connect(self) -> None:
        self.session_key = parse_cookie(header(self.scope, b"cookie")).get(settings.SESSION_COOKIE_NAME, "")
        try:
            if not is_ours(header(self.scope, b"origin")):
                raise Turned(RIGHTS_CHANGED)
            self.actor = await in_thread(signed_in, self.session_key)
        except (Turned, DatabaseError, PoolTimeout):
            await self.close()  # before it is accepted: HTTP 403
            return
        await self.accept()
        self.box = Box(lambda: self.begin(self.cut(TOO_SLOW)))
        self.begin(self.write())
        self.begin(self.watch())

    async def disconnect(self, code: int) -> None:
        self.end()

    def begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def end(self) -> None:
        self.over = True
        self.leave(list(self.followed))
        for task in self.tasks - {asyncio.current_task()}:
            task.cancel()

    async def cut(self, code: int) -> None:
        """Close; what still waits is not sent."""
        if self.over:
            return
        self.end()
        self.box.close()
        with suppress(OSError, RuntimeError):  # gone already
            await self.close(code)

    async def write(self) -> None:
        with suppress(OSError):  # the client is gone; `disconnect` follows
            while True:
                await self.send(text_data=await self.box.next())

    async def watch(self) -> None:
        """Signed out, removed, or given another role: the socket ends, and the page asks anew with the rights of now."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                now = await in_thread(signed_in, self.session_key)
            except Turned as turned:
                return await self.cut(turned.code)
            except (DatabaseError, PoolTimeout):
                continue
            if rights(now) != rights(self.actor):
                return await self.cut(RIGHTS_CHANGED)

    # what the client says ---------------------------------------------------------------------------------------------

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.over:
            return
        if self.floods() or text_data is None or len(text_data) > LARGEST:
            await self.cut(BAD_CLIENT)
            return
        try:
            said = loads_limited(text_data.encode(), 8)
        except ValueError:
            self.refuse("bad_json", "A message is one JSON object.")
            return
        await self.obey(said)

    def floods(self) -> bool:
        now = asyncio.get_running_loop().time()
        while self.heard and now - self.heard[0] > 1:
            self.heard.popleft()
        self.heard.append(now)
        return len(self.heard) > MESSAGES_A_SECOND

    async def obey(self, said: Any) -> None:
        op = said.get("op") if isinstance(said, dict) else None
        if op == "ping":
            self.box.put(dumps({"op": "pong"}))
            return
        if op not in ("sub", "unsub"):
            self.refuse("unknown_op", 'op is "sub", "unsub" or "ping".')
            return
        topics, since = said.get("topics"), said.get("since", {})
        if not is_list_of_text(topics) or not isinstance(since, dict) or not all(is_seq(seq) for seq in since.values()):
            self.refuse("bad_message", "topics is a list of texts, since an object of whole numbers.")
        elif op == "unsub":
            self.leave(topics)
        else:
            await self.follow([topic for topic in dict.fromkeys(topics) if topic not in self.followed], since)

    def refuse(self, code: str, text: str, **more: str) -> None:
        self.box.put(dumps({"op": "error", "code": code, "message": text, **more}))

    async def follow(self, topics: list[str], since: dict[str, int]) -> None:
        if len(self.followed) + len(topics) > TOPICS:
            self.refuse("too_many_topics", f"A socket follows {TOPICS} topics at most.")
            return
        found = await in_thread(runs_of, self.actor, [topic for topic in topics if topic.startswith("run:")])
        for topic in topics:
            if self.over:
                return
            if topic in found:
                run, last = found[topic]
                self.follow_run(topic, run, last, since.get(topic))
            elif topic in LISTS and self.actor.can(LISTS[topic]):
                await self.follow_list(topic, since.get(topic))
            else:
                self.refuse("unknown_topic", "There is no such topic.", topic=topic[:100])

    def follow_run(self, topic: str, run: UUID, last: int, since: int | None) -> None:
        """Without `since`, or with one that is too old or not this run's: a reset, then what comes after it."""
        self.followed[topic] = run
        if since is None or not last - REPLAY <= since <= last:
            self.box.put(rows.reset(topic, last))
            since = last
        feed.follow_run(self.box, run, since)

    async def follow_list(self, topic: str, since: int | None) -> None:
        """A reset unless it is certain that nothing moved since the client's last message, or since its page was made."""
        scope = None if self.actor.platform_admin else self.actor.tenant.id
        self.followed[topic] = scope
        feed.follow_list(self.box, (topic, scope))
        if hub.quiet_since((now_us() if since is None else since) - CLOCKS_US):
            return
        self.box.put(rows.reset(topic, feed.seq()))
        now = await in_thread(counted, scope)
        self.box.put(rows.message(topic, feed.seq(), None, "counts", {"counts": now}))

    def leave(self, topics: list[str]) -> None:
        for topic in topics:
            if topic in self.followed:
                where = self.followed.pop(topic)
                if topic in LISTS:
                    feed.leave_list(self.box, (topic, where))
                elif where:
                    feed.leave_run(self.box, where)


def is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def is_seq(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
