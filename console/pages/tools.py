"""Tools as pages: how each fares, and of one tool what it may do, who may call it, and what was called lately."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from console import metrics, verdicts
from console.api.registry import seen_by
from console.verdicts import verdict
from runs.models import Call
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import encode
from tenants.roles import Role
from tools import breakers, catalog, lint, policy
from tools.models import Breaker, Permission, Tool, ToolVersion

from . import what_if
from .breakers import of_host, worst
from .session import signed_in
from .tool_charts import charts_of

JSON = dict[str, Any]
DAY = timedelta(hours=24)
LATELY = timedelta(days=7)  # how old the runs of the calls that are listed may be
CALLS = 20
HIGH = 0.05  # an error rate that is marked
ADMIN_LIST = "admin:tools_permission_changelist"
EFFECTS = {  # effect -> (icon, word, what it means)
    "read": ("eye", "Read", "Changes nothing."),
    "write": ("pencil", "Write", "Changes something outside."),
    "irreversible": ("triangle-alert", "Irreversible", "Cannot be undone."),
}
LINT = {  # severity -> how it is shown
    "error": {"icon": "octagon-x", "word": "Error", "tone": "fail"},
    "warning": {"icon": "triangle-alert", "word": "Warning", "tone": "wait"},
    "info": {"icon": "circle-alert", "word": "Info", "tone": "run"},
}


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?part=list` answers the table alone."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    now = timezone.now()
    used = metrics.tools(metrics.scope_of(actor), now - DAY, now)
    edits = may_edit(actor)
    found = list(seen(actor))
    held = breakers.of_hosts(actor, {host_of(tool) for tool in found})
    rows = [row(tool, used.get(tool.name), edits, held) for tool in found]
    template = "pages/tools/_list.html" if request.GET.get("part") == "list" else "pages/tools.html"
    return render(
        request,
        template,
        {"rows": rows, "off": sum(not each["tool"].enabled for each in rows), "asked": sum(asks(each["tool"]) for each in rows)},
    )


@require_safe
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    """`?part=calls` answers the recent calls alone, `?part=series` the data of the charts."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    tool = seen(actor).filter(name=name).first()
    if tool is None:
        raise NotFound("tool")
    if request.GET.get("part") == "calls":
        return render(request, "pages/tools/_calls.html", {"tool": tool, "calls": recent(actor, name)})
    now, charts = timezone.now(), charts_of(actor, request, name)
    if request.GET.get("part") == "series":
        return render(request, "components/chart_data.html", charts)
    health = metrics.tools(metrics.scope_of(actor), now - DAY, now).get(name)
    host = host_of(tool)
    held = breakers.of_hosts(actor, {host})
    context = row(tool, health, may_edit(actor), held) | described(tool.current) | of_host(actor, host, held.get(host, []), request.path)
    context |= {"permissions": permissions(actor, name), "calls": recent(actor, name), "default": default(tool.current), "asks": asks(tool)}
    context |= {"wrote": wrote(actor, tool, now)} | charts
    context |= {"what_if": what_if.blank(actor, tool, "", actor.tenant.slug) if tool.current else None}
    return render(request, "pages/tool.html", context)


def wrote(actor: Actor, tool: Tool, now: datetime) -> JSON | None:
    """What this tool changed in a day, in the tenants that the actor sees: sent, applied, unknown, and by how many runs."""
    if tool.current is None or tool.current.effect == "read":
        return None
    sent = Call.objects.filter(~Q(effect="read"), name=tool.name, dispatched_at__gte=now - DAY)
    mine = sent if actor.platform_admin else sent.filter(tenant_id=actor.tenant.id)
    return mine.aggregate(
        applied=Count("ord", filter=Q(state="done")), unknown=Count("ord", filter=Q(state="unknown")), runs=Count("run_id", distinct=True)
    )


def asks(tool: Tool) -> bool:
    """Whether an imported tool waits for a person's word."""
    return not tool.classified or bool(tool.pending and not tool.pending["rejected"])


