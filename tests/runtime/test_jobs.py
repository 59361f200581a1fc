"""The keeper of django-q2's cluster, with the real cluster and with stand-ins that hang."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from django.conf import settings
from django.db.models.functions import Now

from console.management.commands.jobs import Watch, canary_age, runs_in
from console.postgres import Urls
from runs.models import Canary

DEAF = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('qcluster'); time.sleep(600)"]
QUIET = [sys.executable, "-c", "import time; 'qcluster'; time.sleep(600)"]


def waited(condition: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def members(group: int) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if runs_in(group, entry)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[Watch], Thread]]:
    watches: list[tuple[Watch, Thread]] = []

    def start(watch: Watch) -> Thread:
        thread = Thread(target=watch.run)
        watches.append((watch, thread))
        thread.start()
        assert waited(lambda: watch.cluster is not None)
        return thread

    yield start
    for watch, thread in watches:
        watch.asked = 2
        thread.join(30)


def test_a_cluster_whose_canary_is_overdue_is_replaced(
    tmp_path: Path, running: Callable[[Watch], Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.management.commands.jobs.LOOK_S", 0.1)
    watch = Watch(QUIET, tmp_path, overdue=timedelta(seconds=1), age=lambda: None)
    running(watch)
    assert watch.cluster is not None
    first = watch.cluster.pid
    assert waited(lambda: watch.cluster is not None and watch.cluster.pid != first)
    assert members(first) == []


def test_a_cluster_that_keeps_its_canary_alive_is_left_alone(
    tmp_path: Path, running: Callable[[Watch], Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.management.commands.jobs.LOOK_S", 0.05)
    looks: list[object] = []

    def age() -> timedelta:
        looks.append(1)
        return timedelta()

    watch = Watch(QUIET, tmp_path, overdue=timedelta(milliseconds=500), age=age)
    running(watch)
    assert watch.cluster is not None
    first = watch.cluster.pid
    assert waited(lambda: len(looks) > 8)
    assert watch.cluster.pid == first


def test_the_age_of_the_canary_is_measured_by_the_clock_of_the_database(committed_db: None) -> None:
    assert canary_age() is None
    Canary.objects.create(name="jobs", at=Now() - timedelta(seconds=151))
    age = canary_age()
    assert age is not None
    assert timedelta(seconds=151) <= age < timedelta(seconds=160)


def test_a_cluster_that_does_not_hear_the_request_to_end_is_killed(
    tmp_path: Path, running: Callable[[Watch], Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.management.commands.jobs.STOP_S", 0.5)
    watch = Watch(DEAF, tmp_path)
    thread = running(watch)
    assert watch.cluster is not None
    group = watch.cluster.pid
    watch.ask_to_stop()
    thread.join(30)
    assert not thread.is_alive()
    assert members(group) == []


def test_a_second_request_does_not_wait(tmp_path: Path, running: Callable[[Watch], Thread], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.management.commands.jobs.STOP_S", 600)
    watch = Watch(DEAF, tmp_path)
    thread = running(watch)
    watch.ask_to_stop()
    watch.ask_to_stop()
    thread.join(30)
    assert not thread.is_alive()


def test_the_cluster_of_a_keeper_that_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    left = subprocess.Popen([*DEAF, "qcluster"], stdout=subprocess.DEVNULL, process_group=0)
    stranger = subprocess.Popen(["sleep", "600"], process_group=0)
    try:
        for pid in (left.pid, stranger.pid):
            (tmp_path / "jobs.group").write_text(f"{pid:<20}")
            watch = Watch(QUIET, tmp_path)
            watch.claim_record()
            os.close(watch._handle)
        assert left.wait(10) == -signal.SIGKILL
        assert stranger.poll() is None, "a number that belongs to another program now is left alone"
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_the_real_cluster_starts_and_ends_with_nothing_left(committed_db: None, urls: Urls) -> None:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "jobs"]
    record = Path(settings.HOME) / "jobs.group"
    record.unlink(missing_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        assert any("running." in line for line in process.stdout)
        group = int(record.read_text())
        assert len(members(group)) > 3
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert members(group) == []
    finally:
        process.kill()
        process.wait()


def test_without_migrations_the_cure_is_named(urls: Urls) -> None:
    environment = dict(os.environ) | {"DATABASE_ENGINE_URL": urls.engine.replace("/signalbox_test", "/nowhere")}
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "jobs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "The schedules cannot be written" in done.stderr
