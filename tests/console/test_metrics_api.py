"""Metrics over HTTP: the summary, series, files, what Prometheus reads, and the page that says what is counted."""

import csv
import io
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from console import exposition, rollups, scrape
from console.histograms import ERROR
from console.metric_definitions import METRICS
from console.models import CallHour
from console.rollups import hour_of
from runs.events import Kind, event
from runs.history import append
from tests.runtime.waiting import World, make_world, person, queued

from .callers import caller, key_of, refusal
from .past import browser, called, ended

H = timedelta(hours=1)
KEYS = {
    "run_success_rate", "terminal_states", "steps_per_run", "tool_error_rate", "retry_rate", "budget_exceeded_rate", "fallback_rate",
    "cost_per_success", "duration_ms", "policy_violation_rate",
}  # fmt: skip


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def busy(world: World) -> None:
    for seconds in (10, 20, 30):
        ended(world, 2 * H, seconds=seconds, cost_micro=1000, step=2)
    failed = ended(world, 3 * H, "budget_exceeded", seconds=1, cost_micro=3000, step=6)
    append(failed, [event(Kind.POLICY_VIOLATED, step_id=1), event(Kind.RETRY_SCHEDULED, tool="search_docs", error_type="timeout")])
    called(failed, 1, "search_docs", "failed_not_applied", error_class="timeout", attempt=2)
    called(failed, 2, "create_ticket")


# JSON -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.2")
def test_the_summary_has_every_metric_with_its_value_and_what_it_is_of(world: World) -> None:
    busy(world)
    told = caller(world.operator).get("/metrics/summary?since=24h").json()
    assert set(told) == KEYS | {"since", "until", "as_of", "uncounted_hours", "group_by", "groups"}
    assert told["run_success_rate"] == {"value": 0.75, "n": 4}
    assert told["terminal_states"] == {"value": {"succeeded": 0.75, "failed": 0.25, "cancelled": 0.0}, "n": 4}
    assert told["steps_per_run"] == {"value": 3.0, "n": 4}
    assert told["tool_error_rate"] == {"value": 0.5, "n": 2}
    assert told["retry_rate"] == {"value": 0.5, "n": 2, "by_class": {"timeout": 0.5}}
    assert told["budget_exceeded_rate"] == told["policy_violation_rate"] == {"value": 0.25, "n": 4}
    assert told["fallback_rate"] == {"value": 0.0, "n": 4}
    assert told["cost_per_success"] == {"value": "0.002", "n": 3, "partial": False}
    assert told["duration_ms"]["p50"]["value"] == pytest.approx(10_000, rel=ERROR)
    assert told["duration_ms"]["p95"] == {"value": pytest.approx(30_000, rel=ERROR), "n": 4}
    assert told["until"] == f"{hour_of(timezone.now()) + H:%Y-%m-%dT%H:%M:%S.000Z}" and told["uncounted_hours"] == 0


def test_without_runs_values_are_null_and_not_zero(world: World) -> None:
    told = caller(world.operator).get("/metrics/summary").json()
    assert told["run_success_rate"] == {"value": None, "n": 0} and told["terminal_states"]["value"] is None


@pytest.mark.mission("P8.2")
@pytest.mark.parametrize(
    ("group_by", "keys"),
    [
        ("agent", ["support-triage"]),
        ("tool", ["create_ticket", "search_docs"]),
        ("model", []),
        ("failure_class", ["timeout"]),
    ],
)
def test_a_summary_is_broken_down(world: World, group_by: str, keys: list[str]) -> None:
    busy(world)
    told = caller(world.operator).get(f"/metrics/summary?group_by={group_by}").json()
    assert sorted(one["key"] for one in told["groups"]) == keys and told["run_success_rate"]["n"] == 4


def test_tenants_and_releases_are_told_by_name(world: World) -> None:
    busy(world)
    ended(make_world("globex", "other"), 2 * H)
    root = caller(person(world.tenant, "root", "admin", platform=True))
    assert [one["label"] for one in root.get("/metrics/summary?group_by=tenant").json()["groups"]] == ["acme", "globex"]
    [mine] = caller(world.operator).get("/metrics/summary?group_by=release").json()["groups"]
    assert world.agent.live is not None and mine["label"] == f"support-triage r1 {world.agent.live.release_id}"
    assert root.get("/metrics/summary?tenant=globex").json()["run_success_rate"]["n"] == 1


