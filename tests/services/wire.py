"""A wire between a program and a server, which can be cut or swallow everything."""

import asyncio
import contextlib
import threading
from typing import Any

PASS, SWALLOW, CUT = "pass", "swallow", "cut"


class Wire:
    """Listens on a loopback port of its own. `CUT`: connections end and none is made; `SWALLOW`: nothing arrives, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.to, self.mode = port, PASS
        self.writers: set[asyncio.StreamWriter] = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.server: asyncio.Server = server
        self.port = int(server.sockets[0].getsockname()[1])

    def become(self, mode: str) -> None:
        self.mode = mode
        if mode == CUT:
            self.loop.call_soon_threadsafe(self._end_all)

    def close(self) -> None:
        self.become(CUT)
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def _end_all(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if self.mode == CUT:
                return back.transport.abort()
            far, there = await asyncio.open_connection("127.0.0.1", self.to)
            self.writers |= {back, there}
            await asyncio.gather(self._pump(near, there), self._pump(far, back))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if self.mode == PASS:  # what is swallowed never comes: these connections are of no more use
                    writer.write(chunk)
                    await writer.drain()
        writer.close()
        self.writers.discard(writer)
