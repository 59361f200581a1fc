"""What charts say in words, the stretches they show, and what comparisons say. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from console import comparisons, histograms, run_charts, tool_charts, windows
from console.chart_words import course, largest, peak, percent, written
from console.charts import Chart, Marker
from console.figures import Figures
from console.metrics import Stretch, ToolHealth
from console.run_charts import Drawn
from console.run_comparison import Line, Move, lines

NOW = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
AT = [datetime(2026, 3, 4, hour, tzinfo=UTC) for hour in (10, 11, 12)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.99, 0.94, None), "Success rate fell from 99% to 94% between 10:00 and 11:00; 1,204 runs."),
        ((0.5, None, 0.9), "Success rate rose from 50% to 90% between 10:00 and 12:00; 1,204 runs."),
        ((0.97, 0.98, 0.975), "Success rate stayed between 97% and 98%; 1,204 runs."),
        ((1, 1, 1), "Success rate was 100% throughout; 1,204 runs."),
        ((None, 0.5, None), "Success rate was 50%; 1,204 runs."),
        ((None, None, None), "Success rate: no run has ended."),
    ],
)
@pytest.mark.mission("P8.2")
def test_a_chart_says_where_its_line_moved_most(values: tuple[float | None, ...], words: str) -> None:
    said = course("Success rate", list(zip(AT, values, strict=True)), percent, 0.02, "1,204 runs", "no run has ended")
    assert written(said, "time") == words


def test_of_equal_moves_the_latest_is_told() -> None:
    moved = largest([(AT[0], 1), (AT[1], 2), (AT[2], 1)])
    assert moved and (moved.since, moved.until) == (AT[1], AT[2])


@pytest.mark.parametrize(("writes", "words"), [("time", "10:00"), ("moment", "4 Mar 10:00"), ("day", "4 Mar")])
def test_a_moment_is_written_as_finely_as_the_bars_are(writes: str, words: str) -> None:
    assert written("{2026-03-04T10:00:00Z}", writes) == words


def test_a_peak_of_nothing_is_none() -> None:
    assert peak("Calls", [(AT[0], 0), (AT[1], None)], str, "") == "Calls: none."


# -- stretches ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "since", "count", "writes"),
    [
        ("24h", datetime(2026, 3, 3, 16, tzinfo=UTC), 24, "time"),
        ("7d", datetime(2026, 2, 25, 18, tzinfo=UTC), 28, "moment"),
        ("30d", datetime(2026, 2, 3, tzinfo=UTC), 30, "day"),
        ("a year", datetime(2026, 3, 3, 16, tzinfo=UTC), 24, "time"),
    ],
)
def test_a_window_ends_with_the_bar_that_runs_now(key: str, since: datetime, count: int, writes: str) -> None:
    window = windows.window(key, NOW)
    assert (window.since, window.count, window.writes) == (since, count, writes)
    assert window.times[-1] <= NOW < window.times[-1] + window.every
    assert window.before.times[-1] + window.every == window.since


@pytest.mark.parametrize(("hours", "count"), [(1, 1), (48, 48), (49, 9), (24 * 92, 14)])
def test_any_stretch_has_few_bars_and_reaches_its_end(hours: int, count: int) -> None:
    since = NOW - timedelta(hours=hours)
    window = windows.stretch(since.replace(minute=0), NOW.replace(minute=0), NOW)
    assert window.count == count
    assert window.since + window.whole >= NOW.replace(minute=0)


# -- charts -------------------------------------------------------------------------------------------------------------------


def drawn(*made: Figures, markers: Sequence[Marker] = ()) -> Drawn:
    window = windows.stretch(AT[0], AT[0] + timedelta(hours=len(made)), NOW)
    whole = Figures(
        runs=sum(one.runs for one in made),
        ended=sum(one.ended for one in made),
        states=histograms.merge(*(one.states for one in made)),
        outcomes=histograms.merge(*(one.outcomes for one in made)),
        steps=histograms.merge(*(one.steps for one in made)),
    )
    stretches = [Stretch(at, one) for at, one in zip(window.times, made, strict=True)]
    return Drawn(window, stretches, whole, "/runs/", {"agent": "triage", "tenant": "acme"}, markers)


def ended(**outcomes: int) -> Figures:
    many = sum(outcomes.values())
    good = outcomes.get("completed", 0)
    return Figures(runs=many + 1, ended=many, states={"succeeded": good, "failed": many - good}, outcomes=dict(outcomes))


@pytest.mark.mission("P8.2")
def test_a_piece_of_a_bar_leads_to_its_own_runs_with_the_filters_of_the_page() -> None:
    chart = run_charts.outcomes(drawn(ended(completed=2, budget_exceeded=1), ended(tool_error=3)))
    own = {trace["name"]: trace["links"][1] for trace in chart.figure["data"]}
    kept = "/runs/?agent=triage&tenant=acme"
    hour = "since=2026-03-04T11:00:00Z&until=2026-03-04T12:00:00Z"
    assert own["Completed"] == f"{kept}&outcome=completed&{hour}"
    assert own["Stopped at a limit"] == f"{kept}&outcome=budget_exceeded,step_limit,deadline_exceeded&{hour}"
    assert "tool_error" in own["Failed"] and "budget_exceeded" not in own["Failed"]
    assert chart.figure["links"][1] == f"{kept}&{hour}"


def test_every_chart_over_time_shows_what_changed() -> None:
    chart = run_charts.success(drawn(ended(completed=1), markers=((AT[0], "triage r2 went live", "/agents/triage/"),)))
    assert chart.figure["markers"] == [{"at": "2026-03-04T10:00:00Z", "label": "triage r2 went live", "url": "/agents/triage/"}]


def test_an_empty_chart_leads_nowhere_and_says_why() -> None:
    for chart in (run_charts.success(drawn(Figures())), run_charts.retries(drawn(Figures())), tool_charts.latency(drawn(Figures()))):
        assert chart.figure["layout"]["annotations"] and "links" not in chart.figure and chart.value == "–"


def test_steps_are_counted_by_whole_numbers() -> None:
    assert run_charts.step_bars(histograms.of([0, 1, 1, 4, 10, 11, 12])) == [("0", 1), ("1", 2), ("4", 1), ("10", 1), ("11-12", 2)]


def test_no_two_buckets_of_steps_overlap() -> None:
    names = [name for name, _ in run_charts.step_bars({str(histograms.bucket(n)): 1 for n in range(200)})]
    ends = [[int(part) for part in name.split("-")] for name in names]
    assert ends[0][0] == 0
    assert all(before[-1] + 1 == after[0] for before, after in pairwise(ends))


def test_the_worst_tool_stands_on_top_and_leads_to_its_runs() -> None:
    chart = tool_charts.errors_by_tool(drawn(Figures()), [ToolHealth("good", 10, 0, 1.0), ToolHealth("bad", 10, 3, 1.0)], "/runs/")
    bar = chart.figure["data"][0]
    assert (bar["y"], bar["x"]) == (["good", "bad"], [0, 30])
    assert "tool=bad" in chart.figure["links"][-1]
    assert chart.words == "Tool error rate: the highest is 30% of bad, 3 of 10 calls."


def test_what_the_script_is_told_holds_the_words_and_the_value() -> None:
    chart = Chart("k", "Title", {"data": []}, "At {2026-03-04T10:00:00Z}.", "7", "median")
    assert chart.spec == {"data": [], "words": "At {2026-03-04T10:00:00Z}.", "value": "7", "unit": "median", "writes": "time"}
    assert chart.spoken == "At 10:00."


# -- comparisons --------------------------------------------------------------------------------------------------------------


def test_two_stretches_are_compared_figure_by_figure() -> None:
    a = Figures(runs=50, ended=40, states={"succeeded": 40}, duration_ms=histograms.of([1000.0] * 40), cost_micro=40)
    b = Figures(runs=60, ended=10, states={"succeeded": 9}, duration_ms=histograms.of([2000.0] * 10), cost_micro=18)
    rows = {row.name: row for row in comparisons.compared(a, b)}
    assert rows["Runs"].change == "10 more"
    rate = rows["Success rate"]
    assert (rate.a, rate.b, rate.change, rate.tone, rate.few) == ("100%", "90%", "10.0 pt lower", "fail", True)
    assert rows["p95 duration"].change.endswith("slower")
    assert rows["Cost per success"].change == "100% more"
    assert rows["Tool errors"].change == "nothing to compare"


def test_a_figure_of_many_runs_is_not_called_chance() -> None:
    many = Figures(runs=40, ended=40, states={"succeeded": 40})
    assert not any(row.few for row in comparisons.compared(many, many))


def turn(step: int, model: str = "primary") -> Move:
    return Move(step, 0, "planner", model, "done")


def call(step: int, name: str, args: str, state: str = "done", error: str = "") -> Move:
    return Move(step, 1, "planner", name, state, args, error)


def kinds(found: list[Line]) -> list[tuple[str, tuple[str, ...]]]:
    return [(line.what, line.differs) for line in found]


def test_two_runs_stand_side_by_side_step_by_step() -> None:
    left = [turn(1), call(1, "search", "x"), turn(2), call(2, "search", "y"), turn(3)]
    right = [turn(1, "backup"), call(1, "search", "x"), turn(2), call(2, "search", "z", "unknown"), turn(3), call(3, "mail", "m"), turn(4)]
    assert kinds(lines(left, right)) == [
        ("changed", ("other model",)),
        ("same", ()),
        ("same", ()),
        ("changed", ("other arguments", "done became unknown")),
        ("right", ()),
        ("right", ()),
        ("same", ()),
    ]


def test_a_call_that_failed_on_one_side_is_not_the_same() -> None:
    [line] = lines([call(1, "search", "x")], [call(1, "search", "x", "failed_not_applied", "timeout")])
    assert (line.what, line.differs, line.args_differ) == ("changed", ("done became timeout",), False)
