"""Python tools in a bounded pool of child processes.

A child runs one call at a time, with an almost empty environment and limits on memory and CPU. The wall deadline is
kept from outside: the parent kills the child's process group and starts another. Nothing of a tool runs in this process.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from tools.adapters.python_child import MAX_ANSWER
from tools.canonical import dumps, loads_limited
from tools.definitions import CallContext, ErrorClass, Reply, ToolDefinition
from tools.registry import module_names

_log = logging.getLogger(__name__)
_ROOT: Final = Path(__file__).resolve().parents[2]
_START_S: Final = 20.0  # for the imports of the tool modules
_PRINTED: Final = 8192  # bytes; a longer line of the log is broken up
_LINE: Final = 6 * MAX_ANSWER + 4096  # JSON escapes may make a character six bytes


class PythonPool:
    """`{"kind": "python", "name": registered_name}`. At most `size` children, started at the first call or `start`.

    `modules` defaults to `SIGNALBOX_TOOL_MODULES`; `memory_bytes` bounds the address space of each child.
    """

    def __init__(self, modules: Sequence[str] | None = None, *, size: int = 2, memory_bytes: int = 1 << 30) -> None:
        if modules is None:
            modules = module_names(os.environ.get("SIGNALBOX_TOOL_MODULES", ""))
        self._children = [_Child(modules, memory_bytes) for _ in range(size)]
        self._free: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()  # last in, first out: a warm child first
        for child in reversed(self._children):
            self._free.put_nowait(child)

    async def start(self) -> None:
        """Start every child now, so that the first calls need not wait for the imports."""
        for child in self._children:
            child.begin()
        await asyncio.gather(*(child.ready() for child in self._children))

    async def send(self, definition: ToolDefinition, args: bytes, parsed: Mapping[str, Any], context: CallContext) -> Reply:
        name = definition.adapter.get("name")
        if not isinstance(name, str):
            return Reply(ErrorClass.POLICY, message="the Python adapter needs the name of a registered tool")
        sent = False
        try:
            async with asyncio.timeout(max(context.timeout_s, 0)):
                child = await self._free.get()
                try:
                    fault = await child.ready()
                    if fault is not None:
                        return Reply(ErrorClass.NOT_SENT, message=fault)
                    sent = True
                    return await child.ask(name, parsed, context)
                finally:
                    child.release()
                    self._free.put_nowait(child)
        except TimeoutError:
            if sent:
                return Reply(ErrorClass.TIMEOUT, message="the tool did not end in time and was stopped")
            return Reply(ErrorClass.NOT_SENT, message="no Python child was free in time")

    async def aclose(self) -> None:
        await asyncio.gather(*(child.aclose() for child in self._children))


class _Child:
    """One slot of the pool and the process that fills it at the moment."""

    def __init__(self, modules: Sequence[str], memory_bytes: int) -> None:
        self._modules, self._memory_bytes = modules, memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[str | None] | None = None
        self._asking = False
        self._closed = False
        self._numbers = count(1)
        self._endings: set[asyncio.Task[int]] = set()
        self._relays: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        if self._starting is None and not self._closed:
            self._starting = asyncio.create_task(self._start())

    async def ready(self) -> str | None:
        """-> None, or why there is no process."""
        if self._process is not None and self._process.returncode is not None:  # it died while idle
            self._end()
        self.begin()
        if self._starting is None:
            return "the pool of Python tools is closed"
        return await asyncio.shield(self._starting)

    async def ask(self, name: str, parsed: Mapping[str, Any], context: CallContext) -> Reply:
        """One request, one answer. When it is cut short, `release` replaces the process."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        number = next(self._numbers)
        self._asking = True
        process.stdin.write(_request(number, name, parsed, context))
        try:
            await process.stdin.drain()
            line = await process.stdout.readline()
            reply = loads_limited(line, max_depth=66)
        except (ConnectionError, ValueError):
            # No bytes: it died (memory, CPU limit, a crash). A line too long or broken: the tool wrote to our pipe.
            return Reply(ErrorClass.TRANSIENT_UPSTREAM, message="the process of the tool ended without an answer")
        if not isinstance(reply, dict) or reply.get("id") != number:
            return Reply(ErrorClass.TRANSIENT_UPSTREAM, message="the process of the tool gave a wrong answer")
        self._asking = bool(reply.get("last"))
        return _reply(reply)

    def release(self) -> None:
        """After a call: a process that still owes an answer is killed, and another one started."""
        if self._asking:
            self._end()
            self.begin()

    def _end(self) -> None:
        process, self._process, self._starting, self._asking = self._process, None, None, False
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own: its children end with it
        if process.stdin is not None:
            process.stdin.close()
        ending = asyncio.create_task(process.wait())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _start(self) -> str | None:
        try:
            async with asyncio.timeout(_START_S):
                greeting = await self._greeting()
        except (OSError, ValueError):  # TimeoutError is an OSError
            greeting = {"message": "the child process did not start"}
        if greeting.get("ready") is True and not self._closed:
            return None
        self._end()
        self._starting = None  # the next call tries again
        return f"the Python tools are not available: {greeting.get('message', '')}"

    async def _greeting(self) -> dict[str, Any]:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tools.adapters.python_child"),
            *(str(self._memory_bytes), str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(self._modules),
            start_new_session=True,
            limit=_LINE,
        )
        if self._closed:
            return {}
        assert process.stdout is not None and process.stderr is not None
        relay = asyncio.create_task(_relay(process.stderr))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        greeting = loads_limited(await process.stdout.readline())
        return greeting if isinstance(greeting, dict) else {}

    async def aclose(self) -> None:
        self._closed = True
        starting = self._starting
        self._end()
        if starting is not None:
            await starting
        if self._endings:
            await asyncio.wait(self._endings)
        for relay in self._relays:  # a grandchild in a session of its own may hold the pipe for ever
            relay.cancel()


async def _relay(printed: asyncio.StreamReader) -> None:
    """What a tool prints, and the tracebacks of what it raises, go to our log line by line: the log leaves secrets out."""
    rest = b""
    while chunk := await printed.read(_PRINTED):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _PRINTED:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _log.info("%s", line.decode("utf-8", "replace"))
    if rest:
        _log.info("%s", rest.decode("utf-8", "replace"))


def _environment(modules: Sequence[str]) -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join(paths),
        "SIGNALBOX_TOOL_MODULES": ",".join(modules),
    }


def _request(number: int, name: str, parsed: Mapping[str, Any], context: CallContext) -> bytes:
    about = {
        "run_id": context.run_id,
        "step": context.step,
        "idem_key": context.idem_key,
        "timeout_s": context.timeout_s,
        "credential": context.credential.secret if context.credential else None,
    }
    return dumps({"id": number, "name": name, "args": dict(parsed), "context": about}) + b"\n"


def _reply(reply: dict[str, Any]) -> Reply:
    error = reply.get("error")
    if error is None:
        return Reply(value=reply.get("value"))
    wait = reply.get("retry_after_s")
    return Reply(
        ErrorClass(error),
        message=str(reply.get("message", "")),
        retry_after_s=float(wait) if isinstance(wait, int | float) else None,
    )
