"""The library of runbooks, and one of them in each of its versions."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from console.api.paging import number
from console.incidents import book
from console.models import Incident, Runbook, RunbookVersion
from console.runbooks import shelf
from tenants.actors import Actor
from tenants.errors import NotFound

from .session import signed_in

VERSIONS = 30


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    live = list(book.visible(actor).filter(state__in=Incident.LIVE).values_list("runbook", flat=True))
    rows = [{"runbook": each, "live": live.count(each.name), **counts(each.current)} for each in shelf.visible(actor) if each.current]
    context = {"rows": rows, "add_url": reverse("admin:console_runbook_add") if actor.platform_admin and actor.user.is_staff else ""}
    return render(request, "pages/runbooks.html", context)


def counts(version: RunbookVersion) -> dict[str, int]:
    read = shelf.read(version)
    return {"steps": len(read.steps), "offers": sum(len(step.offers) for step in read.steps)} if read else {"steps": 0, "offers": 0}


@require_safe
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    """`?version=3` shows an older one. What an incident pinned is found here for as long as the installation lives."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    runbook = shelf.find(actor, name)
    asked = request.GET.get("version")
    version = shelf.version(name, number(asked, "version", 1, 1, 10**6) if asked else None)
    if version is None:
        raise NotFound("runbook")
    versions = list(runbook.versions.select_related("created_by").order_by("-number")[:VERSIONS])
    context = {"runbook": runbook, "version": version, "book": shelf.read(version), "versions": versions}
    return render(request, "pages/runbook.html", context | {"edit_url": edit_url(actor, runbook)})


def edit_url(actor: Actor, runbook: Runbook) -> str:
    return reverse("admin:console_runbook_change", args=[runbook.pk]) if actor.platform_admin and actor.user.is_staff else ""
