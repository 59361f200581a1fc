"""Agents as pages: how each fares, and of one agent its charts, releases, tools, roles and last runs."""

from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import agent_facts, metrics, run_charts, tool_charts
from console.api import runs as api
from console.api.registry import seen_by
from console.charts import Chart
from console.figures import Figures
from console.health_figures import run_figures, share
from console.readings import read
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import NotFound

from .charted import Charted, Selection, charted, filters, periods, selection, split
from .run_facts import title_of
from .session import signed_in

JSON = dict[str, Any]
RUNS = 8
NONE = Figures()


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    chosen = selection(actor, request.GET, agent="", release="")
    window = chosen.window
    made = metrics.grouped(read(chosen.cut, window.since, window.until, apart=("agent",)), chosen.cut, "agent")
    rows = [{"agent": agent, "made": made.get(agent.name, NONE)} for agent in agents_of(actor)]
    context = {"rows": rows, "chosen": chosen, "periods": periods(request.path, chosen), "kept": urlencode(chosen.address)}
    return render(request, "pages/agents.html", context)


@require_safe
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    """`?part=series` answers the data of the charts alone."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    agent = agents_of(actor).filter(name=name).first()
    if agent is None:
        raise NotFound("agent")
    chosen = selection(actor, request.GET, agent=name)
    part = request.GET.get("part")
    if part not in (None, "series"):
        raise Http404
    found = charted(chosen, apart=("release",))
    context = {"charts": drawn(found), "fragment": f"{request.path}?{urlencode(chosen.address | {'part': ''})}"}
    if part:
        return render(request, "components/chart_data.html", context)
    context |= facts(agent, chosen, found)
    context |= {"periods": periods(request.path, chosen), "filters": filters(request.path, chosen)}
    return render(request, "pages/agent.html", context)


def agents_of(actor: Actor) -> "QuerySet[Agent]":
    return Agent.objects.filter(seen_by(actor)).select_related("live").defer("live__spec", "live__tools").order_by("name")


def facts(agent: Agent, chosen: Selection, found: Charted) -> JSON:
    window = chosen.window
    reading, _ = split(found.reading, window.since)
    recent = agent_facts.recent(api.visible(chosen.actor), chosen.cut, RUNS)
    now = found.now
    return {
        "agent": agent,
        "chosen": chosen,
        "figures": (
            *run_figures(now, found.before),
            share("Fell back", now.fallback_rate, found.before.fallback_rate),
            share("Policy violations", now.policy_violation_rate, found.before.policy_violation_rate),
        ),
        "releases": agent_facts.releases(agent, reading),
        "tools": found.tools,
        "roles": agent_facts.roles(chosen.cut, window.since, window.until),
        "runs": [{"run": run, "title": title_of(run.asked_text or "")} for run in recent],  # type: ignore[attr-defined]
        "now": timezone.now(),
    }


def drawn(found: Charted) -> list[Chart]:
    it = found.drawn
    return [
        run_charts.outcomes(it),
        run_charts.success(it),
        run_charts.durations(it),
        run_charts.costs(it),
        run_charts.steps(it),
        tool_charts.errors_by_tool(it, found.tools, reverse("runs")),
        run_charts.retries(it),
        run_charts.troubles(it),
    ]
