"""A caller that is called back, through the real processes: submitted over HTTP, sent by the courier of `manage.py jobs`."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest

from console.webhooks import verify

from .stack import Stack

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JOBS = ([sys.executable, "-u", "manage.py", "jobs"], {"SIGNALBOX_ROLE": "jobs"})


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.put(({name.lower(): value for name, value in self.headers.items()}, body))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def hook() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got = Queue()  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def jobs(stack: Stack) -> Iterator[None]:
    """The session's installation runs without `jobs`; here with it."""
    stack.commands["jobs"] = JOBS
    stack.start("jobs")
    yield
    stack.kill("jobs", signal.SIGTERM)
    del stack.commands["jobs"], stack.processes["jobs"]


@pytest.mark.mission("P1.4")
def test_the_caller_gets_a_signed_message_when_the_run_has_completed(stack: Stack, hook: Any, jobs: None) -> None:
    host_port = f"127.0.0.1:{hook.server_port}"
    tenant = stack.api("GET", "/runs/" + stack.submit("What is the refund policy?")).body["tenant"]
    configuration = {
        "egress": {"allow": [host_port]},
        "credentials": [{"name": "hook-secret", "tenant": tenant, "kind": "bearer", "value": SECRET}],
    }
    order = {"agent": "support-triage", "input": "What is the refund policy?"}
    order |= {"callback": {"url": f"http://{host_port}/runs", "secret_name": "hook-secret"}}  # type: ignore[dict-item]
    assert stack.api("POST", "/runs", order).body["code"] == "egress_refused"
    assert stack.api("POST", "/config/apply", configuration, key="admin_api_key").status == 200
    run_id = stack.api("POST", "/runs", order).body["run_id"]

    headers, body = hook.got.get(timeout=60)
    message_id = verify(headers, body, [SECRET], int(headers["webhook-timestamp"]))
    record = stack.until(run_id)
    told = json.loads(body)
    assert (told["type"], told["data"]["run_id"], told["data"]["outcome"]) == ("run.succeeded", run_id, "completed")
    assert told["data"]["output"] == record["output"] and told["data"]["seq"] == record["seq"]
    (delivery,) = stack.api("GET", f"/runs/{run_id}/deliveries").body["items"]
    assert delivery["delivery_id"] == message_id
