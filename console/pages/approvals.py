"""Approvals as pages: the inbox, one request with everything that a person needs to decide it, and the decision.

The detail of a request is rendered whole, arguments included, and posts back the digest of what it showed. Live data may fetch
parts of a page again (`?part=`): the list, the state of a request, its approvers. The decision form is in none of them.
"""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from approvals.models import Approval
from console import approval_facts, kept
from console.api.approvals import find
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from . import approval_deciding as deciding
from .approval_detail import detail, editing, state_of
from .approval_list import LISTED, WAITING, Context, headline, lines, listing
from .approval_seat import Seat, approved, needed
from .session import signed_in, to_sign_in

SAID = json.dumps({"sb:decided": {"topic": "approvals"}})  # other tabs look again


@require_safe
@signed_in
def inbox(request: HttpRequest) -> HttpResponse:
    """`?tab=waiting|decided`, `&cursor=` of the decided ones; `?part=list` answers the list alone, `&open=` marks one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    seat, tab = Seat(actor), "decided" if request.GET.get("tab") == "decided" else "waiting"
    shown = listing(request, seat, tab)
    if request.GET.get("part") == "list":
        return render(request, "pages/approvals/_list.html", shown | {"open": request.GET.get("open", "")})
    first = shown["items"][0]["approval_id"] if shown["items"] else None
    more = detail(request, seat, find(actor, first)) if first else {}
    return render(request, "pages/approvals.html", shown | more | {"open": first} | around(request, actor))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def approval(request: HttpRequest, approval_id: str) -> HttpResponse:
    """GET shows (`?confirm=approve|reject|break` with that confirm step open, `?edit=1` with the arguments as a form), POST decides."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    seat, found = Seat(actor), find(actor, approval_id)
    if request.method == "POST":
        return posted(request, seat, found)
    part = request.GET.get("part")
    if part in ("status", "approvers"):
        return render(request, f"pages/approvals/_{part}.html", state_of(seat, found))
    more = editing(found) if "edit" in request.GET and seat.may_edit(found) else {"confirm": request.GET.get("confirm")}
    return page(request, seat, found, reason=request.GET.get("reason", ""), **more)


def page(request: HttpRequest, seat: Seat, found: Approval, status: int = 200, **more: Any) -> HttpResponse:
    """The request's page; for htmx its detail alone."""
    context = detail(request, seat, found) | more
    if request.headers.get("HX-Request"):
        return render(request, "pages/approvals/_detail.html", context, status=status)
    tab = "decided" if context["ending"] else "waiting"
    context |= listing(request, seat, tab) | {"open": found.approval_id} | around(request, seat.actor)
    return render(request, "pages/approval.html", context, status=status)


def posted(request: HttpRequest, seat: Seat, found: Approval) -> HttpResponse:
    edits = "edit" in request.POST
    try:
        decided = (deciding.edit if edits else deciding.decide)(request, seat, found)
    except deciding.Wrong as wrong:
        return again(request, seat.actor, found, wrong)
    except Refused as refused:
        if refused.code == "signed_out":
            return to_sign_in(request)
        raise
    if edits:
        return onward(request, reverse("approval", args=[decided.approval_id]))
    return onward(request, next_url(seat, decided))


def again(request: HttpRequest, actor: Actor, found: Approval, wrong: deciding.Wrong) -> HttpResponse:
    """The page as it is now, with what was typed."""
    seat, now, more = Seat(actor), find(actor, found.approval_id), dict(wrong.more)
    typed, told = more.pop("typed", None), more.pop("told", None)
    if typed is not None and seat.may_edit(now):
        more |= editing(now, typed, told)
    return page(request, seat, now, wrong.status, **more)


def onward(request: HttpRequest, url: str) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Redirect": url, "HX-Trigger": SAID})
    return HttpResponse(status=303, headers={"Location": url})


def next_url(seat: Seat, decided: Approval) -> str:
    """The next request that this person may decide, those of the same step first; the inbox if there is none."""
    rows = lines(seat.actor).filter(WAITING)[:LISTED]
    waiting = [one for one in rows if one.pk != decided.pk and not seat.hindrance(one)]
    waiting.sort(key=lambda one: (one.run_id, one.step) != (decided.run_id, decided.step))
    url = reverse("approval", args=[waiting[0].approval_id]) if waiting else reverse("approvals")
    return f"{url}?{urlencode({'decided': decided.approval_id})}"


def around(request: HttpRequest, actor: Actor) -> Context:
    """What only a whole page needs."""
    return {"done": done(request, actor), "drafts_open": kept.waiting(actor)}


def done(request: HttpRequest, actor: Actor) -> Context | None:
    """What this person has just decided, for the toast."""
    try:
        found = find(actor, request.GET.get("decided", ""))
    except NotFound:
        return None
    mine = next((one for one in found.decisions.all() if one.user_id == actor.user.pk), None)
    if mine is None:
        return None
    left = needed(found) - approved(found) if found.state == Approval.State.PENDING else 0
    schema = approval_facts.schemas_of([found.tool_version_id]).get(found.tool_version_id, {})
    return {"approval": found, "verdict": mine.verdict, "left": left, "what": headline(found, found.args, schema)}
