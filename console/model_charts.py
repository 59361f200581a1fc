"""A model's hours -> figures for static/js/charts.js, in the manner of `console.charts`. Pure."""

from collections.abc import Sequence

from .charts import HOURLY, Figure, bars, line, nothing
from .model_metrics import Stretch

SPARK_WIDTH, SPARK_HEIGHT = 84, 20


def latencies(hours: Sequence[Stretch]) -> Figure:
    """Median and 95th percentile in seconds of the calls of the runs of each hour."""
    if all(hour.p95_ms is None for hour in hours):
        return nothing("No call was answered")
    return {
        "data": [
            line(labels(hours), [seconds(hour.p95_ms) for hour in hours], "p95", "--c2", "solid"),
            line(labels(hours), [seconds(hour.p50_ms) for hour in hours], "median", "--c1", "dot"),
        ],
        "layout": {"xaxis": ticks(hours), "yaxis": {"ticksuffix": "s"}},
    }


def outcomes(hours: Sequence[Stretch]) -> Figure:
    """Calls that were answered and calls that failed for good, a bar for each hour."""
    if not any(hour.calls for hour in hours):
        return nothing("It was not called")
    answered = bars(labels(hours), [hour.calls - hour.errors for hour in hours], "Answered", "--c3", "")
    failed = bars(labels(hours), [hour.errors for hour in hours], "Failed", "--c5", "/")
    few = max(hour.calls for hour in hours) < 4
    return {"data": [answered, failed], "layout": {"barmode": "stack", "xaxis": ticks(hours)} | ({"yaxis": {"dtick": 1}} if few else {})}


def spark(hours: Sequence[Stretch]) -> str:
    """Calls by hour as the path of a small line; empty without calls."""
    most = max((hour.calls for hour in hours), default=0)
    if not most:
        return ""
    step, high = SPARK_WIDTH / (len(hours) - 1), SPARK_HEIGHT - 2
    points = [f"{n * step:.1f},{SPARK_HEIGHT - 1 - high * hour.calls / most:.1f}" for n, hour in enumerate(hours)]
    return "M" + " L".join(points)


def labels(hours: Sequence[Stretch]) -> list[str]:
    return [f"{hour.at:%H:%M}" for hour in hours]


def ticks(hours: Sequence[Stretch]) -> Figure:
    return HOURLY | {"tickvals": [f"{hour.at:%H:%M}" for hour in hours if hour.at.hour % 6 == 0]}


def seconds(value: float | None) -> float | None:
    return None if value is None else round(float(value) / 1000, 3)
