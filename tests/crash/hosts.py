"""Hosts of our own: network namespaces with one link each, to the one where the database and the tools are, and no other way out.

Needs root and `ip`. Names carry our pid, and everything goes with `close`. What a namespace listens on or connects to can be made from
this process: a socket belongs to the namespace of the thread that made it.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("unshare") is not None
HUB = "hub"
HUB_ADDRESS = "10.213.0.1"
CLONE_NEWNET = 0x40000000
ROOT = Path(__file__).resolve().parent.parent.parent


class Hosts:
    def __init__(self, *names: str) -> None:
        self.names, self.processes = names, dict[str, "subprocess.Popen[bytes]"]()

    def open(self) -> None:
        self._hub()
        for number, name in enumerate(self.names, 1):
            ip("netns", "add", self.space(name))
            ip("-n", self.space(HUB), "link", "add", name, "type", "veth", "peer", "name", "way", "netns", self.space(name))
            ip("-n", self.space(HUB), "addr", "add", f"10.213.{number}.1/30", "dev", name)
            ip("-n", self.space(HUB), "link", "set", name, "up")
            ip("-n", self.space(name), "addr", "add", f"{self.address(name)}/30", "dev", "way")
            ip("-n", self.space(name), "link", "set", "way", "up")
            ip("-n", self.space(name), "link", "set", "lo", "up")
            ip("-n", self.space(name), "route", "add", f"{HUB_ADDRESS}/32", "via", f"10.213.{number}.1")

    def _hub(self) -> None:
        ip("netns", "add", self.space(HUB))
        ip("-n", self.space(HUB), "link", "set", "lo", "up")
        ip("-n", self.space(HUB), "addr", "add", f"{HUB_ADDRESS}/32", "dev", "lo")

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(10)
        for name in (*self.names, HUB):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", self.space(name))

    @staticmethod
    def space(name: str) -> str:
        return f"sbx{os.getpid()}-{name}"

    def address(self, name: str) -> str:
        return f"10.213.{self.names.index(name) + 1}.2"

    def link(self, name: str, state: str) -> None:
        """`up`, or `down`: what is sent is lost, and nobody is told."""
        ip("-n", self.space(HUB), "link", "set", name, state)

    def start(self, name: str, log: Path, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A process on that host, which also has a name of its own."""
        words = ["ip", "netns", "exec", self.space(name), "unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh", *command]
        with log.open("ab") as file:
            made = subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.processes[name] = made
        return made

    def inside(self, name: str, make: Callable[[], socket.socket]) -> socket.socket:
        """What `make` returns or raises, called in a thread of that namespace."""

        def enter() -> socket.socket:
            with Path("/run/netns", self.space(name)).open() as handle:
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return make()

        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(enter).result()

    def listening(self) -> socket.socket:
        """A socket of the hub, on a free port of its address."""
        return self.inside(HUB, lambda: socket.create_server((HUB_ADDRESS, 0), backlog=1024))


async def forward(listening: socket.socket, dsn: str) -> asyncio.Server:
    """The database, for whoever reaches the hub."""
    parts = conninfo_to_dict(dsn)
    host, port = str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else asyncio.open_connection(host, port)
        there, back = await near
        await asyncio.gather(pump(reader, back), pump(there, writer))

    return await asyncio.start_server(serve, sock=listening)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
