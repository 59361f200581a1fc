"""First steps: what an empty installation needs, one after the other. On the overview until it is done or put away; here always."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from tenants.actors import Actor

from .session import signed_in
from .welcome_steps import steps

SESSION_AWAY = "first_steps_away"  # slugs of the tenants for which this session put the guide away


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """POST takes the guide off the overview, for this tenant and as long as the person stays signed in."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method == "POST":
        away = set(request.session.get(SESSION_AWAY, ())) | {actor.tenant.slug}
        request.session[SESSION_AWAY] = sorted(away)
        return redirect("overview")
    return render(request, "pages/welcome.html", guide(actor))


def guide(actor: Actor) -> dict[str, Any]:
    found = steps(actor)
    required = [step for step in found if not step.optional]
    current = next((step for step in found if not step.done), None)
    return {"steps": found, "current": current, "done": sum(step.done for step in required), "of": len(required)}


def on_overview(request: HttpRequest, actor: Actor) -> dict[str, Any]:
    """Nothing, where it was put away. Asked for while no agent is live."""
    if actor.tenant.slug in request.session.get(SESSION_AWAY, ()):
        return {}
    return {"guide": True, **guide(actor)}
