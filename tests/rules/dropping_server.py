"""A raw HTTP/1.1 server on loopback that counts what it read and misbehaves on command.

`server.behave(*behaviours)` queues what the next requests meet; after the queue the default answer is given. Everything
is counted here, at the receiving end: `server.requests`, `server.hits`, `server.connections`.
"""

import asyncio
import gzip
import json
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Behaviour:
    """`kind`: answer, drop_before, drop_after, reset_after, cut, drip_body, drip_headers, hang, endless."""

    kind: str = "answer"
    status: int = 200
    body: bytes = b'{"ok": true}'
    headers: dict[str, str] = field(default_factory=dict)


def answer(value: Any = None, status: int = 200, *, body: bytes | None = None, **headers: str) -> Behaviour:
    """An ordinary answer; underscores in header names become dashes."""
    raw = json.dumps(value).encode() if body is None else body
    return Behaviour(status=status, body=raw, headers={name.replace("_", "-"): text for name, text in headers.items()})


def kind(name: str, status: int = 200) -> Behaviour:
    return Behaviour(kind=name, status=status)


def gzip_bomb(megabytes: int) -> Behaviour:
    """A small answer that unpacks to many megabytes of spaces."""
    return Behaviour(body=gzip.compress(b" " * (megabytes << 20)), headers={"Content-Encoding": "gzip"})


class DroppingServer:
    def __init__(self) -> None:
        self.default = answer({"ok": True})
        self.requests: list[Seen] = []
        self.connections = 0
        self.read_one = asyncio.Event()  # set when a request has been read
        self._queue: deque[Behaviour] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def hits(self) -> Counter[str]:
        """How many requests were read, by method."""
        return Counter(seen.method for seen in self.requests)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def allow(self) -> frozenset[str]:
        return frozenset({f"127.0.0.1:{self.port}"})

    def behave(self, *behaviours: Behaviour) -> None:
        self._queue.extend(behaviours)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self._queue and self._queue[0].kind == "drop_before":
            self._queue.popleft()
            return False
        seen = await _read(reader)
        if seen is None:
            return False
        self.requests.append(seen)
        self.read_one.set()
        behaviour = self._queue.popleft() if self._queue else self.default
        return await _act(behaviour, writer) and seen.headers.get("connection") != "close"

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    head = b""
    with suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body)


def _head(behaviour: Behaviour, length: int) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(length)} | behaviour.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {behaviour.status} Said\r\n{lines}\r\n".encode("latin-1")


async def _act(behaviour: Behaviour, writer: asyncio.StreamWriter) -> bool:
    """-> whether the connection goes on."""
    match behaviour.kind:
        case "answer":
            length = 0 if behaviour.status == 204 else len(behaviour.body)
            writer.write(_head(behaviour, length) + behaviour.body[:length])
            await writer.drain()
            return True
        case "cut":
            writer.write(_head(behaviour, len(behaviour.body) + 100) + behaviour.body)
            await writer.drain()
        case "reset_after":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case "hang":
            await asyncio.sleep(3600)
        case "drip_headers" | "drip_body" | "endless":
            await _go_on(behaviour, writer)
    return False


async def _go_on(behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
    if behaviour.kind == "drip_headers":
        await _repeat(writer, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.02)
    elif behaviour.kind == "drip_body":
        await _repeat(writer, _head(behaviour, 1 << 19), b" ", 0.02)
    else:
        head = f"HTTP/1.1 {behaviour.status} OK\r\nConnection: close\r\n\r\n".encode()
        await _repeat(writer, head, b" " * 65536, 0)


async def _repeat(writer: asyncio.StreamWriter, head: bytes, piece: bytes, pause_s: float) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause_s)


@asynccontextmanager
async def dropping_server() -> AsyncIterator[DroppingServer]:
    behaviour = DroppingServer()
    server = await asyncio.start_server(behaviour.serve, "127.0.0.1", 0)
    behaviour.port = server.sockets[0].getsockname()[1]
    try:
        yield behaviour
    finally:
        await behaviour.stop(server)
