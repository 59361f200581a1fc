"""The overview: its figures are those of the runs, in the tenant, in the period; its regions answer alone."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from console import health_figures, metrics
from console.histograms import ERROR
from runs.events import Kind, event
from runs.history import append
from runs.models import Canary, Engine, Run
from tenants.ids import new_id
from tests.runtime.waiting import World, make_late, make_world, person, queued, running, waiting

from .past import browser, called, ended, moved, waits

H = timedelta(hours=1)


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def engine(db: None) -> Engine:
    return Engine.objects.create(id=new_id(), host="h", boot_id="b", pid=1, started=1, lease_until=Now() + timedelta(minutes=1))


def tell(run: Run, *kinds: Kind) -> None:
    append(run, [event(kind, step_id=1) for kind in kinds])


def period(world: World | None = None) -> tuple[metrics.Period, metrics.Period]:
    now = timezone.now()
    return metrics.periods(world.tenant.id if world else None, metrics.last_hours(now), now)


def hours_with_runs(world: World) -> list[metrics.Hour]:
    now = timezone.now()
    return [hour for hour in metrics.hours(world.tenant.id, metrics.last_hours(now), now) if hour.total]


# -- figures ------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P8.2")
def test_the_figures_are_those_of_the_period_and_the_one_before(world: World) -> None:
    for seconds in (10, 20, 30):
        ended(world, 2 * H, seconds=seconds, cost_micro=1000)
    ended(world, 3 * H, "tool_error", seconds=1, cost_micro=3000)
    ended(world, 30 * H, seconds=5, cost_micro=500)
    ended(world, 80 * H, "tool_error")
    now, before = period(world)
    assert (now.runs, now.ended, now.success_rate, now.cost_per_success) == (4, 4, 0.75, 2000)
    assert float(now.p95_s or 0) == pytest.approx(30, rel=ERROR)
    assert (before.runs, before.success_rate, before.cost_per_success) == (1, 1, 500)
    assert float(before.p95_s or 0) == pytest.approx(5, rel=ERROR)


@pytest.mark.mission("P8.2")
def test_runs_that_go_on_count_as_runs_and_as_nothing_else(world: World) -> None:
    queued(world)
    now, before = period(world)
    assert now == metrics.Period(runs=1)
    assert before == metrics.Period()


@pytest.mark.mission("P8.2", "P6.2")
def test_a_run_fell_back_when_it_gave_up_a_model_or_took_a_rung_and_counts_once(world: World) -> None:
    by_model, by_ladder, missed, _ = (ended(world, 2 * H) for _ in range(4))
    tell(by_model, Kind.FALLBACK_ACTIVATED, Kind.RUNG_ENTERED)
    tell(by_ladder, Kind.RUNG_ENTERED)
    tell(missed, Kind.RUNG_MISSED)
    tell(queued(world), Kind.RUNG_ENTERED)
    now, before = period(world)
    assert (now.fallback_rate, before.fallback_rate) == (0.5, None)
    assert "fell back 50%" in figure(browser(world.operator).get("/").content.decode(), "troubles")["words"]


@pytest.mark.mission("P8.2")
def test_tool_errors_and_repeats_are_counted_by_call(world: World) -> None:
    run = ended(world, 2 * H)
    called(run, 0, "primary", attempt=2)
    called(run, 1, "search_docs", latency_ms=100)
    called(run, 2, "search_docs", "failed_not_applied", error_class="timeout", attempt=3, latency_ms=300)
    called(run, 3, "create_ticket", error_class="duplicate_request")
    called(run, 4, "create_ticket", "unknown")
    called(run, 5, "create_ticket", attempt=0)
    now, _ = period(world)
    assert (now.tool_error_rate, now.retry_rate) == (0.5, 0.4)
    assert [(tool.name, tool.calls, tool.errors) for tool in now.tools] == [("create_ticket", 2, 1), ("search_docs", 2, 1)]
    assert now.tools[1].p95_ms == pytest.approx(300, rel=ERROR)


def test_a_figure_without_a_price_says_that_it_is_a_lower_bound(world: World) -> None:
    ended(world, H, cost_micro=1000, unpriced=True)
    now, before = period(world)
    assert now.partial and not before.partial
    assert re.search(r"Cost per success</dt><dd>\$0\.001<small> or more", browser(world.operator).get("/").content.decode())


@pytest.mark.mission("P8.2")
def test_no_figure_knows_another_tenants_runs(world: World) -> None:
    other = make_world("globex", "other")
    called(ended(other, 2 * H, "tool_error"), 1, "search_docs", "failed_not_applied", error_class="timeout")
    waiting(other)
    assert period(world) == (metrics.Period(), metrics.Period())
    assert hours_with_runs(world) == []
    standing = metrics.standing(world.tenant.id)
    assert (standing.live, standing.waiting) == (0, 0)
    assert period()[0].runs == 2 and metrics.standing(None).waiting == 1


@pytest.mark.mission("P8.2")
def test_each_hour_tells_what_became_of_the_runs_that_started_in_it(world: World) -> None:
    for outcome in ("completed", "completed_degraded", "budget_exceeded", "step_limit", "tool_error", "cancelled"):
        ended(world, 2 * H, outcome, seconds=4, cost_micro=100)
    waits(world, 2 * H)
    [hour] = hours_with_runs(world)
    assert hour.at == (timezone.now() - 2 * H).replace(minute=0, second=0, microsecond=0)
    assert (hour.completed, hour.degraded, hour.limited, hour.failed, hour.cancelled, hour.going) == (1, 1, 2, 1, 1, 1)
    assert (hour.total, hour.cost_micro) == (7, 600) and hour.p95_s == pytest.approx(4, rel=ERROR)


def test_there_are_24_hours_and_the_one_that_runs_now_is_the_last(world: World) -> None:
    now = timezone.now()
    hours = metrics.hours(world.tenant.id, metrics.last_hours(now), now)
    assert len(hours) == 24 and hours[-1].at <= now < hours[-1].at + H


@pytest.mark.parametrize(
    ("now", "before", "words", "tone"),
    [
        (0.9421, 0.9612, "1.9 pt lower", "fail"),
        (0.96, 0.94, "2.0 pt higher", "idle"),
        (0.95, 0.955, "0.5 pt lower", "idle"),
        (0.95, 0.9502, "no change", "idle"),
        (0.95, None, "no earlier runs", "idle"),
        (None, 0.9, "nothing to count yet", "idle"),
    ],
)
def test_a_share_says_its_change_in_points(now: float | None, before: float | None, words: str, tone: str) -> None:
    shown = health_figures.share("Success rate", now, before, higher_is="better")
    assert (shown.change, shown.tone) == (words, tone)


@pytest.mark.parametrize(("now", "before", "words"), [(138, 100, "38% slower"), (50, 100, "50% faster"), (1200, 100, "12 times slower")])
def test_a_duration_says_its_change_in_percent(now: float, before: float, words: str) -> None:
    assert health_figures.duration_figure(now * 1000, before * 1000).change == words


# -- what is wrong ------------------------------------------------------------------------------------------------------------


def test_without_an_engine_the_page_says_so(world: World) -> None:
    page = browser(world.operator).get("/").content.decode()
    assert "No engine is running." in page and 'href="/runs/?state=queued"' in page


def test_a_banner_that_comes_or_goes_later_moves_nothing(world: World) -> None:
    client = browser(world.operator)
    assert "part=health&amp;degraded=1" in client.get("/").content.decode()
    later = client.get("/?part=health").content.decode()
    assert 'class="state late"' in later and "degraded=1" not in later
    Engine.objects.create(id=new_id(), host="h", boot_id="b", pid=1, started=1, lease_until=Now() + timedelta(minutes=1))
    Canary.objects.create(name="jobs", at=timezone.now())
    assert "Back to normal." in client.get("/?part=health&degraded=1").content.decode()
    assert 'class="state' not in client.get("/?part=health").content.decode()


def test_a_healthy_installation_has_no_banner(world: World, engine: Engine) -> None:
    Canary.objects.create(name="jobs", at=timezone.now())
    assert browser(world.operator).get("/").context["trouble"] is None


@pytest.mark.parametrize(("late", "shown"), [(timedelta(seconds=140), False), (timedelta(minutes=7), True)])
def test_silent_background_jobs_are_told_when_they_are_overdue(world: World, engine: Engine, late: timedelta, shown: bool) -> None:
    Canary.objects.create(name="jobs", at=timezone.now() - late)
    page = browser(world.operator).get("/").content.decode()
    assert ("Background jobs do not answer." in page) is shown


def test_runs_that_no_engine_takes_are_told(world: World, engine: Engine) -> None:
    run = queued(world)
    Run.objects.filter(pk=run.pk).update(available_at=timezone.now() - timedelta(minutes=2))
    assert "1 run is due for more than a minute" in browser(world.operator).get("/").content.decode()


# -- the page -----------------------------------------------------------------------------------------------------------------


def busy(world: World) -> None:
    run = ended(world, 2 * H, cost_micro=1500)
    called(run, 0, "primary")
    called(run, 1, "search_docs", "failed_not_applied", error_class="timeout")
    for _ in range(7):
        waiting(world)
    for _ in range(3):
        queued(world)


def test_the_page_costs_the_same_few_queries_however_much_there_is(world: World, django_assert_max_num_queries: Any) -> None:
    client = browser(world.operator)
    with django_assert_max_num_queries(21):  # one more for the command that starts a first run
        client.get("/")
    busy(world)
    with django_assert_max_num_queries(20):
        answer = client.get("/")
    assert len(answer.context["waiting"]) == len(answer.context["live"]) == 5


@pytest.mark.parametrize(("part", "most"), [("health", 11), ("series", 10), ("charts", 10), ("waiting", 4), ("incidents", 4), ("live", 4)])
def test_a_region_answers_alone_with_the_same_id(world: World, part: str, most: int, django_assert_max_num_queries: Any) -> None:
    busy(world)
    client = browser(world.operator)
    with django_assert_max_num_queries(most):
        page = client.get("/", {"part": part}).content.decode()
    page = re.sub(r"{#.*?#}", "", page).strip()
    assert re.match(rf'<(div|section|dl)[^>]* id="{part}"', page) and "<html" not in page and page.count(f'id="{part}"') == 1


def test_an_unknown_region_is_not_there(world: World) -> None:
    assert browser(world.operator).get("/?part=secrets").status_code == 404


def test_what_expires_first_stands_first_and_what_is_over_is_gone(world: World) -> None:
    _, later = waiting(world, expires_s=3600)
    _, sooner = waiting(world, expires_s=300)
    make_late(waiting(world)[1])
    answer = browser(world.operator).get("/")
    assert [one["approval"].pk for one in answer.context["waiting"]] == [sooner.pk, later.pk]
    assert "1 expires in 10 min" in answer.content.decode()


def test_what_people_and_models_wrote_is_shown_as_text(world: World) -> None:
    run = queued(world)
    run.asked.text = "<script>alert(1)</script> \u202egnp"
    run.asked.save()
    page = browser(world.operator).get("/").content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;" in page and "U+202E" in page


def test_an_empty_installation_says_what_to_do_next(world: World) -> None:
    page = browser(world.operator).get("/").content.decode()
    assert "curl -X POST" in page and "support-triage" in page and 'href="/runs/new/"' in page
    viewer = browser(person(world.tenant, "vera", "viewer")).get("/").content.decode()
    assert "curl" not in viewer.split("<main")[1] and "/runs/new/" not in viewer.split("<main")[1]
    world.agent.live = None
    world.agent.save()
    client = browser(world.operator)
    assert "Set up your first agent" in client.get("/").content.decode()
    assert client.post("/welcome/")["Location"] == "/"
    assert "No agent has a live release yet" in client.get("/").content.decode()


def test_a_live_run_of_another_tenant_is_not_listed(world: World) -> None:
    other = make_world("globex", "other")
    mine, theirs = running(world), running(other)
    page = browser(world.operator).get("/?part=live").content.decode()
    assert mine.run_id in page and theirs.run_id not in page
    everything = browser(person(world.tenant, "root", "admin", platform=True)).get("/?part=live").content.decode()
    assert mine.run_id in everything and theirs.run_id in everything


# -- figures of the charts ----------------------------------------------------------------------------------------------------


def figure(page: str, key: str) -> dict[str, Any]:
    found = re.search(rf'<script id="{key}-figure" type="application/json">(.*?)</script>', page)
    assert found
    return dict(json.loads(found[1]))


def test_a_bar_leads_to_the_runs_that_it_is_made_of(world: World) -> None:
    run = moved(ended(world, 2 * H), timezone.now() - 2 * H)
    made = figure(browser(world.operator).get("/").content.decode(), "outcomes")
    bar = made["data"][0]["y"].index(1)
    at = f"{run.created_at:%Y-%m-%dT%H}:00:00Z"
    assert made["links"][bar].startswith(f"/runs/?since={at}&until=")
    assert len(made["links"]) == len(made["data"][0]["x"]) == 24


def test_every_series_of_a_stack_but_the_first_has_a_pattern_of_its_own(world: World) -> None:
    for outcome in ("completed", "completed_degraded", "budget_exceeded", "tool_error", "cancelled"):
        ended(world, 2 * H, outcome)
    waits(world, 2 * H)
    made = figure(browser(world.operator).get("/").content.decode(), "outcomes")
    patterns = [series["marker"]["pattern"].get("shape", "") for series in made["data"]]
    assert patterns[0] == "" and len(set(patterns)) == len(patterns) == 6


def test_a_chart_without_data_says_why(world: World) -> None:
    queued(world)
    page = browser(world.operator).get("/").content.decode()
    said = {key: figure(page, key)["layout"]["annotations"][0]["text"] for key in ("tool-errors", "success", "durations", "costs", "steps")}
    assert said == {
        "tool-errors": "No tool was called",
        "success": "No run has ended yet",
        "durations": "No run has ended yet",
        "costs": "No run has succeeded yet",
        "steps": "No run has ended yet",
    }


def test_the_words_of_a_chart_say_what_it_shows(world: World) -> None:
    ended(world, 2 * H)
    ended(world, 3 * H, "tool_error")
    page = browser(world.operator).get("/").content.decode()
    assert "by outcome: 1 completed, 1 failed, most of them, 1, from {" in figure(page, "outcomes")["words"]
    assert re.search(r'aria-label="Runs by outcome: 1 completed, 1 failed, most of them, 1, from \d\d:00."', page)
    assert "Success rate rose from 0% to 100% between {" in figure(page, "success")["words"]
