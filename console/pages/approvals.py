"""Approvals as pages: the inbox, one request with everything that a person needs to decide it, and the decision.

The detail of a request is rendered whole, arguments included, and posts back the digest of what it showed. Live data may fetch
parts of a page again (`?part=`): the list, the state of a request, its approvers. The decision form is in none of them.
"""

import json
from datetime import timedelta
from typing import Any

from django.db.models import BinaryField, Case, F, Func, IntegerField, Q, QuerySet, When
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from approvals.models import Approval, ApprovalDecision
from approvals.people import least_role
from console import kept, records, sentences
from console.api import paging
from console.api.approvals import find, visible
from runs import signoff
from runs.grants import More
from runs.models import Call
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.models import Member, User
from tenants.roles import ORDER
from tools.models import ToolVersion

from . import budget
from .session import signed_in

State, Verdict = Approval.State, ApprovalDecision.Verdict
Context = dict[str, Any]
SOON = timedelta(minutes=10)
LISTED = 50  # requests in the list
BRIEF = 16 * 1024  # bytes of arguments that a line of the list is made from
LONG = 2000  # bytes of arguments from which on Approve waits until their end was in view
CLAIM = 6000  # characters of the model's own text; the run's page has the rest
EVIDENCE = 40  # calls
WAITING = Q(state=State.PENDING, expires_at__gt=Now())
SAID = json.dumps({"sb:decided": {"topic": "approvals"}})  # other tabs look again
EFFECTS = {
    "read": ("Read", "Changes nothing."),
    "write": ("Write", "Changes something outside."),
    "irreversible": ("Irreversible", "Cannot be undone."),
    "budget": ("Budget", "Raises limits of this run."),
}


@require_safe
@signed_in
def inbox(request: HttpRequest) -> HttpResponse:
    """`?tab=waiting|decided`, `&cursor=` of the decided ones; `?part=list` answers the list alone, `&open=` marks one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    tab = "decided" if request.GET.get("tab") == "decided" else "waiting"
    shown = listing(request, actor, tab)
    if request.GET.get("part") == "list":
        return render(request, "pages/approvals/_list.html", shown | {"open": request.GET.get("open", "")})
    first = shown["items"][0]["approval_id"] if shown["items"] else None
    more = detail(actor, find(actor, first)) if first else {}
    return render(request, "pages/approvals.html", shown | more | {"open": first} | around(request, actor))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def approval(request: HttpRequest, approval_id: str) -> HttpResponse:
    """GET shows (`?confirm=approve|reject` with the confirm step open), POST `{verdict, digest, reason}` decides."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    found = find(actor, approval_id)
    if request.method == "POST":
        return decide(request, actor, found)
    part = request.GET.get("part")
    if part in ("status", "approvers"):
        return render(request, f"pages/approvals/_{part}.html", state_of(actor, found))
    return page(request, actor, found, confirm=request.GET.get("confirm"), reason=request.GET.get("reason", ""))


def page(request: HttpRequest, actor: Actor, found: Approval, status: int = 200, **more: Any) -> HttpResponse:
    """The request's page; for htmx its detail alone."""
    context = detail(actor, found) | more
    if request.headers.get("HX-Request"):
        return render(request, "pages/approvals/_detail.html", context, status=status)
    tab = "decided" if context["ending"] else "waiting"
    context |= listing(request, actor, tab) | {"open": found.approval_id} | around(request, actor)
    return render(request, "pages/approval.html", context, status=status)


# deciding ---------------------------------------------------------------------------------------------------------------------


def decide(request: HttpRequest, actor: Actor, found: Approval) -> HttpResponse:
    verdict, reason = request.POST.get("verdict", ""), request.POST.get("reason", "").strip()
    if not reason and needs_reason(found, verdict) and not hindrance(actor, found):
        error = "Say why you reject. The agent is told." if verdict == Verdict.REJECT else "A high-risk action needs a reason."
        return page(request, actor, found, 422, confirm=verdict, error=error)
    try:
        other = budget.other_amounts(found, request.POST) if verdict == Verdict.APPROVE else None
    except Refused as refused:
        typed = budget.asked(found, request.POST)
        return page(request, actor, found, 422, confirm=verdict, reason=reason, amounts_error=refused.message, **typed)
    try:
        decided = recorded(actor, found, verdict, request.POST.get("digest", ""), reason, other)
    except NotFound:
        raise
    except Refused as refused:
        more = {"confirm": verdict, "error": refused.message} if refused.code == "reason_too_long" else {"notice": refused}
        return page(request, actor, find(actor, found.approval_id), refused.status, reason=reason, **more)
    return onward(request, next_url(actor, decided))


