"""The overview: is anything wrong, how do runs fare, who waits for a person, what runs now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q
from django.db.models.functions import Left, Now
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from approvals.models import Approval, ApprovalDecision
from console import charts, metrics
from console.api.registry import seen_by
from console.live.rows import OPEN
from console.management.commands.jobs import OVERDUE
from console.metrics import Hour, Period, Standing, ToolHealth
from console.models import Examination
from console.templatetags.signalbox import duration, micros
from runs.models import Agent, Run
from tenants.actors import Actor

from .approval_list import headline, lines
from .run_facts import title_of
from .runs import curl
from .session import signed_in

JSON = dict[str, Any]
LISTED = 5
TITLE_FROM = 400  # characters of what was asked that a title is made from
STEADY = 0.0005  # a change of a share below this is none


@dataclass(frozen=True, slots=True)
class Figure:
    """A health figure: its value with a unit, and its change against the period before in words."""

    name: str
    value: str
    unit: str = ""
    change: str = ""
    icon: str = "minus"
    tone: str = "idle"
    url: str = ""


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?part=health|charts|series|waiting|live|integrity` answers one region alone."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    part = request.GET.get("part")
    if part is None:
        context = health(actor)
        context |= drawn(actor, context["tools"]) | waiting(actor) | live(actor) | integrity(actor)
        return render(request, "pages/overview.html", context)
    if part not in PARTS:
        raise Http404
    return render(request, f"pages/overview/_{part}.html", PARTS[part](actor))


# what is wrong, and the figures -------------------------------------------------------------------------------------------


def health(actor: Actor) -> JSON:
    until = timezone.now()
    now, before = metrics.periods(metrics.scope_of(actor), metrics.last_hours(until), until)
    standing = metrics.standing(metrics.scope_of(actor))
    figures = (
        share("Success rate", now.success_rate, before.success_rate, good="higher"),
        duration_figure(now, before),
        cost_figure(now, before),
        share("Tool errors", now.tool_error_rate, before.tool_error_rate, good="lower"),
        share("Fell back", now.fallback_rate, before.fallback_rate, good="lower"),
        share("Calls sent again", now.retry_rate, before.retry_rate, good="lower"),
        waiting_figure(standing),
    )
    return {"trouble": trouble(standing), "figures": figures, "tools": now.tools}


def trouble(standing: Standing) -> JSON | None:
    """The worst thing that is wrong: a sentence and where to go. None: nothing is."""
    queue = {"url": f"{reverse('runs')}?state=queued", "label": "See the queue"}
    if not standing.engines:
        return {"what": "No engine is running.", "words": "New runs are accepted and wait; nothing is lost.", **queue}
    if standing.overdue:
        many = "1 run is" if standing.overdue == 1 else f"{standing.overdue:,} runs are"
        return {"what": "Runs wait for a free engine.", "words": f"{many} due for more than a minute. Start another engine.", **queue}
    if standing.canary_s is not None and standing.canary_s > OVERDUE.total_seconds():
        words = f"No sign for {duration(standing.canary_s)}. Runs go on; schedules and reports wait."
        return {"what": "Background jobs do not answer.", "words": words, "url": reverse("overview"), "label": "Look again"}
    return None


def share(name: str, now: float | None, before: float | None, *, good: str) -> Figure:
    if now is None:
        return Figure(name, "–", change="nothing to count yet")
    value = f"{now * 100:.1f}".removesuffix(".0")
    if before is None:
        return Figure(name, value, "%", "no earlier runs")
    moved = now - before
    if abs(moved) < STEADY:
        return Figure(name, value, "%", "no change")
    way = "higher" if moved > 0 else "lower"
    worse, much = way != good, abs(moved) >= 0.01
    return Figure(name, value, "%", f"{abs(moved) * 100:.1f} pt {way}", trend(moved), tone_of(worse, much))


def duration_figure(now: Period, before: Period) -> Figure:
    name = "p95 duration"
    if now.p95_s is None:
        return Figure(name, "–", change="no run has ended yet")
    value = duration(float(now.p95_s))
    if not before.p95_s:
        return Figure(name, value, change="no earlier runs")
    moved = float(now.p95_s) / float(before.p95_s) - 1
    if abs(moved) < 0.01:
        return Figure(name, value, change="no change")
    words = f"{times(1 + moved)} slower" if moved > 0 else f"{-moved * 100:.0f}% faster"
    return Figure(name, value, "", words, trend(moved), tone_of(moved > 0, abs(moved) >= 0.2))


def times(factor: float) -> str:
    """1.38 -> 38%, 12 -> 12 times: a percentage of four digits says nothing."""
    return f"{(factor - 1) * 100:.0f}%" if factor < 5 else f"{factor:.0f} times"


def cost_figure(now: Period, before: Period) -> Figure:
    name = "Cost per success"
    if now.cost_per_success is None:
        return Figure(name, "–", change="nothing succeeded yet")
    value, unit = micros(now.cost_per_success), "or more" if now.partial else ""
    if before.cost_per_success is None:
        return Figure(name, value, unit, "no earlier runs")
    moved = now.cost_per_success - before.cost_per_success
    if abs(moved) < max(before.cost_per_success * 0.005, 1):
        return Figure(name, value, unit, "no change")
    words = f"{micros(abs(moved))} {'more' if moved > 0 else 'less'}"
    return Figure(name, value, unit, words, trend(moved), "wait" if moved > before.cost_per_success * 0.1 else "idle")


def waiting_figure(standing: Standing) -> Figure:
    name, url = "Waiting for approval", reverse("approvals")
    if not standing.waiting:
        return Figure(name, "0", change="nobody is asked", icon="check", url=url)
    if standing.waiting_soon:
        words = f"{standing.waiting_soon} expire{'s' if standing.waiting_soon == 1 else ''} in 10 min"
        return Figure(name, f"{standing.waiting:,}", change=words, icon="timer", tone="wait", url=url)
    return Figure(name, f"{standing.waiting:,}", change="none expires soon", icon="hand", tone="wait", url=url)


def trend(moved: float) -> str:
    return "trending-up" if moved > 0 else "trending-down"


def tone_of(worse: bool, much: bool) -> str:
    return "fail" if worse and much else "idle"


# the charts -------------------------------------------------------------------------------------------------------------------


def drawn(actor: Actor, used: Sequence[ToolHealth] | None = None) -> JSON:
    """The four charts: what they show in words, and their figures. Without runs: what to do next. `used`: asked for unless given."""
    until = timezone.now()
    since, scope = metrics.last_hours(until), metrics.scope_of(actor)
    hours = metrics.hours(scope, since, until)
    if not any(hour.total for hour in hours):
        return {"charts": [], **first_run(actor)}
    used = list(metrics.tools(scope, since, until).values()) if used is None else used
    made = (
        ("outcomes", "Runs by outcome", charts.outcomes(hours, reverse("runs")), outcome_words(hours)),
        ("durations", "Duration", charts.durations(hours), duration_words(hours)),
        ("tool-errors", "Tool error rate", charts.tool_errors(used), tool_words(used)),
        ("costs", "Cost per successful run", charts.costs(hours), cost_words(hours)),
    )
    rows = [{"key": key, "title": title, "figure": figure, "words": words} for key, title, figure, words in made]
    return {"charts": rows, "since": since, "may_start": actor.can("runs:write")}


def first_run(actor: Actor) -> JSON:
    """What the empty page offers: a command that starts a run, with an agent that there is."""
    agent = Agent.objects.filter(seen_by(actor), live__isnull=False).order_by("name").values_list("name", flat=True).first()
    return {"may_start": actor.can("runs:write"), "curl": curl(agent) if agent else ""}


def outcome_words(hours: list[Hour]) -> str:
    parts = [(name.lower(), sum(count(hour) for hour in hours)) for _, name, count, _, _ in charts.PARTS]
    said = ", ".join(f"{many:,} {name}" for name, many in parts if many)
    return f"Runs started in each of the last 24 hours by outcome: {said}."


def duration_words(hours: list[Hour]) -> str:
    ends = [float(hour.p95_s) for hour in hours if hour.p95_s is not None]
    if not ends:
        return "Duration of runs by hour. No run has ended yet."
    least, most = duration(min(ends)), duration(max(ends))
    return f"Duration of runs by hour started, median and 95th percentile. The 95th percentile lies between {least} and {most}."


def tool_words(used: Sequence[ToolHealth]) -> str:
    if not used:
        return "Error rate by tool. No tool was called."
    worst = used[0]
    return f"Error rate by tool. The highest: {worst.name}, {worst.errors:,} of {worst.calls:,} calls."


def cost_words(hours: list[Hour]) -> str:
    paid = [hour.cost_micro / hour.succeeded for hour in hours if hour.succeeded]
    if not paid:
        return "Cost per successful run by hour. No run has succeeded yet."
    return f"Cost per successful run by hour started, between {micros(min(paid))} and {micros(max(paid))}."


# the right column -------------------------------------------------------------------------------------------------------------


def waiting(actor: Actor) -> JSON:
    """What waits for a person, the one that expires first in front."""
    said = Count("decisions", filter=Q(decisions__verdict=ApprovalDecision.Verdict.APPROVE))
    rows = lines(actor).prefetch_related(None).filter(state=Approval.State.PENDING, expires_at__gt=Now()).annotate(said=said)
    found = list(rows[: LISTED + 1])
    return {"waiting": [asked(actor, one) for one in found[:LISTED]], "more_waiting": len(found) > LISTED}


def asked(actor: Actor, found: Approval) -> JSON:
    mine = found.starter_id == actor.user.pk
    return {"approval": found, "headline": headline(found, getattr(found, "brief", None)), "mine": mine}


def live(actor: Actor) -> JSON:
    """Runs that are not over, the newest in front."""
    rows = Run.objects.filter(state__in=OPEN).select_related("tenant").order_by("-id")
    rows = rows.annotate(text=Left("asked__text", TITLE_FROM))
    scope = metrics.scope_of(actor)
    found = list((rows if scope is None else rows.filter(tenant_id=scope))[: LISTED + 1])
    items = [{"run": run, "title": title_of(run.text)} for run in found[:LISTED]]
    return {"live": items, "more_live": len(found) > LISTED, "may_start": actor.can("runs:write")}


def integrity(actor: Actor) -> JSON:
    """What the doctor found when it last looked at the tables of all tenants: names and meanings of rules, never whose rows."""
    last = Examination.objects.order_by("-at").first()
    found = last.findings if last else []
    broken = [one for one in found if not one["warning"]]
    return {"examined": last, "violations": broken, "warnings": [one for one in found if one["warning"]]}


PARTS = {"health": health, "charts": drawn, "series": drawn, "waiting": waiting, "live": live, "integrity": integrity}
