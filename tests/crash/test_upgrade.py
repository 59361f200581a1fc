"""From the version before to this one and back: its migrations beside a load, then engines of both on one database. Long form only.

The version before is the commit before the newest one that added a migration, or what UPGRADE_FROM names; its tests are not used.
"""

import os
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.stack import ROOT, Stack
from tests.conftest import ground

from .figures import figure

pytestmark = pytest.mark.skipif(not (os.environ.get("CHAOS") and (ROOT / ".git").exists()), reason="long: CHAOS=1, in a clone with history")
STORED, IN_FLIGHT = 50_000, 500
WAITING = """select l.pid, extract(epoch from clock_timestamp() - l.waitstart)::float8, left(a.query, 80) from pg_locks l
join pg_stat_activity a using (pid) where not l.granted and l.waitstart is not null and a.datname = current_database()"""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def before() -> str:
    if named := os.environ.get("UPGRADE_FROM"):
        return git("rev-parse", "--short", named)
    if git("ls-files", "--others", "--exclude-standard", "*/migrations/0*.py"):
        return git("rev-parse", "--short", "HEAD")
    return git("rev-parse", "--short", git("log", "-1", "--format=%h", "--diff-filter=A", "--", "*/migrations/0*.py") + "^")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    archive = subprocess.run(["git", "archive", before()], cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive, check=True, timeout=60)
    return tmp_path


@pytest.fixture
def stack(request: pytest.FixtureRequest, django_db_setup: None, older: Path) -> Iterator[Stack]:
    """The version before."""
    made = Stack(request.config.stash[ground].urls, engines=2, model_latency_ms=600)
    made.root = older
    second = made.commands.pop("engine-2")
    made.up()
    made.commands["engine-2"] = second
    try:
        yield made
    finally:
        made.down()


class Callers:
    """Ask and start runs all the time; every answer with its seconds."""

    def __init__(self, stack: Stack, together: int = 3) -> None:
        self.stack, self.over = stack, threading.Event()
        self.answers, self.runs = list[tuple[float, float, int]](), list[str]()
        self.threads = [threading.Thread(target=self.work) for _ in range(together)]

    def work(self) -> None:
        while not self.over.is_set():
            for method, path, body in (("GET", "/runs?limit=20", None), ("POST", "/runs", question()), ("GET", "/metrics/summary", None)):
                began = time.monotonic()
                answer = self.stack.api(method, path, body)
                self.answers.append((began, time.monotonic() - began, answer.status))
                if answer.status == 202:
                    self.runs.append(answer.body["run_id"])
                self.over.wait(0.1)

    def p99(self, since: float, until: float) -> float:
        found = [seconds for at, seconds, _ in self.answers if since <= at <= until]
        return round(statistics.quantiles(found, n=100)[98], 3)

    def __enter__(self) -> "Callers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(90)


class Locks:
    """The longest that any session waited for a lock, looked at every 20 ms."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.over, self.longest, self.by, self.looks = dsn, threading.Event(), 0.0, "", 0
        self.thread = threading.Thread(target=self.look)

    def look(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.over.wait(0.02):
                self.looks += 1
                for _, seconds, query in connection.execute(WAITING):
                    if seconds > self.longest:
                        self.longest, self.by = seconds, query

    def __enter__(self) -> "Locks":
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join(30)


def question() -> dict[str, str]:
    return {"agent": "support-triage", "input": "How long do refunds take?"}


def replaced(stack: Stack, root: Path, gone: str, new: str) -> None:
    """An engine of the other version, then the end of the one that was there."""
    stack.root = root
    stack.start(new)
    time.sleep(5)  # both drive runs
    stack.kill(gone, signal.SIGTERM)
    del stack.processes[gone]
    stack.restart("web", signal.SIGTERM)


def outcomes(stack: Stack, runs: list[str]) -> Counter[str]:
    return Counter(stack.until(run_id, seconds=240)["outcome"] for run_id in runs)


def test_migrations_beside_a_load_keep_nobody_waiting(stack: Stack) -> None:
    for seed in range(5):
        stack.manage("generate", "--runs", str(STORED // 5), "--seed", str(seed), "--force")
    began = time.monotonic()
    with Locks(stack.urls.owner) as locks, Callers(stack) as callers:
        time.sleep(10)
        calm, locks.longest, locks.by = time.monotonic(), 0.0, ""
        stack.root = ROOT
        said = stack.manage("migrate", "--database", "owner")
        migrated = time.monotonic()
        time.sleep(3)
    applied = [line.split("...")[0].removeprefix("  Applying ").strip() for line in said.splitlines() if "... OK" in line]
    statuses = Counter(status for _, _, status in callers.answers)
    assert applied and set(statuses) == {200, 202}, (applied, statuses)
    assert set(outcomes(stack, callers.runs)) == {"completed"} and locks.longest < 2, locks.by
    figure("T41", f"migrations from {before()} beside a load and {STORED} stored runs", n=len(applied), seconds=migrated - calm,
           longest_lock_wait_s=round(locks.longest, 3), looks=locks.looks, p99_before_s=callers.p99(began, calm),
           p99_meanwhile_s=callers.p99(calm, migrated), requests=len(callers.answers), errors=0, runs=len(callers.runs))  # fmt: skip


def test_both_versions_drive_runs_on_one_database_there_and_back(stack: Stack, older: Path) -> None:
    stack.root = ROOT
    stack.manage("migrate", "--database", "owner")
    began = time.monotonic()
    runs = [stack.submit(question()["input"]) for _ in range(IN_FLIGHT // 2)]
    replaced(stack, ROOT, "engine-1", "engine-2")
    runs += [stack.submit(question()["input"]) for _ in range(IN_FLIGHT // 2)]
    replaced(stack, older, "engine-2", "engine-1")
    found = outcomes(stack, runs)
    assert set(found) == {"completed"}, found
    stack.root = ROOT
    doctor = stack.python("from console import doctor; from django.db import connection;"
                          "print([one.name for one in doctor.examine(connection) if not one.warning])")  # fmt: skip
    assert doctor.strip() == "[]"
    figure("T40", f"engines and web of {before()} and of this version in turns on one database, there and back, runs in flight",
           n=len(runs), seconds=time.monotonic() - began, **found, failed_by_it=0)  # fmt: skip
