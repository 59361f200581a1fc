"""Recommended actions as a page: calls that were kept for a person instead of sent. Deciding about one is a POST to its run's page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from console import kept
from tenants.actors import Actor

from . import run_limits
from .session import signed_in

LISTED = 25


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?state=all` shows those that were decided too; `?cursor=` the older ones."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    everything = request.GET.get("state") == "all"
    found, more = kept.seen_by(actor, waiting=not everything, before=request.GET.get("cursor", ""), limit=LISTED)
    context = {
        "tab": "drafts",
        "items": [run_limits.shown(draft) for draft in found],
        "more": more,
        "everything": everything,
        "drafts_open": kept.waiting(actor),
        "may_act": actor.can("runs:write"),
        "listed": True,
    }
    return render(request, "pages/drafts.html", context)