@pytest.mark.mission("P8.2")
def test_no_figure_knows_another_tenants_runs(world: World) -> None:
    busy(make_world("globex", "other"))
    api = caller(world.operator)
    for counted in (False, True):
        told = api.get("/metrics/summary?group_by=tool").json()
        assert told["run_success_rate"]["n"] == 0 and told["groups"] == []
        assert not counted or CallHour.objects.exists()
        rollups.fold_due(48)
    assert refusal(api.get("/metrics/summary?tenant=globex")) == refusal(api.get("/metrics/summary?tenant=nobody")) == (404, "not_found")


@pytest.mark.mission("P8.2")
def test_a_series_has_a_point_for_each_stretch_without_runs_too(world: World) -> None:
    busy(world)
    told = caller(world.operator).get("/metrics/series?since=24h&every=6h").json()
    assert told["every_s"] == 6 * 3600 and len(told["items"]) == 4
    assert sum(point["run_success_rate"]["n"] for point in told["items"]) == 4


def test_two_days_are_the_last_one_and_the_one_before(world: World) -> None:
    api = caller(world.operator)
    now, before = api.get("/metrics/summary?since=24h").json(), api.get("/metrics/summary?since=48h&until=24h").json()
    assert before["until"] == now["since"]


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "since=2026-01-01T00:00:00",
        "since=2026-13-01T00:00:00Z", "since=-5h", "since=0h", "until=never", "group_by=person",
        "since=99999d", "since=1999-01-01T00:00:00Z", "since=2100-01-01T00:00:00Z", "since=24h&until=2020-01-01T00:00:00Z", "format=xlsx",
        "release=abc", "agent=" + "a" * 65, "bogus=1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["summary", "series"])
def test_what_makes_no_sense_is_refused_with_the_field(world: World, route: str, query: str) -> None:
    assert refusal(caller(world.operator).get(f"/metrics/{route}?{query}")) == (422, "validation")


@pytest.mark.parametrize("every", ["5m", "0h", "h", "1000h", "-1h"])
def test_a_step_that_makes_no_sense_is_refused(world: World, every: str) -> None:
    assert refusal(caller(world.operator).get(f"/metrics/series?every={every}")) == (422, "validation")


def test_more_points_than_anybody_draws_are_refused(world: World) -> None:
    answer = caller(world.operator).get("/metrics/series?since=300d&every=1h")
    assert refusal(answer) == (422, "validation") and "every" in answer.json()["detail"]


# files ------------------------------------------------------------------------------------------------------------------------


