"""Keeps django-q2's cluster alive, and ends it when it hangs.

SIGTERM to all of its processes makes it hang for ever, and SIGKILL of an idle worker may stop its whole work without ending it.
So it gets a process group of its own, only its main process hears a signal, and a row that one of its schedules writes every
minute says whether it still works. The courier of the outbox and the watchman run in threads of this process: no hung cluster delays
a message, or what is counted of the runs."""

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.models import Max
from django.db.models.functions import Now

from console import tasks as console_tasks
from console.notify import Background
from console.runbooks import shelf
from console.telemetry.exporter import Exporter, configured
from console.watchman import Watchman
from runs import tasks
from runs.models import Canary

logger = logging.getLogger("console.jobs")
OVERDUE = timedelta(seconds=150)
STOP_S = 10.0
LOOK_S = 15.0
SLOWEST_RESTART_S = 30.0


class Command(BaseCommand):
    help = "Run schedules and background work (django-q2), watched. SIGTERM ends it within 10 seconds, a second one at once."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        schedule()
        watch = Watch([sys.executable, str(settings.BASE_DIR / "manage.py"), "qcluster"], Path(settings.HOME))
        threads: list[Background | Watchman] = [Background(), Watchman(), *telemetry()]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop_all(watch, *threads))
        for thread in threads:
            thread.start()
        try:
            watch.run()
        finally:
            for thread in threads:
                thread.stop()


def telemetry() -> list[Background]:
    """The exporter, where the environment names a receiver. A setting that is wrong stops nothing else."""
    try:
        to = configured()
    except ValueError as wrong:
        logger.error("telemetry is not exported: %s", wrong)
        return []
    return [Background(lambda: Exporter(to), "telemetry exporter")] if to else []


def stop_all(*parts: "Watch | Background | Watchman") -> None:
    for each in parts:
        each.ask_to_stop()


def schedule() -> None:
    try:
        tasks.ensure_schedules()
        console_tasks.ensure_schedules()
        shelf.load_files()
    except DatabaseError as failure:
        raise CommandError(f"The schedules cannot be written: {failure} Migrate first: `make run` does.") from failure
    finally:
        connection.close()


def canary_age() -> timedelta | None:
    """How long ago the canary wrote its row, by the database's clock; None if never. A database that is away accuses nobody: zero."""
    try:
        age: timedelta | None = Canary.objects.aggregate(age=Now() - Max("at"))["age"]
        return age
    except DatabaseError:
        return timedelta()
    finally:
        connection.close()


class Watch:
    """One cluster at a time. `ask_to_stop` may be called from a signal handler."""

    def __init__(
        self, command: list[str], home: Path, *, overdue: timedelta = OVERDUE, age: Callable[[], timedelta | None] = canary_age
    ) -> None:
        self.command = command
        self.overdue = overdue
        self.age = age
        self.record = home / "jobs.group"
        self.asked = 0
        self.cluster: subprocess.Popen[bytes] | None = None
        self._handle = -1

    def ask_to_stop(self) -> None:
        self.asked += 1

    def run(self) -> None:
        self.claim_record()
        failures = 0
        while not self.asked:
            began = time.monotonic()
            self.start()
            self.keep()
            self.end_group()
            failures = 0 if time.monotonic() - began > 60 else failures + 1
            self.pause(min(2.0**failures, SLOWEST_RESTART_S))

    def start(self) -> None:
        environment = dict(os.environ) | {"SIGNALBOX_ROLE": "jobs", "SIGNALBOX_POOL": ""}
        self.cluster = subprocess.Popen(
            self.command, env=environment, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=tie_to_parent()
        )
        self.started = time.monotonic()
        if self._handle >= 0:
            os.pwrite(self._handle, f"{self.cluster.pid:<20}".encode(), 0)
        logger.info("cluster started, group %s", self.cluster.pid)

    def keep(self) -> None:
        """Returns when the cluster has ended, hangs, or was asked to end."""
        assert self.cluster is not None
        look = time.monotonic() + LOOK_S
        while self.cluster.poll() is None:
            if self.asked:
                return self.stop()
            if time.monotonic() > look:
                look = time.monotonic() + LOOK_S
                if self.hangs():
                    logger.error("the canary is overdue: the cluster hangs and is replaced")
                    return None
            time.sleep(0.1)
        logger.error("the cluster ended with code %s", self.cluster.returncode)
        return None

    def hangs(self) -> bool:
        """A young cluster is given the time that a canary may take."""
        if time.monotonic() - self.started < self.overdue.total_seconds():
            return False
        age = self.age()
        return age is None or age > self.overdue

    def stop(self) -> None:
        """SIGTERM to the main process alone; ten seconds, or a second request, end the patience."""
        assert self.cluster is not None
        self.cluster.terminate()
        deadline = time.monotonic() + STOP_S
        while self.cluster.poll() is None and time.monotonic() < deadline and self.asked < 2:
            time.sleep(0.05)

    def end_group(self) -> None:
        """SIGKILL whatever is left of the group, its main process too."""
        assert self.cluster is not None
        kill_group(self.cluster.pid)
        self.cluster.wait()

    def pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.asked and time.monotonic() < deadline:
            time.sleep(0.1)

    def claim_record(self) -> None:
        """A `jobs` that was killed leaves its cluster running. Whoever gets the lock is alone on this folder and ends it."""
        handle = os.open(self.record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a second `jobs` on this host: it keeps no record
            os.close(handle)
            return
        self._handle = handle
        left = os.pread(handle, 20, 0).decode().strip()
        if left and any(runs_in(int(left), entry) for entry in Path("/proc").glob("[0-9]*")):
            kill_group(int(left))


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def runs_in(group: int, process: Path) -> bool:
    """True if `process` (its folder in /proc) is a part of a cluster in `group`: the number may be somebody else's by now."""
    try:
        return os.getpgid(int(process.name)) == group and b"qcluster" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def tie_to_parent() -> Callable[[], None] | None:
    """On Linux the cluster's main process hears SIGTERM when this process is killed."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # found before the fork: little is safe after it

    def tie() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    return tie
