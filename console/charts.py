"""Charts for static/js/charts.js. Pure.

A figure is `{data, layout}`, Plotly's own, with colours as token names and moments as 2026-01-31T12:00:00Z; beside these what the script
needs: `words` for who cannot see it, `writes` (how its moments are written), `value` and `unit` of its caption, `links` (where each place
on its axis leads; a series that leads elsewhere has its own), and `markers` (what changed: at, label, url).

Colour is never the only sign: every series of a stack but the first has a pattern of its own, every line its own dash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from .chart_words import written
from .spending import Day
from .windows import Window, iso

Figure = dict[str, Any]
Marker = tuple[datetime, str, str]  # at, label, url
LONG_NAME = 18
TICKS = {"time": "%H:%M", "moment": "%-d %b", "day": "%-d %b"}
HOVER = {"time": "%H:%M", "moment": "%-d %b %H:%M", "day": "%-d %b"}
WIDE = {"l": 56, "r": 14, "t": 10, "b": 26}  # for amounts of money on the axis
CLEAR = "rgba(0,0,0,0)"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart as a page has it. `value` and `unit`: how things stand, beside the title. `legend`: it has several series."""

    key: str
    title: str
    figure: Figure
    words: str
    value: str = ""
    unit: str = ""
    legend: bool = False
    writes: str = "time"

    @property
    def spec(self) -> Figure:
        return self.figure | {"words": self.words, "value": self.value, "unit": self.unit, "writes": self.writes}

    @property
    def spoken(self) -> str:
        return written(self.words, self.writes)


def bars(window: Window, y: Sequence[float], name: str, colour: str, pattern: str = "") -> Figure:
    drawn = {"shape": pattern, "size": 5, "solidity": 0.28, "fillmode": "overlay", "fgcolor": "--surface", "fgopacity": 0.85}
    marker = {"color": colour, "pattern": drawn if pattern else {}}
    return {"type": "bar", "name": name, **along(window), "y": list(y), "marker": marker}


def line(window: Window, y: Sequence[float | None], name: str, colour: str, dash: str = "solid") -> Figure:
    """Points are marked: one between two without a value would else be invisible."""
    look = {"color": colour, "width": 1.75, "dash": dash}
    return {"mode": "lines+markers", "name": name, **along(window), "y": list(y), "line": look, "marker": {"size": 4, "color": colour}}


def along(window: Window) -> Figure:
    """A bar, and the point of a line, stands in the middle of its time."""
    period = window.every.total_seconds() * 1000
    return {"x": [iso(at) for at in window.times], "xperiod": period, "xperiod0": iso(window.since), "xperiodalignment": "middle"}


def over(window: Window, data: Sequence[Figure], **layout: Any) -> Figure:
    """A figure over time. Its axis reaches to the end of the last bar, so that the charts of a page stand in line."""
    reach = [iso(window.since), iso(window.since + window.whole)]
    axis = {"type": "date", "tickformat": TICKS[window.writes], "hoverformat": HOVER[window.writes], "range": reach}
    return {"data": list(data), "layout": {"xaxis": axis, **layout}}


def marked(chart: Figure, markers: Sequence[Marker]) -> Figure:
    return chart | {"markers": [{"at": iso(at), "label": label, "url": url} for at, label, url in markers]}


def linked(window: Window, runs_url: str, query: Mapping[str, str]) -> list[str]:
    """For each bar the runs that started in its time, with the filters of the page."""
    return [address(runs_url, {**query, "since": iso(at), "until": iso(at + window.every)}) for at in window.times]


def address(url: str, query: Mapping[str, str]) -> str:
    return f"{url}?{urlencode({name: value for name, value in query.items() if value}, safe=':,')}"


def ranked(names: Sequence[str], percents: Sequence[float], colours: Sequence[str], links: Sequence[str], series: str) -> Figure:
    """Lying bars in percent, the first name on top."""
    shown = list(reversed(percents))
    bar = {
        "type": "bar",
        "orientation": "h",
        "name": series,
        "y": [cut(name) for name in reversed(names)],
        "x": shown,
        "text": [f"{one:g}%" for one in shown],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": list(reversed(colours))},
        "hovertemplate": "%{y}: %{x}%<extra></extra>",
    }
    layout = {
        "hovermode": "closest",
        "margin": {"l": 118, "r": 44, "t": 6, "b": 10},
        "xaxis": {"showticklabels": False, "range": [0, max([5.0, *shown]) * 1.05]},
        "yaxis": {"gridcolor": CLEAR, "nticks": 2 * max(len(shown), 1)},
    }
    return {"data": [bar], "layout": layout, "links": list(reversed(links))}


def spend(days: Sequence[Day], ceiling_micro: int | None) -> Figure:
    """USD by day (UTC), with the ceiling of a day where there is one."""
    x = [f"{day.at:%b} {day.at.day}" for day in days]
    data: list[Figure] = [
        {"type": "bar", "name": "Cost", "x": x, "y": [round(day.cost_micro / 1e6, 6) for day in days], "marker": {"color": "--c1"}}
    ]
    if ceiling_micro is not None:
        look = {"color": "--c5", "width": 1.75, "dash": "dash"}
        data.append({"mode": "lines", "name": "Ceiling of a day", "x": x, "y": [ceiling_micro / 1e6] * len(x), "line": look})
    return {"data": data, "layout": {"xaxis": {"type": "category", "nticks": 7}, "yaxis": {"tickprefix": "$"}, "margin": WIDE}}


def nothing(words: str) -> Figure:
    """An empty chart that says why."""
    said = {"text": words, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"size": 12}}
    off = {"visible": False}
    return {"data": [{"x": [], "y": []}], "layout": {"xaxis": off, "yaxis": off, "annotations": [said]}}


def whole(most: float) -> Figure:
    """An axis of counts: never a tick between two of them."""
    return {"yaxis": {"dtick": 1}} if most < 4 else {}


def seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 3)


def cut(name: str) -> str:
    return name if len(name) <= LONG_NAME else name[: LONG_NAME - 1] + "…"
