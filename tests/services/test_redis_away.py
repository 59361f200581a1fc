"""T37: Redis carries messages of the jobs and nothing else. Gone or mute, runs, API and live streams go on, and the jobs come back."""

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.stack import Stack
from tests.conftest import ground
from tests.crash.figures import figure

from .wire import CUT, PASS, SWALLOW, Wire

pytestmark = pytest.mark.services
AWAY_S = 60.0 if os.environ.get("CHAOS") else 8.0
PATIENCE_S = 150
JOB = (
    "from django_q.tasks import async_task; from runs.models import Canary; Canary.objects.all().delete(); async_task('runs.tasks.canary')"
)


@pytest.fixture
def wired(request: pytest.FixtureRequest, django_db_setup: None) -> Iterator[tuple[Stack, Wire]]:
    wire = Wire(urlsplit(os.environ["REDIS_URL"]).port or 6379)
    made = Stack(request.config.stash[ground].urls, jobs=True, model_latency_ms=50, REDIS_URL=f"redis://127.0.0.1:{wire.port}/0")
    try:
        made.up()
        yield made, wire
        made.down()
    finally:
        wire.close()


class Watch:
    """Asks and starts runs all the time; follows each run's stream to its end."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.over = stack, threading.Event()
        self.asked, self.started, self.lags = Counter[int](), list[str](), list[float]()
        self.threads = [threading.Thread(target=self.ask), threading.Thread(target=self.start)]

    def ask(self) -> None:
        while not self.over.wait(0.1):
            self.asked.update(self.stack.api("GET", path).status for path in ("/runs", "/approvals", "/metrics/summary"))

    def start(self) -> None:
        while not self.over.wait(0.4):
            answer = self.stack.api("POST", "/runs", {"agent": "support-triage", "input": "How long do refunds take?"})
            self.asked[answer.status] += 1
            if answer.status == 202:
                self.started.append(answer.body["run_id"])
                self.follow(answer.body["run_id"])

    def follow(self, run_id: str) -> None:
        """Seconds from an event's own time until it is here; the worst of the run."""
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.stack.dev['api_key']}", "Accept": "text/event-stream"}
        connection.request("GET", f"/api/v1/runs/{run_id}/events", headers=headers)
        worst = 0.0
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                worst = max(worst, time.time() - datetime.fromisoformat(json.loads(line[6:])["at"]).timestamp())
        self.lags.append(worst)
        connection.close()

    def __enter__(self) -> "Watch":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(90)


def works(stack: Stack) -> float:
    """Seconds until a job that is asked for now was done."""
    began = time.monotonic()
    stack.python(JOB)
    while stack.python("from runs.models import Canary; print(Canary.objects.count())").strip() == "0":
        assert time.monotonic() < began + PATIENCE_S, stack.tails()
        time.sleep(0.5)
    return time.monotonic() - began


def test_runs_api_and_streams_do_not_notice_that_redis_is_away(wired: tuple[Stack, Wire]) -> None:
    stack, wire = wired
    works(stack)
    began, recovered = time.monotonic(), []
    with Watch(stack) as watch:
        for trouble in (CUT, SWALLOW):
            wire.become(trouble)
            time.sleep(AWAY_S)
            wire.become(CUT)  # what swallowed is no connection any more
            wire.become(PASS)
            recovered.append(works(stack))
    outcomes = Counter(stack.until(run_id)["outcome"] for run_id in watch.started)
    failed = {status: times for status, times in watch.asked.items() if status not in (200, 202)}
    assert failed == {} and set(outcomes) == {"completed"} and len(watch.lags) == len(watch.started) > 10
    assert max(watch.lags) < 6
    figure("T37", f"Redis away for {AWAY_S:.0f} s, then mute for as long: API, runs, live streams, jobs afterwards",
           n=len(watch.started), seconds=time.monotonic() - began, requests=sum(watch.asked.values()), errors=0, **outcomes,
           worst_stream_lag_s=round(max(watch.lags), 2), jobs_back_after_s=[round(one, 1) for one in recovered])  # fmt: skip