def seen(actor: Actor) -> "QuerySet[Tool]":
    return Tool.objects.select_related("current").filter(seen_by(actor)).order_by("name")


def host_of(tool: Tool) -> str:
    """`host:port` that its calls go to; empty where they go to none."""
    return breakers.host_port(str(tool.current.adapter.get("url") or "")) if tool.current else ""


def row(tool: Tool, health: metrics.ToolHealth | None, edits: bool, held: dict[str, list[Breaker]]) -> JSON:
    effect = tool.current.effect if tool.current else ""
    icon, word, meaning = EFFECTS.get(effect, ("circle-dashed", effect or "No version", ""))
    return {
        "tool": tool,
        "version": tool.current,
        "icon": icon,
        "effect": word,
        "meaning": meaning,
        "health": health,
        "error_percent": f"{health.error_rate * 100:.1f}".removesuffix(".0") + "%" if health else "",
        "high": bool(health and health.error_rate >= HIGH),
        "host": host_of(tool),
        "circuit": worst(held.get(host_of(tool), [])),
        "permissions_url": f"{reverse(ADMIN_LIST)}?{urlencode({'tool__exact': tool.name})}" if edits else "",
    }


def may_edit(actor: Actor) -> bool:
    """Whether the admin's list of permissions opens for this person."""
    return actor.user.is_staff and actor.has_role(Role.OPERATOR)


def described(version: ToolVersion | None) -> JSON:
    if version is None:
        return {"input": None, "output": None, "lint": None}
    said = linted(catalog.findings(version))
    labels = verdicts.labels(version.labels)
    return {
        "labels": labels,
        "input": version.input_schema,
        "output": version.output_schema,
        "lint": said,
        "destination": destination(version.adapter),
    }


def linted(found: tuple[lint.Finding, ...]) -> JSON:
    """The findings as they are shown, and how many there are of each severity that there is."""
    tally = [{"number": number, **LINT[severity]} for severity, number in lint.counts(found).items() if number]
    return {"tally": tally, "findings": [{"finding": each, **LINT[each.severity]} for each in found]}


def destination(adapter: JSON) -> str:
    """Where a call goes: `POST https://…`, or the registered name."""
    if adapter.get("kind") == "http":
        return f"{adapter.get('method', 'POST')} {adapter.get('url', '')}"
    if adapter.get("kind") == "mcp":
        return f"{adapter.get('tool', '')} of {adapter.get('server', '')}, {adapter.get('url', '')}"
    return f"{adapter.get('kind', 'unknown')} {adapter.get('name') or adapter.get('tool') or ''}".strip()


def default(version: ToolVersion | None) -> JSON | None:
    """What happens where no permission row says otherwise."""
    if version is None or version.effect not in policy.DEFAULTS:
        return None
    decision, approvers = policy.DEFAULTS[version.effect]
    return verdict(decision, approvers)


def permissions(actor: Actor, name: str) -> list[JSON]:
    """The rows that a run of this tenant may meet: the tenant's own, and those of every tenant."""
    rows = Permission.objects.filter(Q(tenant=None) | Q(tenant=actor.tenant), tool_id=name).order_by(
        F("tenant").asc(nulls_first=True), "agent", "user_role", "when"
    )
    return [{"row": each, "everyone": each.tenant_id is None, **verdict(each.decision, each.approvers)} for each in rows]


def recent(actor: Actor, name: str) -> list[JSON]:
    """The last calls of this tool that were decided, newest run first, with links to their runs."""
    scope = metrics.scope_of(actor)
    rows = Call.objects.filter(name=name, ord__gt=0, run_id__gte=metrics.first_id(timezone.now() - LATELY))
    rows = rows if scope is None else rows.filter(run__tenant_id=scope)
    found = rows.annotate(agent=F("run__agent_id")).only(
        "run_id", "step", "ord", "state", "attempt", "error_class", "latency_ms", "ended_at"
    )
    return [{"call": call, "run_id": encode("agt", call.run_id)} for call in found.order_by("-run_id", "-step", "-ord")[:CALLS]]
