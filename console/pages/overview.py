"""The overview: is anything wrong, how do runs fare, who waits for a person, what runs now."""

from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Q
from django.db.models.functions import Left, Now
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from approvals.models import Approval, ApprovalDecision
from console import metrics, run_charts, tool_charts
from console.api.registry import seen_by
from console.charts import Chart
from console.health_figures import health_figures
from console.incidents import book
from console.live.rows import OPEN
from console.management.commands.jobs import OVERDUE
from console.metrics import Standing
from console.models import Examination, Incident
from console.models.incident import Severity
from console.telemetry import standing as telemetry
from console.templatetags.signalbox import duration
from runs.models import Agent, Run
from tenants.actors import Actor

from .approval_list import headline, lines
from .charted import Charted, Selection, charted, filters, periods, selection
from .run_facts import title_of
from .runs import curl
from .session import signed_in
from .welcome import on_overview

JSON = dict[str, Any]
LISTED = 5
TITLE_FROM = 400  # characters of what was asked that a title is made from


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?part=health|charts|series|waiting|incidents|live|integrity` answers one region alone.

    `degraded`: the banner was there when the page was opened. One that comes later must not push down what somebody reads.
    """
    actor: Actor = request.actor  # type: ignore[attr-defined]
    chosen = selection(actor, request.GET)
    part = request.GET.get("part")
    if part is not None:
        if part not in PARTS:
            raise Http404
        seen = {"late": "degraded" not in request.GET, "degraded": "degraded" in request.GET}
        return render(request, f"pages/overview/_{part}.html", offered(request, PARTS[part](chosen)) | fragment(chosen) | seen)
    read, wrong = charted(chosen), incidents(chosen)
    context = health_of(chosen, read, wrong["incidents"]) | drawn_of(chosen, read) | wrong | fragment(chosen)
    context |= waiting(chosen) | live(chosen) | integrity(chosen)
    context |= {"periods": periods(request.path, chosen), "filters": filters(request.path, chosen)}
    return render(request, "pages/overview.html", offered(request, context))


def offered(request: HttpRequest, context: JSON) -> JSON:
    """Without runs and without an agent that could make one: the first steps."""
    empty = context.get("charts") == [] and not context["curl"]
    return context | on_overview(request, request.actor) if empty else context  # type: ignore[attr-defined]


def fragment(chosen: Selection) -> JSON:
    """The address of each region, which keeps what is chosen."""
    return {"fragment": f"{reverse('overview')}?{urlencode(chosen.address | {'part': ''})}", "chosen": chosen}


# what is wrong, and the figures -------------------------------------------------------------------------------------------


def health(chosen: Selection) -> JSON:
    return health_of(chosen, charted(chosen, marked=False), incidents(chosen)["incidents"])


def health_of(chosen: Selection, read: Charted, open_incidents: list[Incident]) -> JSON:
    standing = metrics.standing(chosen.cut.scope)
    return {"trouble": trouble(standing, open_incidents), "figures": health_figures(read.now, read.before, standing)}


def trouble(standing: Standing, open_incidents: list[Incident]) -> JSON | None:
    """The worst thing that is wrong: a sentence and where to go. None: nothing is."""
    queue = {"url": f"{reverse('runs')}?state=queued", "label": "See the queue"}
    if not standing.engines:
        return {"what": "No engine is running.", "words": "New runs are accepted and wait; nothing is lost.", **queue}
    if standing.overdue:
        many = "1 run is" if standing.overdue == 1 else f"{standing.overdue:,} runs are"
        return {"what": "Runs wait for a free engine.", "words": f"{many} due for more than a minute. Start another engine.", **queue}
    if open_incidents:
        many = "1 incident is open." if len(open_incidents) == 1 else f"{len(open_incidents)} incidents are open."
        return {"what": "Degraded.", "words": many, "incident": open_incidents[0]}
    if standing.canary_s is not None and standing.canary_s > OVERDUE.total_seconds():
        words = f"No sign for {duration(standing.canary_s)}. Runs go on; schedules and reports wait."
        return {"what": "Background jobs do not answer.", "words": words, "url": reverse("overview"), "label": "Look again"}
    return None


# the charts -------------------------------------------------------------------------------------------------------------------


def drawn(chosen: Selection) -> JSON:
    return drawn_of(chosen, charted(chosen))


def drawn_of(chosen: Selection, read: Charted) -> JSON:
    """The eight charts. Without runs: what to do next."""
    if not read.now.runs:
        return {"charts": [], **first_run(chosen.actor)}
    return {"charts": eight(read), "may_start": chosen.actor.can("runs:write")}


def eight(read: Charted) -> list[Chart]:
    drawn = read.drawn
    return [
        run_charts.outcomes(drawn),
        run_charts.success(drawn),
        run_charts.durations(drawn),
        tool_charts.errors_by_tool(drawn, read.tools, reverse("runs")),
        run_charts.costs(drawn),
        run_charts.retries(drawn),
        run_charts.steps(drawn),
        run_charts.troubles(drawn),
    ]


def first_run(actor: Actor) -> JSON:
    """What the empty page offers: a command that starts a run, with an agent that there is."""
    agent = Agent.objects.filter(seen_by(actor), live__isnull=False).order_by("name").values_list("name", flat=True).first()
    return {"may_start": actor.can("runs:write"), "curl": curl(agent) if agent else ""}


# the right column -------------------------------------------------------------------------------------------------------------


def waiting(chosen: Selection) -> JSON:
    """What waits for a person, the one that expires first in front."""
    actor = chosen.actor
    said = Count("decisions", filter=Q(decisions__verdict=ApprovalDecision.Verdict.APPROVE))
    rows = lines(actor).prefetch_related(None).filter(state=Approval.State.PENDING, expires_at__gt=Now()).annotate(said=said)
    found = list(rows[: LISTED + 1])
    return {"waiting": [asked(actor, one) for one in found[:LISTED]], "more_waiting": len(found) > LISTED}


def asked(actor: Actor, found: Approval) -> JSON:
    mine = found.starter_id == actor.user.pk
    return {"approval": found, "headline": headline(found, getattr(found, "brief", None)), "mine": mine}


def incidents(chosen: Selection) -> JSON:
    """Those that nobody resolved, the most severe in front. The platform's own are a platform admin's."""
    scope = chosen.cut.scope
    found = book.visible(chosen.actor).filter(state__in=Incident.LIVE).select_related("owner").order_by("-id")
    rows = list(found if scope is None else found.filter(tenant_id=scope))
    order = list(Severity)
    return {"incidents": sorted(rows, key=lambda one: order.index(Severity(one.severity)))}


def live(chosen: Selection) -> JSON:
    """Runs that are not over, the newest in front."""
    rows = Run.objects.filter(state__in=OPEN).select_related("tenant").order_by("-id")
    rows = rows.annotate(text=Left("asked__text", TITLE_FROM))
    scope = chosen.cut.scope
    found = list((rows if scope is None else rows.filter(tenant_id=scope))[: LISTED + 1])
    items = [{"run": run, "title": title_of(run.text)} for run in found[:LISTED]]
    return {"live": items, "more_live": len(found) > LISTED, "may_start": chosen.actor.can("runs:write")}


def integrity(chosen: Selection) -> JSON:
    """What the doctor found when it last looked at the tables of all tenants: names and meanings of rules, never whose rows."""
    last = Examination.objects.order_by("-at").first()
    found = last.findings if last else []
    broken = [one for one in found if not one["warning"]]
    warnings = [one for one in found if one["warning"]]
    return {"examined": last, "violations": broken, "warnings": warnings, "telemetry": telemetry.standing()}


PARTS = {
    "health": health,
    "charts": drawn,
    "series": drawn,
    "waiting": waiting,
    "incidents": incidents,
    "live": live,
    "integrity": integrity,
}
