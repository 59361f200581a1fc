"""What changed, as one list: who, what, from what to what and why. Charts lead here."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import change_words, changes, preferences
from console.api import changes as api
from console.api.registry import seen_by
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant
from tools.models import Tool

from .run_filters import SINCE, Chip, Option, wanted
from .session import signed_in

JSON = dict[str, Any]
PAGE, CHOICES = 50, 30
FILTERS = ("kind", "agent", "tool", "tenant", "since", "until")


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    query = asked(request.GET)
    context: JSON = {"query": query, "chips": chips(actor, query), "filtered": bool(query), "now": timezone.now()}
    try:
        found, more = api.listed(actor, wanted(query) | {"cursor": request.GET.get("cursor", "")}, PAGE)
    except Refused as refused:
        return render(request, "pages/changes.html", context | {"refused": refused.message}, status=refused.status)
    context |= {"days": by_day(found), "older_url": address(query, cursor=more) if more else "", "since": moment(query.get("since", ""))}
    return render(request, "pages/changes.html", context)


def asked(given: QueryDict) -> dict[str, str]:
    values = {name: given.get(name, "").strip()[:200] for name in FILTERS}
    return {name: value for name, value in values.items() if value}


def by_day(found: list[changes.Change]) -> list[tuple[date, list[changes.Change]]]:
    """Days as the reader's zone has them."""
    days: list[tuple[date, list[changes.Change]]] = []
    for one in found:
        day = preferences.in_zone(one.at).date()
        if not days or days[-1][0] != day:
            days.append((day, []))
        days[-1][1].append(one)
    return days


def moment(text: str) -> datetime | None:
    """Where a chart's mark led from; the words of the filter are none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def address(query: dict[str, str], **more: str) -> str:
    values = QueryDict(mutable=True)
    values.update({name: value for name, value in {**query, **more}.items() if value})
    return reverse("changes") + (f"?{values.urlencode()}" if values else "")


def chips(actor: Actor, query: dict[str, str]) -> list[Chip]:
    agents = Agent.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True)[:CHOICES]
    tools = Tool.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True)[:CHOICES]
    known = {
        "kind": {kind: title.capitalize() if title.islower() else title for kind, (title, _) in change_words.KINDS.items()},
        "agent": {name: name for name in agents},
        "tool": {name: name for name in tools},
        "since": {name: words for name, (words, _) in SINCE.items()},
    }
    if actor.platform_admin:
        known["tenant"] = {slug: slug for slug in Tenant.objects.order_by("slug").values_list("slug", flat=True)[:CHOICES]}
    return [chip(query, name, values) for name, values in known.items()]


def chip(query: dict[str, str], name: str, known: dict[str, str]) -> Chip:
    chosen = query.get(name, "")
    options = [Option(label, address({**query, name: value}), value == chosen) for value, label in known.items()]
    return Chip(name, known.get(chosen, chosen), address({**query, name: ""}), options)
