"""The engine's world, with engines as processes that can be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .nursery import Nursery

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest_asyncio.fixture
async def world(committed_db: None, urls: Any) -> AsyncIterator[Any]:
    from tests.runtime.world import opened

    async with opened(urls.engine) as made:
        yield made


@pytest.fixture
def start_engine(urls: Any, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """`start_engine(lease=2, slots=100, NAME=value)` -> a process of `manage.py engine` on the test database, with that environment."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(lease: float = 2.0, slots: int = 100, **more: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | urls.environment() | {"SIGNALBOX_ROLE": "engine"} | more
        with (tmp_path / f"engine-{len(processes)}.log").open("wb") as log:
            command = [sys.executable, "manage.py", "engine", "--lease", str(lease), "--slots", str(slots)]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(10)


@pytest.fixture(scope="session")
def nursery_of_session(request: pytest.FixtureRequest, django_db_setup: None, tmp_path_factory: Any) -> Iterator[Nursery]:
    from tests.conftest import ground

    environment = os.environ | request.config.stash[ground].urls.environment() | {"SIGNALBOX_ROLE": "engine", "SIGNALBOX_LEASE_TTL_S": "1"}
    environment["SIGNALBOX_TOOL_MODULES"] = "tests.crash.bad_tools"
    made = Nursery(environment, tmp_path_factory.mktemp("engines"))
    yield made
    made.close()


@pytest.fixture
def nursery(nursery_of_session: Nursery, committed_db: None) -> Iterator[Nursery]:
    """`nursery.start("point=action")` -> an engine process, in some milliseconds. All are ended after the test."""
    yield nursery_of_session
    nursery_of_session.end_all()