def recorded(actor: Actor, found: Approval, verdict: str, digest: str, reason: str, other: More | None) -> Approval:
    """`other`: amounts that the run did not ask for. What this person was not shown is refused as any other decision is."""
    if other and found.state == State.PENDING and digest == found.digest:
        return signoff.extend(actor, found.run_id, other, reason)
    return signoff.decide(actor, found.id, verdict=verdict, digest=digest, reason=reason)


def onward(request: HttpRequest, url: str) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Redirect": url, "HX-Trigger": SAID})
    return HttpResponse(status=303, headers={"Location": url})


def needs_reason(found: Approval, verdict: str) -> bool:
    return verdict == Verdict.REJECT or (verdict == Verdict.APPROVE and found.risk != "normal")


def next_url(actor: Actor, decided: Approval) -> str:
    """The next request that this person may decide, those of the same step first; the inbox if there is none."""
    waiting = [one for one in lines(actor).filter(WAITING)[:LISTED] if one.pk != decided.pk and not hindrance(actor, one)]
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
    left = found.needed - approved(found) if found.state == State.PENDING else 0
    return {"approval": found, "verdict": mine.verdict, "left": left, "what": headline(found, found.args)}


def hindrance(actor: Actor, found: Approval) -> str:
    """Why this person cannot decide it now: closed, own_run, role, spoken; empty if they can. `runs.signoff` checks again."""
    if found.state != State.PENDING or overdue(found):
        return "closed"
    if found.starter_id == actor.user.pk:
        return "own_run"
    if not (actor.can("approvals:decide") and actor.has_role(least_role(found))):
        return "role"
    return "spoken" if any(one.user_id == actor.user.pk for one in found.decisions.all()) else ""


# the list ---------------------------------------------------------------------------------------------------------------------


def lines(actor: Actor) -> "QuerySet[Approval]":
    """Requests as the list needs them, those that expire first in front; of large arguments nothing is read."""
    rows: QuerySet[Approval] = briefly(visible(actor).select_related("tenant"))
    return rows.order_by("expires_at", "id")


def briefly(rows: Any) -> Any:
    """Rows with `brief`: their arguments if those are short, else None."""
    size = Func(F("args"), function="octet_length", output_field=IntegerField())
    brief = Case(When(size__lte=BRIEF, then=F("args")), output_field=BinaryField())
    return rows.defer("args").annotate(size=size).annotate(brief=brief)


def listing(request: HttpRequest, actor: Actor, tab: str) -> Context:
    found: list[Approval]
    more, count = None, None
    if tab == "decided":
        found, more = paging.page(lines(actor).filter(~WAITING), request.GET, "apr")
    else:
        waiting = lines(actor).filter(WAITING)
        found = list(waiting[: LISTED + 1])
        count = len(found) if len(found) <= LISTED else waiting.count()
    items = [item(actor, one) for one in found[:LISTED]]
    return {"tab": tab, "items": items, "more": more, "count": count}


def item(actor: Actor, found: Approval) -> Context:
    return {
        "approval": found,
        "approval_id": found.approval_id,
        "headline": headline(found, getattr(found, "brief", None)),
        "soon": found.expires_at - timezone.now() < SOON,
        "approved": approved(found),
        "hindrance": hindrance(actor, found),
        "state": State.EXPIRED if overdue(found) else found.state,
    }


def headline(found: Approval, args: bytes | memoryview | None) -> str:
    """For a line of a list. `args` None: they are too large for one."""
    if found.kind == Approval.Kind.BUDGET:
        return budget.headline(found, json.loads(bytes(args)) if args else {})
    return call_headline(found.tool, args)


def call_headline(tool: str, args: bytes | memoryview | None) -> str:
    return sentences.headline(tool, json.loads(bytes(args)) if args else {})


# the detail -------------------------------------------------------------------------------------------------------------------


