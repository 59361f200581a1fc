"""Models as pages: how each fares and what it costs, and of one model its hours, its roles, its releases and its last failures."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import changes, metrics, model_charts, model_facts, model_metrics, windows
from console.charts import Chart
from console.model_metrics import Used
from runs.models import Call, ModelDefinition
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import encode
from tools import breakers
from tools.definitions import RetryPolicy
from tools.models import Breaker

from .breakers import of_host, worst
from .session import signed_in

JSON = dict[str, Any]
LATELY = timedelta(days=7)
FAILURES = 20
HIGH = 0.05  # an error rate that is marked
ADMIN_PAGE = "admin:runs_modeldefinition_change"


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    now, scope = timezone.now(), metrics.scope_of(actor)
    models = list(ModelDefinition.objects.order_by("name"))
    used, flying = model_metrics.models(scope, now), model_metrics.in_flight(scope)
    held = breakers.of_hosts(actor, {breakers.host_port(model.base_url) for model in models})
    rows = [row(model, used.get(model.name), flying.get(model.name, 0), held) for model in models]
    return render(request, "pages/models.html", {"rows": rows, "now": now, "all_tenants": scope is None})


@require_safe
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    model = ModelDefinition.objects.filter(name=name).first()
    if model is None:
        raise NotFound("model")
    now, scope = timezone.now(), metrics.scope_of(actor)
    used = model_metrics.models(scope, now, name).get(name)
    host = breakers.host_port(model.base_url)
    held = breakers.of_hosts(actor, {host})
    context = row(model, used, model_metrics.in_flight(scope).get(name, 0), held) | {
        "now": now,
        "charts": drawn(actor, used, now),
        "roles": model_metrics.roles(scope, now, name) if used else [],
        "releases": model_facts.releases(actor, name),
        "failures": failures(actor, name),
        "retry": (retry := RetryPolicy.from_json(model.retry)),
        "retry_on": sorted(word.replace("_", " ") for word in retry.retry_on),
        "edit_url": reverse(ADMIN_PAGE, args=[name]) if actor.platform_admin and actor.user.is_staff else "",
        **of_host(actor, host, held.get(host, []), request.path),
    }
    context["source"] = model_facts.SOURCES[context["price"]["source"]] if context["price"] else ""
    return render(request, "pages/model.html", context)


def row(model: ModelDefinition, used: Used | None, flying: int, held: dict[str, list[Breaker]]) -> JSON:
    whole = used.whole if used else None
    host = breakers.host_port(model.base_url)
    return {
        "model": model,
        "host": host,
        "used": whole,
        "error_percent": f"{whole.error_rate * 100:.1f}".removesuffix(".0") + "%" if whole else "",
        "high": bool(whole and whole.error_rate >= HIGH),
        "flying": flying,
        "price": model_facts.price(model),
        "spark": model_charts.spark(used.hours) if used else "",
        "circuit": worst(held.get(host, [])),
    }


def drawn(actor: Actor, used: Used | None, now: datetime) -> list[Chart]:
    window = windows.window("24h", now)
    hours, marks = used.hours if used else (), changes.markers(metrics.scope_of(actor), window.since, window.until)
    return [model_charts.latencies(window, hours, marks), model_charts.outcomes(window, hours, marks)]


def failures(actor: Actor, name: str) -> list[JSON]:
    """The last calls of this model that failed, newest run first, with links to their runs."""
    scope = metrics.scope_of(actor)
    rows = Call.objects.filter(name=name, ord=0, error_class__isnull=False, run_id__gte=metrics.first_id(timezone.now() - LATELY))
    rows = rows if scope is None else rows.filter(run__tenant_id=scope)
    found = rows.annotate(agent=F("run__agent_id")).only(
        "run_id", "step", "ord", "state", "attempt", "error_class", "latency_ms", "ended_at"
    )
    return [{"call": call, "run_id": encode("agt", call.run_id)} for call in found.order_by("-run_id", "-step")[:FAILURES]]
