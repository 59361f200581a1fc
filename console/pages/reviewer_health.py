"""Whether people read what they approve, as a page; and decisions that broke the glass, for an admin to look at."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from approvals import reviews
from approvals.health import Line
from console import reviewers
from console.api.approvals import find
from console.api.approvers import review_record
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.roles import Role

from .session import signed_in

LISTED = 20
CURES = {"never_rejected": "list-checks", "often_rejected": "trending-down", "unanswered": "clock", "too_quick": "timer"}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """POST `{approval, note}`: a decision that broke the glass was looked at."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("approvals:read")
    status, more = 200, dict[str, Any]()
    if request.method == "POST":
        wanted = request.POST.get("approval", "")
        try:
            reviews.reviewed(actor, find(actor, wanted), request.POST.get("note", ""))
        except NotFound:
            raise
        except Refused as refused:
            status, more = refused.status, {"error": refused.message, "error_of": wanted}
        else:
            messages.success(request, "Noted: you have looked at it.")
            return redirect("reviewer-health")
    return render(request, "pages/reviewer_health.html", context(actor) | more, status=status)


def context(actor: Actor) -> dict[str, Any]:
    found = reviewers.look(actor)
    admin = actor.has_role(Role.ADMIN)
    glass = list(reviews.visible(actor)[:LISTED])
    return {
        "days": reviewers.DAYS, "decided": found.decided, "expired": found.expired, "admin": admin,
        "findings": [{"icon": CURES[one.code], "text": one.text, "of_tool": one.code != "too_quick"} for one in found.findings],
        "tools": [bars(line) for line in found.tools], "people": [bars(line) for line in found.people],
        "glass": [review_record(one) | {"open": one.reviewed_at is None, "when": one} for one in glass],
        "may_review": admin and actor.can("approvals:decide"), "me": actor.user.username,
    }  # fmt: skip


def bars(line: Line) -> dict[str, Any]:
    rate = line.rejection_rate
    return {"line": line, "rejected": None if rate is None else f"{rate:.0%}", "width": f"{100 * (rate or 0):.1f}%"}
