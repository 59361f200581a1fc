"""A model's hours -> charts, in the manner of `console.run_charts`. Pure."""

from collections.abc import Sequence

from . import charts
from .chart_words import Point, counted, course, parts, peak
from .charts import Chart, Marker, bars, line, over
from .model_metrics import Stretch
from .templatetags.signalbox import duration
from .windows import Window

SPARK_WIDTH, SPARK_HEIGHT = 84, 20


def latencies(window: Window, hours: Sequence[Stretch], markers: Sequence[Marker]) -> Chart:
    """Median and 95th percentile in seconds of the calls of the runs of each hour."""
    slow: list[Point] = [(hour.at, charts.seconds(hour.p95_ms)) for hour in hours]
    known = [value for _, value in slow if value is not None]
    calls = counted(sum(hour.calls for hour in hours), "call")
    words = course("95th percentile of the latency", slow, duration, 0.2 * max(known, default=0), calls, "no call was answered")
    if not known:
        return Chart("latency", "Latency", charts.nothing("No call was answered"), words, "–", "p95", legend=True)
    data = [
        line(window, [y for _, y in slow], "p95", "--c2"),
        line(window, [charts.seconds(hour.p50_ms) for hour in hours], "median", "--c1", "dot"),
    ]
    figure = charts.marked(over(window, data, yaxis={"ticksuffix": "s"}), markers)
    return Chart("latency", "Latency", figure, words, duration(known[-1]), "p95, lately", legend=True)


def outcomes(window: Window, hours: Sequence[Stretch], markers: Sequence[Marker]) -> Chart:
    """Calls that were answered and calls that failed for good, a bar for each hour."""
    failed, sent = sum(hour.errors for hour in hours), sum(hour.calls for hour in hours)
    if not sent:
        return Chart("calls", "Calls", charts.nothing("It was not called"), "Calls: none.", "0", "24h", legend=True)
    said = parts([("answered", sent - failed), ("failed", failed)])
    words = peak("Calls", [(hour.at, hour.calls) for hour in hours], lambda n: f"{n:,.0f}", said)
    data = [
        bars(window, [hour.calls - hour.errors for hour in hours], "Answered", "--c3"),
        bars(window, [hour.errors for hour in hours], "Failed", "--c5", "/"),
    ]
    figure = over(window, data, barmode="stack", **charts.whole(max(hour.calls for hour in hours)))
    return Chart("calls", "Calls", charts.marked(figure, markers), words, f"{sent:,}", "24h", legend=True)


def spark(hours: Sequence[Stretch]) -> str:
    """Calls by hour as the path of a small line; empty without calls."""
    most = max((hour.calls for hour in hours), default=0)
    if not most:
        return ""
    step, high = SPARK_WIDTH / (len(hours) - 1), SPARK_HEIGHT - 2
    points = [f"{n * step:.1f},{SPARK_HEIGHT - 1 - high * hour.calls / most:.1f}" for n, hour in enumerate(hours)]
    return "M" + " L".join(points)
