"""Several harmless requests for one tool decided in one step: each shown, each with its own digest, each recorded by itself."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from approvals.models import Approval, ApprovalDecision
from console import approval_facts, argument_rows
from console.api.approvals import find
from runs import signoff
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from .approval_list import Context, headline, may_together
from .approval_seat import Seat
from .session import signed_in

Verdict = ApprovalDecision.Verdict
MOST = 20
HINDERED = {
    "closed": "It was decided, or is no longer needed.", "own_run": "You started its run.", "spoken": "You have approved it.",
    "role": "Your role does not decide it.", "group": "Its group decides it.",
}  # fmt: skip
ALONE = "It has to be decided by itself: it is grave, edited, long, or needs more people."


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET `?id=&id=` shows them, POST `{verdict, reason, item: "<id>:<digest>", ...}` decides each. Nothing is decided by a GET."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method == "POST":
        return decide(request, actor)
    return render(request, "pages/approvals_batch.html", shown(actor, chosen(actor, request.GET.getlist("id"))))


def chosen(actor: Actor, ids: list[str]) -> list[Approval]:
    """Refuses nothing_chosen, too_many, several_tools 422."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        raise Refused("nothing_chosen", "Choose requests in the list first.", 422)
    if len(wanted) > MOST:
        raise Refused("too_many", f"At most {MOST} requests are decided together.", 422)
    found = [find(actor, one) for one in wanted]
    if len({one.tool for one in found}) > 1:
        raise Refused("several_tools", "Only requests for one tool are decided together.", 422)
    return found


def shown(actor: Actor, found: list[Approval]) -> Context:
    seat = Seat(actor)
    schemas = approval_facts.schemas_of(one.tool_version_id for one in found)
    items = [line(seat, one, schemas.get(one.tool_version_id, {})) for one in found]
    return {"items": items, "able": [one for one in items if not one["why_not"]], "tool": found[0].tool}


def line(seat: Seat, found: Approval, schema: Any) -> Context:
    args = json.loads(bytes(found.args))
    return {
        "approval": found,
        "headline": headline(found, found.args, schema),
        "rows": argument_rows.rows(schema, args, args),
        "why_not": why_not(seat, found),
    }


def why_not(seat: Seat, found: Approval) -> str:
    """Why it is not decided here; empty when it can be."""
    if hindered := seat.hindrance(found):
        return HINDERED[hindered]
    return "" if may_together(found, len(found.args)) else ALONE


def decide(request: HttpRequest, actor: Actor) -> HttpResponse:
    said, reason = request.POST, request.POST.get("reason", "").strip()
    digests = dict(one.partition(":")[::2] for one in said.getlist("item"))
    verdict, found = said.get("verdict", ""), chosen(actor, list(digests))
    if verdict == Verdict.REJECT and not reason:
        more = {"error": "Say why you reject. The agent is told."}
        return render(request, "pages/approvals_batch.html", shown(actor, found) | more, status=422)
    results = [result(actor, one, verdict, digests[one.approval_id], reason) for one in found]
    return render(request, "pages/approvals_batch.html", {"results": results, "tool": found[0].tool})


def result(actor: Actor, found: Approval, verdict: str, digest: str, reason: str) -> Context:
    """Decided in a transaction of its own; what is refused stops none of the others."""
    schema = approval_facts.schemas_of([found.tool_version_id]).get(found.tool_version_id, {})
    about = {"approval": found, "headline": headline(found, found.args, schema)}
    if refused := why_not(Seat(actor), found):
        return about | {"refused": refused}
    try:
        decided = signoff.decide(actor, found.id, verdict=verdict, digest=digest, reason=reason, surface="page")
    except NotFound:
        raise
    except Refused as error:
        return about | {"refused": error.message}
    return about | {"state": decided.state}