def test_a_csv_of_hostile_names_holds_no_formula(world: World) -> None:
    run = ended(world, 2 * H)
    names = ['=cmd|" /C calc"!A1', "+1", "-1", "@SUM(A1)", "\tx", "a,b\r\nc"]
    for ord, name in enumerate(names, 1):
        called(run, ord, name)
    answer = caller(world.operator).get("/metrics/summary?group_by=tool&format=csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="signalbox-metrics-summary.csv"')
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
    assert sorted(row["tool"] for row in rows) == sorted(name if name[0] == "a" else f"'{name}" for name in names)
    assert {row["tool_error_rate"] for row in rows} == {"0.0"} and {row["run_success_rate"] for row in rows} == {""}


def test_a_series_is_given_as_lines_of_json(world: World) -> None:
    busy(world)
    answer = caller(world.operator).get("/metrics/series?format=jsonl&every=1h")
    rows = [json.loads(line) for line in answer.content.decode().splitlines()]
    assert len(rows) == 24 and sum(row["run_success_rate_n"] for row in rows) == 4
    assert 'filename="signalbox-metrics-series.jsonl"' in answer["Content-Disposition"]


# Prometheus -------------------------------------------------------------------------------------------------------------------

LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? (NaN|[-+]?[0-9.e+-]+)')


def scraped(actor: Any = None, host: str = "127.0.0.1:8000", **more: Any) -> Any:
    extra = {"Authorization": f"Bearer {key_of(actor, 'metrics:read')}"} if actor else {}
    return Client().get("/metrics", headers=extra | more.pop("headers", {}), HTTP_HOST=host, **more)


@pytest.mark.mission("P8.2")
def test_prometheus_reads_counters_of_what_was_counted(world: World) -> None:
    busy(world)
    rollups.fold_due(48)
    answer = scraped()
    text = answer.content.decode()
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    assert all(line.startswith("# ") or LINE.fullmatch(line) for line in text.splitlines())
    for line in (
        'signalbox_runs_started_total{agent="support-triage"} 4',
        'signalbox_runs_ended_total{agent="support-triage",state="succeeded"} 3',
        'signalbox_runs_budget_exceeded_total{agent="support-triage"} 1',
        'signalbox_run_cost_usd_total{agent="support-triage"} 0.006',
        'signalbox_run_duration_seconds_sum{agent="support-triage"} 61',
        'signalbox_run_duration_seconds_count{agent="support-triage"} 4',
        'signalbox_tool_call_errors_total{tool="search_docs"} 1',
        'signalbox_call_retries_total{class="timeout"} 1',
        "signalbox_runs_live 0",
    ):
        assert f"\n{line}\n" in text, line
    named = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M)
    assert len(named) == len(set(named)) and all(name.endswith("_total") == (kind == "counter") for name, kind in named)


def test_a_key_of_a_tenant_scrapes_its_own_and_no_more(world: World) -> None:
    busy(make_world("globex", "other"))
    rollups.fold_due(48)
    assert "support-triage" not in scraped(world.operator).content.decode()
    assert 'agent="other"' not in scraped(world.operator).content.decode() and 'agent="other"' in scraped().content.decode()


@pytest.mark.parametrize(
    "how",
    [
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": ""},
        {"host": "signalbox.example.com"},
        {"headers": {"X-Forwarded-For": "192.0.2.7"}},
        {"headers": {"Forwarded": "for=192.0.2.7"}},
        {"headers": {"Sec-Fetch-Site": "cross-site"}},
    ],
    ids=str,
)
def test_who_is_not_on_this_machine_needs_a_key(world: World, how: dict[str, Any], settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert refusal(scraped(**how)) == (401, "unauthorized")
    assert scraped(world.operator, **how).status_code == 200


def test_a_key_without_the_scope_or_a_wrong_one_scrapes_nothing(world: World) -> None:
    narrow = {"Authorization": f"Bearer {key_of(world.operator, 'runs:read')}"}
    assert refusal(scraped(headers=narrow)) == (403, "scope_missing")
    assert refusal(scraped(headers={"Authorization": "Bearer sbx_nonsense"})) == (401, "unauthorized")


def test_hostile_names_of_tools_break_no_line_and_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ended(world, 2 * H)
    for ord, name in enumerate(['a"} 1\nup 0', "back\\slash", "x" * 128], 1):
        called(run, ord, name)
    rollups.fold_due(48)
    text = scraped().content.decode()
    assert 'signalbox_tool_calls_total{tool="a\\"} 1\\nup 0"} 1' in text and "\nup 0" not in text
    monkeypatch.setattr(scrape, "bounded", lambda counts, size, most=1: exposition.bounded(counts, size, 1))
    assert 'signalbox_tool_calls_total{tool="(other)"} 2' in scraped().content.decode()


# the page ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.2")
def test_a_page_says_what_is_counted_beside_what_it_comes_to(world: World) -> None:
    busy(world)
    queued(world)
    page = browser(world.operator).get("/metric-definitions/").content.decode()
    assert all(f'id="{metric.key}"' in page and metric.title in page for metric in METRICS)
    assert "75%" in page and "$0.002" in page and "<code>duplicate_request</code>" in page and "`" not in page.split("<main")[1]
    assert re.search(r"as of \d\d:\d\d:\d\d", page)
