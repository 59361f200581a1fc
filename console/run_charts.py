"""The charts of runs: what became of them, how long, how dear, how far. Stretches of figures in, charts out. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runs.states import TERMINAL, Outcome, RunState

from . import charts
from .chart_words import Point, counted, course, parts, peak, percent
from .charts import Chart, Marker, bars, line, over
from .figures import Figures
from .histograms import Histogram, ordered, upper
from .metrics import Stretch
from .rollups import LIMITED
from .templatetags.signalbox import duration, micros
from .windows import Window

OPEN = ",".join(state.value for state in RunState if state not in TERMINAL)
RETRY_LOOKS = (("--c2", ""), ("--c5", "/"), ("--c4", "x"), ("--c6", "."), ("--c1", "\\"))
OTHERS = "Others"
NO_RUN = "no run has ended"
NOT_ENDED = "No run has ended yet"
GOOD = (Outcome.COMPLETED, Outcome.COMPLETED_DEGRADED)
FAULTS = tuple(name for name in Outcome if name not in (*GOOD, *LIMITED, Outcome.CANCELLED))  # what a run fails with


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the charts of a page are made from. `query`: the filters of the page, which its links keep."""

    window: Window
    stretches: Sequence[Stretch]
    whole: Figures
    runs_url: str = "/runs/"
    query: Mapping[str, str] = field(default_factory=dict)
    markers: Sequence[Marker] = ()

    def points(self, value: Callable[[Figures], float | None]) -> list[Point]:
        return [(one.at, value(one.figures)) for one in self.stretches]

    def links(self, **more: str) -> list[str]:
        return charts.linked(self.window, self.runs_url, {**self.query, **more})

    def lines(self, data: Sequence[charts.Figure], empty: str, **layout: Any) -> charts.Figure:
        """Lines over time; `empty` where none of them has a point."""
        known = any(y is not None for trace in data for y in trace["y"])
        return over(self.window, data, **layout) if known else charts.nothing(empty)

    def chart(self, key: str, title: str, figure: charts.Figure, words: str, value: str, unit: str, legend: bool = False) -> Chart:
        """One over time: its places lead to their runs, and it shows what changed. An empty one has neither."""
        if not figure["data"][0]["x"]:
            return Chart(key, title, figure, words, value, unit, legend)
        full = charts.marked({"links": self.links(), **figure}, self.markers)
        return Chart(key, title, full, words, value, unit, legend, self.window.writes)

    @property
    def ended(self) -> str:
        return counted(self.whole.ended, "run ended", "runs ended")


@dataclass(frozen=True, slots=True)
class Fate:
    """One way that runs end, or do not. `filters` find them in the list of runs."""

    name: str
    count: Callable[[Figures], int]
    colour: str
    pattern: str
    filters: Mapping[str, str]


def outcome(made: Figures, *names: Outcome) -> int:
    return sum(made.outcomes.get(name.value, 0) for name in names)


FATES = (
    Fate("Completed", lambda made: outcome(made, Outcome.COMPLETED), "--c3", "", {"outcome": "completed"}),
    Fate("Degraded", lambda made: outcome(made, Outcome.COMPLETED_DEGRADED), "--c2", ".", {"outcome": "completed_degraded"}),
    Fate("Stopped at a limit", lambda made: outcome(made, *LIMITED), "--c4", "x", {"outcome": ",".join(LIMITED)}),
    Fate("Failed", lambda made: made.states.get("failed", 0) - outcome(made, *LIMITED), "--c5", "/", {"outcome": ",".join(FAULTS)}),
    Fate("Cancelled", lambda made: made.states.get("cancelled", 0), "--c6", "-", {"state": "cancelled"}),
    Fate("Still going", lambda made: made.runs - made.ended, "--c1", "\\", {"state": OPEN}),
)


