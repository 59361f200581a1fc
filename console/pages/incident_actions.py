"""The confirm step of an action on an incident, with its numbers in front of the button, and of taking one back."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from console.api.paging import number
from console.incidents import actions, book
from console.models import IncidentEntry
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from .session import signed_in

FIELDS = ("reason", "typed", "value", "chosen")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def do(request: HttpRequest, incident_id: str, name: str) -> HttpResponse:
    """GET `?step=4` shows what it would do, POST with a `reason` does it. Nothing but the step comes from the address."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(book.READ)
    incident = book.find(actor, incident_id)
    asked = request.POST if request.method == "POST" else request.GET
    step = number(asked.get("step"), "step", 0, 1, 1000) or None
    place, preview = actions.preview(actor, incident, name, step)
    context: dict[str, Any] = {"incident": incident, "id": str(incident), "preview": preview, "step": step or "", "place": place}
    context |= {"button": actions.ACTIONS[name].button(place), "said": {}, "chosen": preview.proposed}
    if request.method != "POST":
        return render(request, "pages/incident_action.html", context)
    said, chosen = {field: asked.get(field, "") for field in ("reason", "typed", "value")}, tuple(asked.getlist("chosen"))
    try:
        entry = actions.carry_out(actor, incident, name, step, **said, chosen=chosen)
    except NotFound:
        raise
    except Refused as refused:
        context |= wrong(refused) | {"said": said, "chosen": chosen}
        return render(request, "pages/incident_action.html", context, status=refused.status)
    messages.success(request, entry.text.partition("\n")[0])
    return redirect("incident", str(incident))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def take_back(request: HttpRequest, incident_id: str, line_id: int) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(book.WRITE)
    incident = book.find(actor, incident_id)
    entry = incident.entries.select_related("actor").filter(pk=line_id, kind=IncidentEntry.Kind.ACTION).first()
    if entry is None:
        raise NotFound("action")
    context: dict[str, Any] = {"incident": incident, "id": str(incident), "entry": entry, "said": {}}
    context["stands"] = entry.pk in actions.standing(incident, list(incident.entries.filter(kind=IncidentEntry.Kind.ACTION)))
    if request.method != "POST":
        return render(request, "pages/incident_take_back.html", context)
    reason = request.POST.get("reason", "")
    try:
        done = actions.take_back(actor, incident, line_id, reason)
    except NotFound:
        raise
    except Refused as refused:
        context |= wrong(refused) | {"said": {"reason": reason}}
        return render(request, "pages/incident_take_back.html", context, status=refused.status)
    messages.success(request, done.text.partition("\n")[0])
    return redirect("incident", str(incident))


def wrong(refused: Refused) -> dict[str, str]:
    field = refused.fields.get("field")
    return {f"{field}_error" if field in FIELDS else "notice": refused.message}
