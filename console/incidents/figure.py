"""The chart of an incident's evidence: the frozen series, the line it crossed, what changed meanwhile. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from console.charts import Figure

from .kinds import spelled

JSON = Mapping[str, Any]
TIMES = {"share": 100}  # a share is drawn in percent
AXIS = {"share": {"ticksuffix": "%"}, "usd": {"tickprefix": "$"}, "ms": {"ticksuffix": " ms"}}
MARKED = ("release.promoted", "release.rolled_back", "rule.created", "permission.created", "permission.updated")
MARKERS = 6


def of(evidence: JSON) -> Figure | None:
    """None where there is nothing to draw."""
    points = [(point["at"], point["value"]) for point in evidence.get("series") or ()]
    window = evidence.get("window") or {}
    if window.get("value") is not None:
        points = [point for point in points if point[0] < window["until"]] + [(window["until"], window["value"])]
    points += [(point["at"], point["value"]) for point in since(evidence)]
    if not points:
        return None
    unit = str(evidence.get("unit", ""))
    drawn = [None if value is None else round(value * TIMES.get(unit, 1), 4) for _, value in points]
    x = [at for at, _ in points]
    look = {"color": "--c5", "width": 1.75, "dash": "solid"}
    trace = {"mode": "lines+markers", "x": x, "y": drawn, "line": look, "marker": {"size": 4, "color": "--c5"}}
    data: list[Figure] = [trace | {"name": evidence.get("metric", "Value"), "fill": "tozeroy", "fillcolor": "--fail-bg"}]
    data += threshold(evidence, unit, (min(x[0], window.get("since") or x[0]), x[-1]))
    layout = {"xaxis": {"type": "date", "tickformat": "%H:%M", "hoverformat": "%H:%M"}, "yaxis": AXIS.get(unit, {})}
    return {"data": data, "layout": layout, "markers": markers(evidence, x[0])}


def since(evidence: JSON) -> Sequence[JSON]:
    """What its detector saw after it opened."""
    return evidence.get("since") or ()


def threshold(evidence: JSON, unit: str, x: Sequence[str]) -> list[Figure]:
    line = evidence.get("threshold")
    if line is None:
        return []
    drawn = [round(line * TIMES.get(unit, 1), 4)] * len(x)
    look = {"color": "--c6", "width": 1.5, "dash": "dash"}
    return [{"mode": "lines", "name": f"Threshold {spelled(line, unit)}", "x": list(x), "y": drawn, "line": look}]


def markers(evidence: JSON, begin: str) -> list[JSON]:
    """Releases and changes of the policy within the chart, as lines that lead nowhere: the list below names them. And its opening."""
    found = [each for each in evidence.get("changes") or () if each["action"] in MARKED and each["at"] >= begin]
    drawn: list[JSON] = [{"at": each["at"], "label": words(each), "url": ""} for each in reversed(found[:MARKERS])]
    window = evidence.get("window") or {}
    return [*drawn, {"at": window["until"], "label": "opened", "url": ""}] if since(evidence) and window else drawn


def words(change: JSON) -> str:
    """Such as "support-triage promoted"."""
    return f"{change['id']} {str(change['action']).partition('.')[2].replace('_', ' ')}"


def spoken(evidence: JSON, figure: Figure) -> str:
    """The chart for who cannot see it."""
    unit = str(evidence.get("unit", ""))
    values = [value for value in figure["data"][0]["y"] if value is not None]
    if not values:
        return f"{evidence.get('metric', 'Value')}: no value."
    said = [spelled(value / TIMES.get(unit, 1), unit) for value in (min(values), max(values), values[-1])]
    line = evidence.get("threshold")
    end = f" The threshold is {spelled(line, unit)}." if line is not None else ""
    when = "over the day before and since" if since(evidence) else "over the day before"
    return f"{evidence.get('metric', 'Value')} {when}: from {said[0]} to {said[1]}, {said[2]} at the end.{end}"
