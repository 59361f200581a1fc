"""Telemetry as others read it: spans of a real run by a real receiver, and the metrics by Prometheus itself."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console import ports
from tests.acceptance.stack import Stack
from tests.conftest import ground

from .peers import Tap, attributes, eventually, prometheus, receiver

pytestmark = pytest.mark.system
__all__ = ["prometheus", "receiver"]
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASK = "URGENT: I was charged twice on acct_1001. Please help!"


@pytest.fixture(scope="module")
def installation(request: pytest.FixtureRequest, django_db_setup: None, receiver: Tap) -> Iterator[Stack]:
    """As `make run` has it, with a receiver."""
    made = Stack(request.config.stash[ground].urls, jobs=True, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    made.up()
    yield made
    made.down()


@pytest.mark.mission("P8.3")
def test_a_receiver_understands_the_spans_of_a_run(installation: Stack, receiver: Tap) -> None:
    answer = installation.api("POST", "/runs", {"agent": "support-triage", "input": ASK}, traceparent=f"00-{TRACE}-{CALLER}-01")
    assert answer.status == 202 and answer.headers["traceparent"] == f"00-{TRACE}-{CALLER}-01"
    run_id = answer.body["run_id"]
    installation.until(run_id, "waiting_approval")
    asked = installation.approval_of(run_id)
    path, verdict = f"/approvals/{asked['approval_id']}/decision", {"verdict": "approve", "digest": asked["digest"]}
    assert installation.api("POST", path, verdict, key="admin_api_key").status == 200
    record = installation.until(run_id)
    assert record["state"] == "succeeded", record

    def root() -> dict[str, Any] | None:
        of_run = [span for span in receiver.spans() if attributes(span).get("signalbox.run_id") == run_id]
        return of_run[0] if of_run else None

    whole = eventually(root, "the receiver has the root of the run")
    spans = [span for span in receiver.spans() if span["traceId"] == TRACE]
    children = [span for span in spans if span is not whole and span["name"] != whole["name"]]
    assert whole["name"] == "invoke_agent support-triage" and whole["parentSpanId"] == CALLER
    assert {span["parentSpanId"] for span in children} == {whole["spanId"]}
    names = [span["name"].split()[0] for span in children]
    assert names.count("chat") == record["usage"]["steps"] and names.count("execute_tool") == record["usage"]["tool_calls"]
    assert "execute_tool create_ticket" in [span["name"] for span in children]
    told = attributes(whole)
    assert (told["gen_ai.agent.name"], told["signalbox.outcome"], told["signalbox.tenant"]) == ("support-triage", "completed", "acme")
    assert int(told["gen_ai.usage.input_tokens"]) == record["usage"]["input_tokens"]
    assert float(told["signalbox.cost_usd"]) == pytest.approx(float(record["cost_usd"]))
    assert {"approval_requested", "approval_decided"} <= {one["name"] for one in whole["events"]}
    assert "charged twice" not in receiver.log.read_text()
    carried = [one["traceparent"].split("-") for one in installation.sandbox("GET", "/received")["requests"] if one["run"] == run_id]
    assert carried and {trace for _, trace, _, _ in carried} == {TRACE}
    assert {span for _, _, span, _ in carried} <= {span["spanId"] for span in children}


@pytest.mark.mission("P8.2")
def test_promtool_finds_no_fault_with_the_metrics(installation: Stack, prometheus: Path) -> None:
    text = installation.call("GET", f"{installation.base_url}/metrics").body
    assert "signalbox_" in text
    linted = subprocess.run(
        [str(prometheus / "promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (linted.returncode, (linted.stdout + linted.stderr).splitlines()) == (0, [])


@pytest.mark.mission("P8.2")
def test_prometheus_scrapes_the_metrics(installation: Stack, prometheus: Path, tmp_path: Path) -> None:
    port, target = ports.free(), installation.base_url.removeprefix("http://")
    job = {"job_name": "signalbox", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    listen = f"--web.listen-address=127.0.0.1:{port}"
    command = [str(prometheus / "prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data", listen]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        (one,) = eventually(lambda: scraped(port), "Prometheus has scraped")
        assert (one["health"], one["lastError"]) == ("up", "")
    finally:
        server.terminate()
        server.wait(20)


def scraped(port: int) -> list[dict[str, Any]]:
    """The targets that Prometheus has asked at least once."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return []
    return [one for one in targets if one["health"] != "unknown"]
