"""Engine processes in a moment: one process imports everything once and forks each engine. A line of JSON in, a pid out.

`Nursery` is the test's side; `python -m tests.crash.nursery` the other one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def started(pid: int) -> tuple[str, int] | None:
    """(state letter, start time) of a process, None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[19]))


@dataclass
class Forked:
    """One engine process."""

    pid: int
    born: int
    log: Path

    @property
    def alive(self) -> bool:
        now = started(self.pid)
        return now is not None and now[1] == self.born

    @property
    def frozen(self) -> bool:
        now = started(self.pid)
        return now is not None and now == ("T", self.born)

    def send(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)


class Nursery:
    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self.logs, self.children, self.made = logs, list[Forked](), 0
        command = [sys.executable, "-m", "tests.crash.nursery"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(
        self, points: str = "", *, lease: float = 2.0, slots: int = 100, modest: bool = False, clock: tuple[float, ...] = ()
    ) -> Forked:
        """`modest`: it takes over nobody's runs and never polls, so that only its own case happens in it.

        `clock`: seconds by which its wall clock is wrong; several: it steps from one to the next each half second."""
        self.made += 1
        log = self.logs / f"engine-{self.made}.log"
        log.touch()
        order = {"points": points, "lease": lease, "slots": slots, "modest": modest, "log": str(log), "clock": clock}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        pid = int(self.process.stdout.readline())
        made = Forked(pid, (started(pid) or ("", 0))[1], log)
        self.children.append(made)
        return made

    def end_all(self) -> None:
        for child in self.children:
            child.send(signal.SIGKILL)
        end = time.monotonic() + 10
        while any(child.alive for child in self.children) and time.monotonic() < end:
            time.sleep(0.01)
        self.children.clear()

    def close(self) -> None:
        self.end_all()
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


def serve() -> None:
    import django

    django.setup()
    import runs.engine.engine
    from console.management.commands import engine as command

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are nobody's
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            be_engine(json.loads(line), runs.engine.engine, command)
        print(pid, flush=True)


def be_engine(order: dict[str, Any], module: Any, command: Any) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, handle in ((0, nothing), (1, log), (2, log)):
            os.dup2(handle, number)
        if order["modest"]:
            module.POLL_S = 3600.0
            module.TAKEOVER = module.TAKEOVER.replace("where r.owner is not null", "where false")
        if order["clock"]:
            set_clock(order["clock"])
        from runs import failpoints

        failpoints.arm(order["points"])
        command.Command().handle(slots=order["slots"], lease=order["lease"])
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def set_clock(offsets: list[float]) -> None:
    """Everything in this process that asks for the time of day gets a wrong answer. The monotonic clock is left alone."""
    import datetime as dt

    true = time.time

    def wrong() -> float:
        return true() + offsets[int(true() * 2) % len(offsets)]

    class Wrong(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return dt.datetime.fromtimestamp(wrong(), tz)

    time.time, time.time_ns = wrong, lambda: int(wrong() * 1e9)
    ours = ("runs", "tools", "tenants", "approvals", "console", "django")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ours and vars(module).get("datetime") is dt.datetime:
            module.datetime = Wrong  # type: ignore[attr-defined]
    print(f"clock {time.time():.0f}", flush=True)


if __name__ == "__main__":
    serve()
