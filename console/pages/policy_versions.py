"""Versions of the policy as a page: who changed what and why, two of them compared, and the way back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from console.policy_words import plain
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tenants.roles import Role
from tools import proposals, versions
from tools.models import PolicyVersion
from tools.policy_diff import Difference, diff

from .matrix import EVERY
from .session import signed_in

JSON = dict[str, Any]
LISTED = 50
NOTHING: JSON = {"permissions": [], "rules": []}
WORDS = {"added": ("plus", "Added"), "removed": ("minus", "Removed"), "changed": ("pencil", "Changed")}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?tenant=&from=&to=` compares two; `to` alone: with the one before it. POST `{number, reason}` goes back to one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    said = request.POST if request.method == "POST" else request.GET
    slug = {"": actor.tenant.slug, EVERY: None}.get(said.get("tenant", ""), said.get("tenant", ""))
    scope = proposals.scope_of(actor, slug)
    if request.method != "POST":
        return show(request, actor, scope)
    try:
        actor.need("config:write")
        made = versions.roll_back(actor, scope, number_of(said.get("number", "")), said.get("reason", ""))
    except NotFound:
        raise
    except Refused as refused:
        return show(request, actor, scope, refused.status, reason_error=refused.message, chosen=said.get("number", ""))
    messages.success(request, f"The policy is what it was in version {said['number']}: this is version {made.number}.")
    return HttpResponse(status=303, headers={"Location": f"{reverse('policy-versions')}?{urlencode({'tenant': slug or EVERY})}"})


def number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFound("policy version")
    return int(text)


def show(request: HttpRequest, actor: Actor, scope: Tenant | None, status: int = 200, chosen: str = "", **more: Any) -> HttpResponse:
    found = list(PolicyVersion.objects.filter(tenant=scope).order_by("-number")[: LISTED + 1])
    before = {later.number: earlier.document for later, earlier in pairwise(found)}
    listed = [{"version": each, "changes": counts(diff(before.get(each.number, NOTHING), each.document))} for each in found[:LISTED]]
    tenants = list(Tenant.objects.order_by("slug")) if actor.platform_admin else [actor.tenant]
    switch = [{"slug": each.slug, "label": each.slug, "on": each == scope} for each in tenants]
    context = {
        "versions": listed,
        "scope": scope,
        "query": scope.slug if scope else EVERY,
        "switch": [*switch, {"slug": EVERY, "label": "every tenant", "on": scope is None}],
        "may": actor.can("config:write") and (actor.platform_admin or (scope == actor.tenant and actor.has_role(Role.ADMIN))),
        "current": found[0].number if found else 0,
    }
    return render(request, "pages/policy/versions.html", context | compared(request, scope, chosen) | more, status=status)


def counts(changes: list[Difference]) -> str:
    """`2 added, 1 changed`."""
    tally = {action: sum(each.action == action for each in changes) for action in WORDS}
    return ", ".join(f"{number} {action}" for action, number in tally.items() if number) or "nothing"


def compared(request: HttpRequest, scope: Tenant | None, chosen: str) -> JSON:
    """The two that are compared; none where `to` is not given."""
    to = chosen or request.GET.get("to", "")
    if not to:
        return {}
    later = PolicyVersion.objects.filter(tenant=scope, number=number_of(to)).first()
    if later is None:
        raise NotFound("policy version")
    since = request.GET.get("from", "")
    number = number_of(since) if since else later.number - 1
    earlier = PolicyVersion.objects.filter(tenant=scope, number=number).first()
    if earlier is None and number:
        raise NotFound("policy version")
    changes = diff(earlier.document if earlier else NOTHING, later.document)
    shown = [
        {"change": each, "fields": plain(each.fields), "icon": WORDS[each.action][0], "word": WORDS[each.action][1]} for each in changes
    ]
    return {"later": later, "earlier": number, "changes": shown, "counted": counts(changes)}
