"""A person's word on a breaker, from the page of a model or a tool: a confirm step, a reason, and back to where one came from."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from console.model_facts import state_of
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools import breakers
from tools.models import Breaker

from .session import signed_in

JSON = dict[str, Any]
WORDS = {  # action -> (button, what it means, what it says when it is done)
    "open": (
        "Force open",
        "No call is sent there until somebody resets it. Runs wait, or take another model, until their deadline.",
        "held open",
    ),
    "close": ("Force closed", "Calls are sent there whatever comes back, until somebody resets it.", "held closed"),
    "reset": ("Reset", "It is closed now, and opens again by itself when half of at least 20 sends fail.", "reset"),
}
ICONS = {"open": "zap-off", "close": "play", "reset": "rotate-ccw"}
ORDER = ("held_open", "open", "half_open", "held_closed", "closed")


def worst(held: list[Breaker]) -> JSON:
    """Of the breakers of one host: the state that people should see, and of which tenant it is."""
    states = sorted(((ORDER.index(state_of(each)), each) for each in held), key=lambda pair: pair[0])
    if not states:
        return {"state": "closed", "breaker": None, "others": 0}
    return {"state": ORDER[states[0][0]], "breaker": states[0][1], "others": len(states) - 1}


def of_host(actor: Actor, host: str, held: list[Breaker], back: str) -> JSON:
    """The section of breakers on the page of a model or a tool. The tenant's own is there also while it has no row yet."""
    rows = held if any(each.tenant_id == actor.tenant.id for each in held) else [unsaved(actor.tenant, host), *held]
    return {"host": host, "breakers": [said(actor, each) for each in rows] if host else [], "back": back}


def unsaved(tenant: Tenant, host: str) -> Breaker:
    return Breaker(tenant=tenant, host_port=host)


def said(actor: Actor, breaker: Breaker) -> JSON:
    may = breakers.may_force(actor, breaker.tenant)
    unneeded = {"open": breaker.forced == "open", "close": breaker.forced == "closed", "reset": state_of(breaker) == "closed"}
    return {
        "row": breaker,
        "state": state_of(breaker),
        "probe_at": breaker.probe_at if breaker.probe_at and breaker.probe_at > timezone.now() else None,
        "key": f"{breaker.tenant.slug}-{breaker.pk or 'new'}",
        "actions": [action(name) for name in WORDS if may and not unneeded[name]],
    }


def action(name: str) -> JSON:
    verb, meaning, _ = WORDS[name]
    return {"name": name, "verb": verb, "meaning": meaning, "icon": ICONS[name]}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def force(request: HttpRequest) -> HttpResponse:
    """GET `?host=&tenant=&action=&next=` is the confirm step, POST with a `reason` moves it."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    asked = request.POST if request.method == "POST" else request.GET
    host, name, back = asked.get("host", ""), asked.get("action", ""), asked.get("next", "")
    tenant = Tenant.objects.filter(slug=asked.get("tenant", "")).first()
    if tenant is None or not actor.sees(tenant.id) or name not in WORDS or breakers.host_port(f"http://{host}") != host:
        raise NotFound("breaker")
    back = back if url_has_allowed_host_and_scheme(back, allowed_hosts=None) else reverse("models")
    context = {"host": host, "slug": tenant.slug, "back": back, "reason": asked.get("reason", ""), **action(name)}
    if request.method != "POST":
        return render(request, "pages/breaker.html", context)
    try:
        breaker = breakers.of(actor, host, tenant)
        breakers.force(actor, breaker.pk, name, context["reason"])
    except Refused as refused:
        return render(request, "pages/breaker.html", context | {"error": refused.message}, status=refused.status)
    messages.success(request, f"The breaker of {host} for {tenant.slug} is {WORDS[name][2]}.")
    return HttpResponse(status=303, headers={"Location": back})
