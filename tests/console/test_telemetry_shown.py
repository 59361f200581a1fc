"""Trace ids over the API, and what people are shown of telemetry."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db.models.functions import Now

from console.models import TelemetryExport
from runs.models import Run, RunInput
from runs.tracing import trace_of
from tests.runtime.waiting import World, make_world

from .callers import Caller, caller
from .past import browser

ORDER = {"agent": "support-triage", "input": "Please refund me"}
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.starter)


def kept(answer: Any) -> str:
    run = Run.objects.get()
    assert answer.status_code == 202 and answer.json()["run_id"] == run.run_id
    return RunInput.objects.get(run_id=run.id).traceparent


@pytest.mark.mission("P8.3")
def test_the_callers_trace_is_kept_with_the_run_and_returned(api: Caller) -> None:
    answer = api.post("/runs", ORDER, traceparent=GIVEN, X_Request_Id="req-of-caller")
    assert kept(answer) == answer["traceparent"] == GIVEN
    assert answer["X-Request-Id"] == "req-of-caller"


@pytest.mark.parametrize("given", ["", "nonsense", GIVEN.replace("00f067aa0ba902b7", "0" * 16), GIVEN + "-and-more"])
def test_what_is_no_trace_is_no_error_and_the_answer_names_the_trace_of_the_run(api: Caller, given: str) -> None:
    answer = api.post("/runs", ORDER, **({"traceparent": given} if given else {}))
    assert kept(answer) == ""
    assert answer["traceparent"] == trace_of(answer.json()["run_id"], None).root_header


def shown(world: World) -> str:
    page = browser(world.operator).get("/?part=integrity")
    assert page.status_code == 200
    found = re.search(r'<p[^>]*id="telemetry".*?</p>', page.content.decode(), re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split()) if found else ""


def test_the_overview_says_how_telemetry_fares(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(world) == ""
    monkeypatch.setattr(settings, "OTEL_ENDPOINT", "http://collector:4318")
    assert shown(world) == "Telemetry: 0 runs sent"
    TelemetryExport.objects.create(name="otlp", floor=Now() - timedelta(hours=1), batch=1, sent=7, dropped=2, last_error="answered 503")
    assert shown(world) == "Telemetry: 7 runs sent ; 2 dropped; answered 503".replace(" ;", ";")
    monkeypatch.setattr(settings, "OTEL_PROTOCOL", "grpc")
    assert shown(world).startswith("Telemetry: off. OTEL_EXPORTER_OTLP_PROTOCOL is one of")
