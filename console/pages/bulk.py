"""Many runs cancelled or retried together: the list as it was frozen (nothing is done yet), then what became of each.

`?part=progress` is what an open page fetches again. POST `act` start or stop; what is refused says so where it was asked.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from console import backtests, bulk_words, bulks, tables
from console.api import paging
from console.api import runs as api
from console.models import Bulk, BulkItem
from runs.models import Run
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode

from .run_facts import title_of
from .session import elsewhere, signed_in

Context = dict[str, Any]
SHOWN = 100  # runs of a page
COLUMNS = ("run_id", "was", "outcome", "words", "new_run_id", "at")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET: who did what lately. POST `{act, run: [ids]}` freezes the list and shows it; `act` compare goes there with two."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method == "POST":
        return chosen(request, actor)
    actor.need("runs:read")
    found, older = paging.page(bulks.visible(actor), request.GET, "blk")
    rows = [
        {"made": one, "title": bulk_words.headline(one.act, one.total), "look": bulk_words.look_of(one.state, one.held_up)} for one in found
    ]
    return render(request, "pages/bulk/list.html", {"rows": rows, "older_url": f"?cursor={older}" if older else ""})


def chosen(request: HttpRequest, actor: Actor) -> HttpResponse:
    act, ids = request.POST.get("act", ""), request.POST.getlist("run")
    if act == "compare":
        return elsewhere(request, f"{reverse('compare-runs')}?{urlencode([('run', one) for one in ids[:2]])}")
    try:
        made = bulks.draft_of(actor, act, ids)
    except Refused as refused:
        if not request.headers.get("HX-Request"):
            raise
        return render(request, "pages/bulk/_refused.html", {"refused": refused.message}, status=422)
    if request.headers.get("HX-Request"):
        return render(request, "pages/bulk/_ask.html", asking(actor, made, request) | {"dialog": True})
    return HttpResponseRedirect(reverse("bulk", args=[made]))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, bulk_id: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:write" if request.method == "POST" else "runs:read")
    found = bulks.find(actor, bulk_id)
    if request.method == "POST" and request.POST.get("act") == "stop":
        stopped = bulks.stop(actor, found)
        messages.info(request, "Stopped: the rest was left alone." if stopped else "It was over already.")
    elif request.method == "POST":
        if refused := confirmed(request, actor, found):
            return show_draft(request, actor, found, refused)
    else:
        return show_draft(request, actor, found, {}) if found.state == Bulk.State.DRAFT else result(request, actor, found)
    return elsewhere(request, reverse("bulk", args=[found]))


def confirmed(request: HttpRequest, actor: Actor, found: Bulk) -> Context:
    """Start it. What is returned says why not; a second start is no fault."""
    if found.state != Bulk.State.DRAFT:
        return {}
    goes, said = bulks.left(found).count(), request.POST
    kept = {"reason": said.get("reason", "")}
    if goes > bulk_words.TYPED_ABOVE and said.get("typed", "").strip().replace(",", "") != str(goes):
        return kept | {"field": "typed", "refused": f"Type {goes}, the number of runs, to confirm."}
    try:
        bulks.start(actor, found, said.get("reason", ""))
    except Refused as refused:
        if refused.status != 422:
            raise
        return kept | {"field": "reason", "refused": refused.message}
    return {}


def show_draft(request: HttpRequest, actor: Actor, found: Bulk, more: Context) -> HttpResponse:
    actor.need("runs:write")
    dialog = bool(request.headers.get("HX-Request"))
    context = asking(actor, found, request) | more | {"dialog": dialog}
    template = "pages/bulk/_ask.html" if dialog else "pages/bulk/ask.html"
    return render(request, template, context, status=422 if more else 200)


def asking(actor: Actor, found: Bulk, request: HttpRequest) -> Context:
    goes = bulks.left(found).count()
    path = reverse("bulk", args=[found])
    return listed(actor, found, request.GET) | {
        "made": found, "path": path, "goes": goes, "stays": found.total - goes, "title": bulk_words.headline(found.act, goes),
        "keep": bulk_words.KEEP[found.act], "typed": goes > bulk_words.TYPED_ABOVE,
    }  # fmt: skip


def result(request: HttpRequest, actor: Actor, found: Bulk) -> HttpResponse:
    counts, path = bulks.tally(found), reverse("bulk", args=[found])
    outcome = request.GET.get("outcome", "") if request.GET.get("outcome") in counts else ""
    acted = found.total - counts["waiting"]
    context = listed(actor, found, request.GET, outcome) | {
        "made": found, "path": path, "title": bulk_words.headline(found.act, found.total), "open": found.state == Bulk.State.RUNNING,
        "look": bulk_words.look_of(found.state, found.held_up), "acted": acted, "percent": 100 * acted // max(found.total, 1),
        "counts": [{"mark": bulk_words.mark(found.act, name), "number": n, "url": f"{path}?outcome={name}", "current": name == outcome}
                   for name, n in counts.items() if n or name in ("done", "could_not")],
        "outcome": outcome, "may_stop": actor.can("runs:write"), "no_jobs": not backtests.jobs_run(),
    }  # fmt: skip
    part = "_progress" if request.GET.get("part") == "progress" else "result"
    return render(request, f"pages/bulk/{part}.html", context)


def listed(actor: Actor, found: Bulk, given: Any, outcome: str = "") -> Context:
    """One page of the list, in the order of the runs. What the actor may not see, or is deleted, is its id alone."""
    rows = found.items.filter(outcome=outcome) if outcome else found.items
    if after := given.get("after"):
        rows = rows.filter(run_id__gt=paging.typed_id("agt", after, "after"))
    items = list(rows.order_by("run_id")[: SHOWN + 1])
    here, path = items[:SHOWN], reverse("bulk", args=[found])
    runs = {run.id: run for run in light(actor, [item.run_id for item in here])}
    kept = {"outcome": outcome} if outcome else {}
    return {
        "items": [line(found, item, runs.get(item.run_id)) for item in here],
        "after": after or "",
        "more_url": f"{path}?{urlencode(kept | {'after': str(here[-1])})}" if len(items) > SHOWN else "",
        "first_url": f"{path}?{urlencode(kept)}" if after else "",
    }


def light(actor: Actor, ids: list[Any]) -> Any:
    rows = api.visible(actor).filter(id__in=ids).select_related(None).only("id", "state", "agent_id")
    return rows.annotate(asked_text=Left("asked__text", 400))


def line(found: Bulk, item: BulkItem, run: Run | None) -> Context:
    return {
        "item": item, "run_id": str(item), "run": run, "title": title_of(run.asked_text or "") if run else "No such run",  # type: ignore[attr-defined]
        "mark": bulk_words.mark(found.act, item.outcome), "made": encode("agt", item.made_id) if item.made_id else "",
    }  # fmt: skip


@require_safe
@signed_in
def file(request: HttpRequest, bulk_id: str) -> HttpResponse:
    """The whole list as CSV."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    found = bulks.find(actor, bulk_id)
    rows = (
        {"run_id": str(item), "was": item.was, "outcome": item.outcome, "words": item.words,
         "new_run_id": encode("agt", item.made_id) if item.made_id else "", "at": item.at.isoformat() if item.at else ""}
        for item in found.items.order_by("run_id").iterator(chunk_size=1000)
    )  # fmt: skip
    answer = HttpResponse(tables.csv(COLUMNS, rows), content_type=tables.MEDIA["csv"])
    answer["Content-Disposition"] = tables.attachment(f"{found}.csv")
    answer["Cache-Control"] = "private, no-store"
    return answer
