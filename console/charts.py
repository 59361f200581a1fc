"""Series -> figures for static/js/charts.js: `{data, layout, links?}`, Plotly's own, with colours as token names. Pure.

Colour is never the only sign: every series of a stack but the first has a pattern of its own, every line its own dash.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from .metrics import Hour, ToolHealth
from .spending import Day

Figure = dict[str, Any]
PARTS: tuple[tuple[str, str, Callable[[Hour], int], str, str], ...] = (  # key, name, count, colour, pattern
    ("completed", "Completed", lambda hour: hour.completed, "--c3", ""),
    ("degraded", "Degraded", lambda hour: hour.degraded, "--c2", "."),
    ("limited", "Stopped at a limit", lambda hour: hour.limited, "--c4", "x"),
    ("failed", "Failed", lambda hour: hour.failed, "--c5", "/"),
    ("cancelled", "Cancelled", lambda hour: hour.cancelled, "--c6", "-"),
    ("going", "Still going", lambda hour: hour.going, "--c1", "\\"),
)
HOURLY = {"type": "category", "tickmode": "array"}
LONG_NAME = 18


def outcomes(hours: Sequence[Hour], runs_url: str) -> Figure:
    """Runs by outcome, a bar for each hour. A click opens the runs that started in that hour."""
    data = [
        bars(labels(hours), [count(hour) for hour in hours], name, colour, pattern)
        for key, name, count, colour, pattern in PARTS
        if key == "completed" or any(count(hour) for hour in hours)
    ]
    most = max((hour.total for hour in hours), default=0)
    layout: Figure = {"barmode": "stack", "xaxis": ticks(hours)} | ({"yaxis": {"dtick": 1}} if most < 4 else {})
    return {"data": data, "layout": layout, "links": [link(hour, runs_url) for hour in hours]}


def durations(hours: Sequence[Hour]) -> Figure:
    """Median and 95th percentile in seconds of the runs of each hour that ended."""
    if all(hour.p95_s is None for hour in hours):
        return nothing("No run has ended yet")
    return {
        "data": [
            line(labels(hours), [seconds(hour.p95_s) for hour in hours], "p95", "--c2", "solid"),
            line(labels(hours), [seconds(hour.p50_s) for hour in hours], "median", "--c1", "dot"),
        ],
        "layout": {"xaxis": ticks(hours), "yaxis": {"ticksuffix": "s"}},
    }


def costs(hours: Sequence[Hour]) -> Figure:
    """USD for each run that succeeded: all that the runs of the hour cost, divided by the successes."""
    if not any(hour.succeeded for hour in hours):
        return nothing("No run has succeeded yet")
    paid = [round(hour.cost_micro / hour.succeeded / 1e6, 6) if hour.succeeded else None for hour in hours]
    return {
        "data": [line(labels(hours), paid, "Cost per success", "--c1", "solid")],
        "layout": {"xaxis": ticks(hours), "yaxis": {"tickprefix": "$"}, "margin": {"l": 56, "r": 14, "t": 10, "b": 26}},
    }


def spend(days: Sequence[Day], ceiling_micro: int | None) -> Figure:
    """USD by day (UTC), with the ceiling of a day where there is one."""
    x = [f"{day.at:%b} {day.at.day}" for day in days]
    paid = [round(day.cost_micro / 1e6, 6) for day in days]
    data = [bars(x, paid, "Cost", "--c1", "")]
    if ceiling_micro is not None:
        data.append(line(x, [ceiling_micro / 1e6] * len(x), "Ceiling of a day", "--c5", "dash") | {"mode": "lines"})
    margin = {"l": 56, "r": 14, "t": 10, "b": 26}
    return {"data": data, "layout": {"xaxis": {"type": "category", "nticks": 7}, "yaxis": {"tickprefix": "$"}, "margin": margin}}


def tool_errors(tools: Sequence[ToolHealth], worst: int = 6) -> Figure:
    """Error rate of the `worst` tools in percent, the highest on top."""
    if not tools:
        return nothing("No tool was called")
    shown = list(reversed(sorted(tools, key=lambda tool: (-tool.error_rate, tool.name))[:worst]))
    rates = [round(tool.error_rate * 100, 1) for tool in shown]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": "Errors in percent",
                "y": [cut(tool.name) for tool in shown],
                "x": rates,
                "text": [f"{rate:g}%" for rate in rates],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": ["--c5" if rate >= 5 else "--c6" for rate in rates]},
                "hovertemplate": "%{y}: %{x}%<extra></extra>",
            }
        ],
        "layout": {
            "hovermode": "closest",
            "margin": {"l": 118, "r": 44, "t": 6, "b": 10},
            "xaxis": {"showticklabels": False, "range": [0, max([5.0, *rates]) * 1.05]},
            "yaxis": {"gridcolor": "rgba(0,0,0,0)", "nticks": worst * 2},
        },
    }


def bars(x: list[str], y: Sequence[float], name: str, colour: str, pattern: str) -> Figure:
    drawn = {"shape": pattern, "size": 5, "solidity": 0.28, "fillmode": "overlay", "fgcolor": "--surface", "fgopacity": 0.85}
    return {"type": "bar", "name": name, "x": x, "y": y, "marker": {"color": colour, "pattern": drawn if pattern else {}}}


def line(x: list[str], y: Sequence[float | None], name: str, colour: str, dash: str) -> Figure:
    """Points are marked: an hour between two hours without runs would else be invisible."""
    look = {"color": colour, "width": 1.75, "dash": dash}
    return {"mode": "lines+markers", "name": name, "x": x, "y": list(y), "line": look, "marker": {"size": 4, "color": colour}}


def nothing(words: str) -> Figure:
    """An empty chart that says why."""
    said = {"text": words, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"size": 12}}
    off = {"visible": False}
    return {"data": [{"x": [], "y": []}], "layout": {"xaxis": off, "yaxis": off, "annotations": [said]}}


def labels(hours: Sequence[Hour]) -> list[str]:
    return [f"{hour.at:%H:%M}" for hour in hours]


def ticks(hours: Sequence[Hour]) -> Figure:
    """Every sixth hour of the day is named, whatever hour the series begins with."""
    return HOURLY | {"tickvals": [f"{hour.at:%H:%M}" for hour in hours if hour.at.hour % 6 == 0]}


def link(hour: Hour, runs_url: str) -> str:
    period = {"since": f"{hour.at:%Y-%m-%dT%H:%M:%SZ}", "until": f"{hour.at + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}
    return f"{runs_url}?{urlencode(period, safe=':')}"


def seconds(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)


def cut(name: str) -> str:
    return name if len(name) <= LONG_NAME else name[: LONG_NAME - 1] + "…"