def outcomes(drawn: Drawn) -> Chart:
    """A bar for each stretch; a piece of it leads to its own runs."""
    shown = [fate for fate in FATES if fate is FATES[0] or fate.count(drawn.whole)]
    data = []
    for fate in shown:
        counts = [fate.count(one.figures) for one in drawn.stretches]
        data.append(bars(drawn.window, counts, fate.name, fate.colour, fate.pattern) | {"links": drawn.links(**fate.filters)})
    most = max((one.figures.runs for one in drawn.stretches), default=0)
    figure = over(drawn.window, data, barmode="stack", **charts.whole(most)) if most else charts.nothing("No run started in this time")
    said = parts([(fate.name, fate.count(drawn.whole)) for fate in shown])
    words = peak("Runs by outcome", drawn.points(lambda made: made.runs), lambda n: f"{n:,.0f}", said)
    return drawn.chart("outcomes", "Runs by outcome", figure, words, f"{drawn.whole.runs:,}", drawn.window.key, legend=True)


def success(drawn: Drawn) -> Chart:
    points = drawn.points(lambda made: made.success_rate)
    words = course("Success rate", points, percent, 0.02, drawn.ended, NO_RUN)
    rate = drawn.whole.success_rate
    data = [line(drawn.window, in_percent(points), "Success rate", "--c3")]
    figure = drawn.lines(data, NOT_ENDED, yaxis={"ticksuffix": "%", "range": [0, 104]})
    return drawn.chart("success", "Success rate", figure, words, percent(rate) if rate is not None else "–", "of runs that ended")


def durations(drawn: Drawn) -> Chart:
    slow, middle = drawn.points(lambda made: charts.seconds(made.p95_ms)), drawn.points(lambda made: charts.seconds(made.p50_ms))
    known = [value for _, value in slow if value is not None]
    words = course("95th percentile of the duration", slow, duration, 0.2 * max(known, default=0), drawn.ended, NO_RUN)
    data = [
        line(drawn.window, [y for _, y in slow], "p95", "--c2"),
        line(drawn.window, [y for _, y in middle], "median", "--c1", "dot"),
    ]
    figure = drawn.lines(data, NOT_ENDED, yaxis={"ticksuffix": "s"})
    return drawn.chart("durations", "Duration", figure, words, duration(charts.seconds(drawn.whole.p95_ms)), "p95", legend=True)


def costs(drawn: Drawn) -> Chart:
    """All that the runs which ended cost, for each that succeeded."""
    points = drawn.points(lambda made: made.cost_per_success)
    known = [value for _, value in points if value is not None]
    words = course("Cost per successful run", points, micros, 0.1 * max(known, default=0), drawn.ended, "no run has succeeded")
    data = [line(drawn.window, [None if y is None else round(y / 1e6, 6) for _, y in points], "Cost per success", "--c1")]
    figure = drawn.lines(data, "No run has succeeded yet", yaxis={"tickprefix": "$"}, margin=charts.WIDE)
    paid = drawn.whole.cost_per_success
    unit = "or more" if drawn.whole.partial else "each"
    return drawn.chart("costs", "Cost per successful run", figure, words, "–" if paid is None else micros(paid), unit)


def steps(drawn: Drawn) -> Chart:
    """How many runs took so many steps. Buckets above 7 hold several numbers."""
    rows = step_bars(drawn.whole.steps)
    title = "Steps per run"
    if not rows:
        return Chart("steps", title, charts.nothing(NOT_ENDED), f"{title}: {NO_RUN}.", "–", "median")
    middle, most = drawn.whole.steps_p50 or 0, max(rows, key=lambda row: row[1])
    bar = {"type": "bar", "name": "Runs", "x": [name for name, _ in rows], "y": [many for _, many in rows], "marker": {"color": "--c1"}}
    layout = {"xaxis": {"type": "category", "nticks": 12}, **charts.whole(most[1])}
    words = f"Steps per run: half of {drawn.ended} after {middle:.0f} steps or fewer; most often {most[0]}, {counted(most[1], 'run')}."
    figure = {"data": [bar], "layout": layout}
    return Chart("steps", title, figure, words, f"{middle:.0f}", "median", False, drawn.window.writes)


