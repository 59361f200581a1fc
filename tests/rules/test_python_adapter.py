"""Python tools run in children that may hang, grow, crash or print, and never take this process with them."""

import asyncio
import os
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tools.adapters.python import PythonPool
from tools.canonical import dumps
from tools.definitions import CallContext, Credential, Effect, ErrorClass, RetryPolicy, ToolDefinition, ToolResult
from tools.invoke import Tools

SAMPLE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from tools.registry import ToolContext, ToolError, signalbox_tool

@signalbox_tool
def add(a: int, b: int) -> int:
    return a + b

@signalbox_tool
def about(context: ToolContext) -> dict:
    return {"env": dict(os.environ), "pid": os.getpid(), "modules": sorted(sys.modules), "cpu": True,
            "run_id": context.run_id, "key": context.idem_key, "credential": context.credential}

@signalbox_tool
def spin(mark: str) -> None:
    Path(mark).write_text(str(os.getpid()))
    while True:
        pass

@signalbox_tool
def spawn(mark: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(mark).write_text(str(child.pid))
    time.sleep(600)

@signalbox_tool
def grow() -> int:
    return len(bytearray(8 << 30))

@signalbox_tool
def chatty(text: str) -> str:
    print("noise on stdout", flush=True)
    os.write(1, b"{\\"id\\": 1}\\n")
    return text + sys.stdin.read()

@signalbox_tool
def die(with_signal: int) -> None:
    os.kill(os.getpid(), with_signal)

@signalbox_tool
def leave() -> None:
    sys.exit(3)

@signalbox_tool
def wrong() -> None:
    raise KeyError("a secret in an exception")

@signalbox_tool
def say(error: str) -> None:
    raise ToolError(error, "in its own words", retry_after_s=1.5)

@signalbox_tool
def huge() -> str:
    return "x" * (1 << 20)

@signalbox_tool
def odd() -> list:
    return [float("nan"), "\\ud800", "\\x00", 2 ** 70]

@signalbox_tool
def deep() -> list:
    value = []
    for _ in range(200):
        value = [value]
    return value

@signalbox_tool
def linger(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
"""


@pytest.fixture
async def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tools]:
    (tmp_path / "sample_tools.py").write_text(textwrap.dedent(SAMPLE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "postgres://owner:secret@nowhere/db")
    made = Tools(python=PythonPool(["sample_tools"], size=1))
    yield made
    await made.aclose()


def define(name: str, effect: Effect = Effect.READ, idempotency: Any = "none") -> ToolDefinition:
    return ToolDefinition(
        uuid4(),
        name,
        "",
        effect,
        idempotency,
        {"kind": "python", "name": name},
        {"type": "object"},
        None,
        5.0,
        RetryPolicy(),
        frozenset(),
    )


def context(timeout_s: float = 20.0, key: str | None = "k" * 32) -> CallContext:
    return CallContext("agt_1", 3, key, timeout_s, frozenset(), Credential("desk", "bearer", "hush"))


async def call(
    tools: Tools,
    name: str,
    effect: Effect = Effect.READ,
    idempotency: str = "none",
    timeout_s: float = 20.0,
    **args: object,
) -> ToolResult:
    return await tools.invoke(define(name, effect, idempotency), dumps(args), context(timeout_s))


async def test_a_tool_answers_and_its_child_is_used_again(tools: Tools) -> None:
    assert (await call(tools, "add", a=2, b=3)).data == {"ok": True, "value": 5}
    first, second = await call(tools, "about"), await call(tools, "about")
    assert first.data["pid"] == second.data["pid"] != os.getpid()


@pytest.mark.mission("P10.2")
async def test_a_child_sees_an_empty_environment_no_django_and_its_own_call(tools: Tools) -> None:
    seen = (await call(tools, "about")).data
    assert set(seen["env"]) - {"LC_CTYPE"} == {"PATH", "PYTHONPATH", "SIGNALBOX_TOOL_MODULES"}
    assert not [name for name in seen["modules"] if name.split(".")[0] in ("django", "aiohttp", "psycopg")]
    assert (seen["run_id"], seen["key"], seen["credential"]) == ("agt_1", "k" * 32, "hush")


@pytest.mark.mission("P4.1")
@pytest.mark.parametrize(
    ("effect", "idempotency", "error", "applied"),
    [
        (Effect.READ, "none", ErrorClass.TIMEOUT, None),
        (Effect.WRITE, "key", ErrorClass.TIMEOUT, None),
        (Effect.WRITE, "none", ErrorClass.UNKNOWN, None),
    ],
)
async def test_an_endless_loop_ends_at_the_deadline_and_another_child_takes_over(
    tools: Tools, tmp_path: Path, effect: Effect, idempotency: str, error: ErrorClass, applied: bool | None
) -> None:
    await tools.python.start()
    mark = tmp_path / "pid"
    hung = await call(tools, "spin", effect, idempotency, timeout_s=0.5, mark=str(mark))
    assert (hung.error_class, hung.applied, hung.ok) == (error, applied, False)
    await gone(int(mark.read_text()))
    assert (await call(tools, "add", a=1, b=1)).data["value"] == 2


async def test_what_a_tool_started_ends_with_it(tools: Tools, tmp_path: Path) -> None:
    await tools.python.start()
    mark = tmp_path / "pid"
    await call(tools, "spawn", timeout_s=0.7, mark=str(mark))
    await gone(int(mark.read_text()))


async def test_a_cancelled_call_ends_its_child(tools: Tools, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    task = asyncio.create_task(call(tools, "spin", mark=str(mark)))
    while not (mark.exists() and mark.read_text()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(int(mark.read_text()))
    assert (await call(tools, "add", a=1, b=1)).ok


async def gone(pid: int) -> None:
    """Until the process has ended (the test's own time limit is the bound)."""
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.01)


async def test_memory_is_bounded_and_the_next_call_is_served(tools: Tools) -> None:
    grown = await call(tools, "grow")
    assert grown.error_class is ErrorClass.TRANSIENT_UPSTREAM
    assert "memory" in grown.data["message"]
    assert (await call(tools, "add", a=1, b=1)).ok


async def test_printing_and_reading_do_not_disturb_the_conversation(tools: Tools) -> None:
    assert (await call(tools, "chatty", text="said")).data == {"ok": True, "value": "said"}
    assert (await call(tools, "add", a=1, b=1)).data["value"] == 2


@pytest.mark.parametrize("name", ["die", "leave", "wrong"])
async def test_a_crash_in_a_write_without_a_key_is_unknown(tools: Tools, name: str) -> None:
    args = {"with_signal": 9} if name == "die" else {}
    crashed = await call(tools, name, Effect.WRITE, **args)
    assert (crashed.error_class, crashed.applied) == (ErrorClass.UNKNOWN, None)
    assert "secret" not in crashed.data["message"]
    assert (await call(tools, "add", a=1, b=1)).ok


@pytest.mark.parametrize(
    ("said", "error", "applied"),
    [
        ("validation", ErrorClass.VALIDATION, False),
        ("conflict", ErrorClass.CONFLICT, False),
        ("rate_limit", ErrorClass.RATE_LIMIT, False),
        ("transient_upstream", ErrorClass.UNKNOWN, None),
        ("duplicate_request", ErrorClass.DUPLICATE_REQUEST, True),
    ],
)
async def test_a_tool_says_what_happened_in_the_words_of_the_table(
    tools: Tools, said: str, error: ErrorClass, applied: bool | None
) -> None:
    result = await call(tools, "say", Effect.WRITE, error=said)
    assert (result.error_class, result.applied) == (error, applied)
    if applied:
        assert result.data == {"ok": True, "already_applied": True}
    else:
        assert result.data["message"] == "in its own words"
        assert result.retry_after_s == 1.5


async def test_wrong_arguments_were_not_applied(tools: Tools) -> None:
    result = await call(tools, "add", Effect.WRITE, a="x", b=1)
    assert (result.error_class, result.applied) == (ErrorClass.VALIDATION, False)


@pytest.mark.parametrize("name", ["missing", "sample_tools.add", "os.system"])
async def test_only_registered_names_are_called(tools: Tools, name: str) -> None:
    result = await call(tools, name, Effect.WRITE)
    assert (result.error_class, result.applied) == (ErrorClass.POLICY, False)


@pytest.mark.parametrize("name", ["huge", "deep"])
async def test_an_answer_too_large_or_too_deep_is_invalid_and_a_write_was_applied(tools: Tools, name: str) -> None:
    result = await call(tools, name, Effect.WRITE)
    assert (result.error_class, result.applied) == (ErrorClass.INVALID_OUTPUT, True)
    assert (await call(tools, "add", a=1, b=1)).ok


async def test_hostile_values_are_made_storable_and_counted(tools: Tools) -> None:
    result = await call(tools, "odd")
    assert result.data == {"ok": True, "value": [None, "�", "�", str(2**70)]}
    assert result.sanitized == 3


async def test_a_call_that_finds_no_free_child_was_not_sent(tools: Tools) -> None:
    await tools.python.start()
    busy = asyncio.create_task(call(tools, "linger", seconds=1.0))
    await asyncio.sleep(0.05)
    waiting = await call(tools, "add", Effect.WRITE, timeout_s=0.1, a=1, b=1)
    assert (waiting.error_class, waiting.applied) == (ErrorClass.NOT_SENT, False)
    assert (await busy).ok


async def test_modules_that_cannot_be_imported_are_told_and_nothing_was_sent() -> None:
    tools = Tools(python=PythonPool(["no_such_module"], size=1))
    result = await call(tools, "add", Effect.WRITE, a=1, b=1)
    await tools.aclose()
    assert (result.error_class, result.applied) == (ErrorClass.NOT_SENT, False)
    assert "no_such_module" in result.data["message"]


async def test_closing_the_pool_ends_every_child(tools: Tools) -> None:
    pid = (await call(tools, "about")).data["pid"]
    await tools.aclose()
    await gone(pid)
    assert (await call(tools, "add", a=1, b=1)).error_class is ErrorClass.NOT_SENT
