"""Named places where a test lets this process die, freeze or lose its database. Without SIGNALBOX_FAILPOINTS: one global check.

`SIGNALBOX_FAILPOINTS="after_claim=kill9;before_socket=stop:3000@2"`: at the second time that `before_socket` is reached, freeze for
3 s. What becomes of a run whose engine dies or freezes at each of them is the table in tests/crash/test_failpoints.py.
"""

import gc
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

_SPEC = re.compile(r"(\w+)=(kill9|stop|raise|drop_db|lost_answer)(?::(\d+))?(?:@(\d+))?")

POINTS = (
    "after_claim", "before_model_intent", "after_model_intent", "before_model_socket", "after_model_answer",
    "before_dispatch_commit", "after_dispatch_commit", "before_socket", "after_answer",
    "before_ask", "in_ask", "after_ask", "before_consume", "in_consume", "after_consume", "before_approved_socket", "after_approved_answer",
    "before_park", "after_park", "before_end", "after_end", "in_flush", "after_flush",
    "lease_renewal", "drain", "in_expire", "in_settle",
)  # fmt: skip


@dataclass(slots=True)
class Point:
    """What happens at the `nth` time; `act` of a test in the same process."""

    act: Callable[[], None]
    nth: int = 1
    hits: int = 0


_armed: dict[str, Point] = {}
_on = False


def fp(name: str) -> None:
    """A place where a test may let something happen."""
    if _on:
        _reached(name)


def arm(spec: str) -> None:
    """Replace what is armed by a specification (empty: nothing). Raises ValueError for one that would silently do nothing."""
    _armed.clear()
    for part in filter(None, (p.strip() for p in spec.split(";"))):
        if not (found := _SPEC.fullmatch(part)) or found[1] not in POINTS:
            raise ValueError(f"not a failpoint: {part}")
        put(found[1], _action(found[2], int(found[3] or 0)), int(found[4] or 1))
    _switch()


def put(name: str, act: Callable[[], None], nth: int = 1) -> None:
    """Arm one point of this process with a function; it is called once, where the point is, in whatever thread that is."""
    _armed[name] = Point(act, nth)
    _switch()


def _switch() -> None:
    global _on
    _on = bool(_armed)


def _reached(name: str) -> None:
    point = _armed.get(name)
    if point is not None:
        point.hits += 1
        if point.hits == point.nth:
            print(f"failpoint {name} reached", file=sys.stderr, flush=True)
            point.act()


def _action(word: str, argument: int) -> Callable[[], None]:
    return {"kill9": _kill, "stop": lambda: _stop(argument), "raise": _fail, "drop_db": _cut, "lost_answer": _lose}[word]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(ms: int) -> None:
    """Freeze every thread; without a time, until somebody else continues the process."""
    if ms:
        subprocess.Popen(["/bin/sh", "-c", f"sleep {ms / 1000}; kill -CONT {os.getpid()}"], start_new_session=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def _fail() -> None:
    raise RuntimeError("failpoint")


def _cut() -> None:
    """Cut every database connection of this process, whoever uses it."""
    for connection in [o for o in gc.get_objects() if isinstance(o, psycopg.BaseConnection) and not o.closed]:
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def _lose() -> None:
    _cut()
    raise psycopg.errors.ConnectionFailure("failpoint: the answer was lost")


arm(os.environ.get("SIGNALBOX_FAILPOINTS", ""))