def step_bars(histogram: Histogram) -> list[tuple[str, int]]:
    """("4", runs), ("9-10", runs). Buckets that hold no whole number of their own never have a count."""
    found: dict[str, int] = {}
    for bucket, many in ordered(histogram):
        least = 0 if bucket == 0 else -int(-upper(bucket - 1) // 1)
        most = 0 if bucket == 0 else max(least, -int(-upper(bucket) // 1) - 1)
        name = str(least) if least == most else f"{least}-{most}"
        found[name] = found.get(name, 0) + many
    return list(found.items())


def retries(drawn: Drawn) -> Chart:
    """Retries by the class of the failure, in percent of the calls; the four commonest classes and the others."""
    title, known = "Retries by failure class", sorted(drawn.whole.retry_classes.items(), key=lambda pair: (-pair[1], pair[0]))
    named = [name for name, _ in known[: len(RETRY_LOOKS) - 1]]
    groups = [(name.replace("_", " ").capitalize(), [name]) for name in named]
    if rest := [name for name, _ in known[len(named) :]]:
        groups.append((OTHERS, rest))
    data = [
        bars(drawn.window, [share(one.figures, names) for one in drawn.stretches], title_, colour, pattern)
        for (title_, names), (colour, pattern) in zip(groups, RETRY_LOOKS, strict=False)
    ]
    figure = over(drawn.window, data, barmode="stack", yaxis={"ticksuffix": "%"}) if data else charts.nothing("No call was sent again")
    rate, said = drawn.whole.retry_rate, parts([(name, sum(drawn.whole.retry_classes[one] for one in names)) for name, names in groups])
    words = peak("Retries", drawn.points(lambda made: sum(made.retry_classes.values())), lambda n: f"{n:,.0f}", said)
    value = percent(rate) if rate is not None else "–"
    return drawn.chart("retries", title, figure, words, value, "of calls sent again", legend=True)


def share(made: Figures, names: Sequence[str]) -> float:
    """In percent of the calls."""
    return round(sum(made.retries_of(name) or 0.0 for name in names) * 100, 2)


TROUBLES: tuple[tuple[str, Callable[[Figures], float | None], str, str], ...] = (
    ("Budget exceeded", lambda made: made.budget_exceeded_rate, "--c2", "solid"),
    ("Fell back", lambda made: made.fallback_rate, "--c4", "dash"),
    ("Policy violated", lambda made: made.policy_violation_rate, "--c5", "dot"),
)


def troubles(drawn: Drawn) -> Chart:
    """Shares of the runs that ended: stopped by a limit, took a fallback, asked for what policy denies."""
    series = [(name, drawn.points(value), colour, dash) for name, value, colour, dash in TROUBLES]
    data = [line(drawn.window, in_percent(points), name, colour, dash) for name, points, colour, dash in series]
    said = [f"{name.lower()} {percent(rate)}" for name, value, _, _ in TROUBLES if (rate := value(drawn.whole)) is not None]
    words = f"Limits, fallbacks and policy: {', '.join(said)} of {drawn.ended}." if said else f"Limits, fallbacks and policy: {NO_RUN}."
    worst = max((rate for _, value, _, _ in TROUBLES if (rate := value(drawn.whole)) is not None), default=None)
    value = "–" if worst is None else percent(worst)
    figure = drawn.lines(data, NOT_ENDED, yaxis={"ticksuffix": "%"})
    return drawn.chart("troubles", "Limits, fallbacks, policy", figure, words, value, "at most", legend=True)


def in_percent(points: Sequence[Point]) -> list[float | None]:
    return [None if y is None else round(y * 100, 2) for _, y in points]