def detail(actor: Actor, found: Approval) -> Context:
    hindered = hindrance(actor, found)
    return state_of(actor, found) | {
        "run_id": encode("agt", found.run_id),
        "effect": EFFECTS.get(found.effect, (found.effect, "")),
        "starter": User.objects.filter(id=found.starter_id).first() if found.starter_id else None,
        "hindrance": hindered,
        "least": least_role(found),
        "may": who_may(actor, found) if hindered in ("own_run", "role") else [],
        "reason_needed": needs_reason(found, Verdict.APPROVE),
        **before(found),
        **(budget.asked(found) if found.kind == Approval.Kind.BUDGET else call_asked(found)),
    }


def call_asked(found: Approval) -> Context:
    """What would be sent."""
    versions = ToolVersion.objects.filter(id__in=[found.tool_version_id] if found.tool_version_id else [])
    args, raw = json.loads(bytes(found.args)), bytes(found.args)
    return {
        "says": sentences.happens(found.tool, found.effect, args),
        "version": versions.values("number", "sha256", "description").first(),
        "rows": sentences.rows(args),
        "size": len(raw),
        "long": len(raw) > LONG,
        "exact": records.text_of(raw),
        "beside": siblings(found).exclude(ord=found.ord),
    }


def state_of(actor: Actor, found: Approval) -> Context:
    spoken = list(found.decisions.all())
    return {
        "approval": found,
        "approved": approved(found),
        "open_places": range(approved(found) + 1, found.needed + 1) if hindrance(actor, found) != "closed" else (),
        "ending": ending(found),
        "successor": successor(found) if found.state == State.VOID else None,
        "decisions": spoken,
        "me": actor.user,
    }


def ending(found: Approval) -> Context | None:
    """How it came to its end, None while it waits: state, and a sentence in words or by whom and when."""
    what = "nothing {} granted" if found.kind == Approval.Kind.BUDGET else "the call {} not made"
    if found.state == State.PENDING:
        return {"state": State.EXPIRED, "words": f"Nobody decided in time, so {what.format('is')}."} if overdue(found) else None
    if found.state == State.EXPIRED:
        return {"state": found.state, "words": f"Nobody decided in time, so {what.format('was')}.", "at": found.decided_at}
    if found.state == State.VOID:
        return {"state": found.state, "words": f"Nobody needs to decide this any more. {found.void_reason}", "at": found.decided_at}
    last = max(found.decisions.all(), key=lambda one: one.pk, default=None)
    did = "rejected" if found.state == State.REJECTED else "approved"
    return {"state": found.state, "by": last and last.user, "did": did, "at": last.at if last else found.decided_at, "last": last}


def before(found: Approval) -> Context:
    """The calls before this one, as the request names them, and what the model said with it. Empty where retention has been."""
    seen = found.evidence[-EVIDENCE:]
    rows = briefly(Call.objects.filter(run_id=found.run_id, step__in={one["step"] for one in seen}, ord__gt=0).defer("result"))
    calls = {(call.step, call.ord): call for call in (rows if seen else ())}
    evidence = [one | {"call": calls.get((one["step"], one["ord"]))} for one in seen]
    for one in evidence:
        one["what"] = call_headline(one["tool"], one["call"] and one["call"].brief)
    said = Call.objects.filter(run_id=found.run_id, step=found.step, ord=0).values_list("result__text", flat=True).first()
    text = str(said or "").strip()
    return {"evidence": evidence, "earlier": len(found.evidence) - len(seen), "claim": text[:CLAIM], "claim_cut": len(text) > CLAIM}


def siblings(found: Approval) -> "QuerySet[Approval]":
    same = Approval.objects.filter(run_id=found.run_id, step=found.step, kind=found.kind).exclude(pk=found.pk).order_by("ord", "id")
    return same.only("id", "ord", "tool", "state")


def successor(found: Approval) -> Approval | None:
    """The request that took this one's place, because what would be sent had changed."""
    return siblings(found).filter(ord=found.ord, pk__gt=found.pk).last()


def approved(found: Approval) -> int:
    return sum(one.verdict == Verdict.APPROVE for one in found.decisions.all())


def overdue(found: Approval) -> bool:
    return found.state == State.PENDING and found.expires_at <= timezone.now()


def who_may(actor: Actor, found: Approval) -> list[str]:
    """Names of a few people who may decide instead."""
    roles = ORDER[ORDER.index(least_role(found)) :]
    people = Member.objects.filter(tenant_id=found.tenant_id, role__in=roles, user__is_active=True)
    others = people.exclude(user_id__in=[actor.user.pk, found.starter_id or 0])
    return list(others.order_by("user__username").values_list("user__username", flat=True)[:4])
