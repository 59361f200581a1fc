"""The detectors: how each is set, what it sees now, what it would have opened in the last days; switched on and off."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console.incidents import backtest, book, settings
from console.incidents.kinds import KINDS, OUTSIDE, spelled
from console.models import Detector, Incident
from tenants.actors import Actor
from tenants.errors import Refused

from .session import signed_in

JSON = dict[str, Any]
LATELY = 10
WORDS = {  # parameter -> what it means
    "window_minutes": "Minutes that it looks at",
    "threshold": "Threshold",
    "minimum": "At least so many things in them",
    "baseline_days": "Days of the baseline",
    "k": "Spreads above the median (0: no matter)",
    "clear_ratio": "Over below this share of the line",
    "hold_minutes": "for so many minutes",
}


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    live = list(book.visible(actor).filter(state__in=Incident.LIVE).exclude(detector=""))
    return render(request, "pages/detectors.html", {"rows": [row(each, live) for each in settings.visible(actor)]})


def row(detector: Detector, live: list[Incident]) -> JSON:
    kind = KINDS[detector.kind]
    mine = [incident for incident in live if incident.detector == detector.name]
    values = [spelled(incident.value, kind.unit) for incident in mine if incident.value is not None]
    return {"it": detector, "kind": kind, "line": line(detector), "live": len(mine), "values": values[:3]}


def line(detector: Detector) -> str:
    """Such as "over 20% in 10 minutes"."""
    kind, held = KINDS[detector.kind], settings.parameters_of(detector)
    if detector.kind in OUTSIDE:
        return "opened by a rollout"
    figure = {
        "level": f"from {spelled(held.threshold, kind.unit)}",
        "times": f"over {held.threshold:g} times the median",
        "above": f"over the median and {spelled(held.threshold, kind.unit)}",
    }[kind.by]
    return f"{figure} in {held.window_minutes} minutes"


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    """POST `enabled` (1 or 0) and `reason` switches it on or off."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    detector = settings.find(actor, name)
    if request.method != "POST":
        return show(request, actor, detector)
    wanted = request.POST.get("enabled") == "1"
    try:
        spec = settings.read({**settings.as_json(detector), "enabled": wanted})
        settings.put(actor, name, spec, " ".join(request.POST.get("reason", "").split())[:500])
    except Refused as refused:
        return show(request, actor, detector, refused.status, notice=refused.message)
    messages.success(request, f"{name} is {'on' if wanted else 'off'}.")
    return redirect("detector", name)


def show(request: HttpRequest, actor: Actor, detector: Detector, status: int = 200, **more: Any) -> HttpResponse:
    held = settings.parameters_of(detector).model_dump()
    rows = book.visible(actor).filter(detector=detector.name)
    context = {
        **row(detector, list(rows.filter(state__in=Incident.LIVE))),
        "parameters": [(WORDS[name], f"{value:g}") for name, value in held.items()],
        "tested": tested(actor, detector),
        "may": actor.platform_admin and actor.can("config:write"),
        "lately": list(rows.order_by("-id")[:LATELY]),
    }
    return render(request, "pages/detector.html", context | more, status=status)


def tested(actor: Actor, detector: Detector) -> str:
    """What it would have opened, in a sentence."""
    try:
        rule = settings.rule_of(detector)
        found = backtest.backtest(rule, None if actor.platform_admin else actor.tenant.pk, timezone.now())
    except Refused as refused:
        return refused.message
    return str(backtest.as_json(rule, found, backtest.DAYS)["text"])
