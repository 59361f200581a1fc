"""What each metric counts, beside what it comes to in the last 24 hours."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import metrics
from console.figures import Figures
from console.metric_definitions import METRICS, Metric
from console.readings import Cut, read
from console.templatetags.signalbox import duration
from tenants.actors import Actor

from .session import signed_in

NOTHING = "–"


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("metrics:read")
    now, cut = timezone.now(), Cut(metrics.scope_of(actor))
    since = metrics.last_hours(now)
    reading = read(cut, since, now)
    whole = metrics.grouped(reading, cut, None)[""]
    rows = [row(metric, whole) for metric in METRICS]
    return render(request, "pages/metric_definitions.html", {"rows": rows, "as_of": reading.as_of, "all_tenants": cut.scope is None})


def row(metric: Metric, figures: Figures) -> dict[str, Any]:
    """`parts`: the words, every other one of them as code."""
    parts = [{"code": place % 2 == 1, "text": text} for place, text in enumerate(metric.counted.split("`"))]
    return {"metric": metric, "value": shown(metric, figures), "n": metric.n(figures), "parts": parts}


def shown(metric: Metric, figures: Figures) -> str:
    value = metric.value(figures)
    if value is None:
        return NOTHING
    if isinstance(value, dict):
        return ", ".join(f"{state} {percent(part)}" for state, part in value.items())
    if metric.unit == "milliseconds":
        return duration(value / 1000)
    if metric.unit == "USD":
        return f"${value}{' or more' if figures.partial else ''}"
    return percent(value) if metric.unit == "share" else f"{value:g}"


def percent(part: float) -> str:
    return f"{part * 100:.1f}".removesuffix(".0") + "%"
