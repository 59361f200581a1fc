"""One run as a page: what it was asked, what blocks it, what it spent, what it did and what came of it.

`?sel=9.2&tab=raw` selects a step or call, `?part=` answers one region for live data (PARTS) or a whole payload as plain text,
`?ask=cancel` shows the question without JavaScript. POST `act` cancel, retry, carry_out, dismiss, undo or redeliver.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from console import deliveries, run_memory
from console.api import paging
from console.event_text import text, tone
from console.status import look
from console.templatetags.signalbox import plain
from console.tracks import Event
from console.waterfall import Waterfall, reveal
from runs import drafts as kept
from runs import lifecycle
from runs.models import Run
from runs.states import TERMINAL, RunState
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from . import run_callbacks, run_detail, run_facts, run_limits, run_rehearsal, run_undo
from .session import signed_in

MOST = 1_000_000
CHUNK = 200  # rows of the waterfall, and events of the tail, in one go
PARTS = ("head", "answer", "drafts", "undo", "timeline", "rows", "tail", "inspector", "roles", "callbacks", "payload")
Context = dict[str, Any]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    """Another tenant's run, and what is no id, is a page that does not exist."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    run = run_facts.find(actor, run_id)
    if request.method != "POST":
        return show(request, actor, run)
    try:
        return act(request, actor, run)
    except Refused as refused:
        messages.error(request, refused.message)
        return redirect("run", run.run_id)


def act(request: HttpRequest, actor: Actor, run: Run) -> HttpResponse:
    """The same functions as the API's; a refusal becomes a message on the page. Refuses as they do."""
    if request.POST.get("act") == "retry":
        again = lifecycle.retry(actor, run.id)
        messages.success(request, f"Started again as a new run. The first one was {run.run_id}.")
        return redirect("run", again.run_id)
    if request.POST.get("act") in ("carry_out", "dismiss"):
        return decide_draft(request, actor, run)
    if request.POST.get("act") == "undo":
        return run_undo.start(request, actor, run)
    if request.POST.get("act") == "redeliver":
        sent = deliveries.redeliver(actor, request.POST.get("delivery", ""))
        messages.success(request, f"{sent.event} is being sent again.")
    if request.POST.get("act") == "cancel":
        after = lifecycle.cancel(actor, run.id)
        done = after.state in TERMINAL
        messages.info(request, "The run has ended." if done else "The run is asked to stop; the call in progress ends first.")
    return redirect("run", run.run_id)


def decide_draft(request: HttpRequest, actor: Actor, run: Run) -> HttpResponse:
    place, reason = run_detail.parsed(request.POST.get("draft", "")), request.POST.get("reason", "").strip()
    if place is None:
        raise NotFound("draft")
    if request.POST["act"] == "dismiss":
        kept.dismiss(actor, run.id, *place, reason)
        messages.info(request, "Dismissed: nobody will carry this out.")
        return back(request, run)
    made = kept.carry_out(actor, run.id, *place, reason)
    messages.success(request, "This run carries it out, under the permissions and approvals of now.")
    return redirect("run", made.run_id)


def back(request: HttpRequest, run: Run) -> HttpResponse:
    """To the list of drafts if that is where it was decided."""
    return redirect("drafts") if request.POST.get("from") == "drafts" else redirect("run", run.run_id)


def show(request: HttpRequest, actor: Actor, run: Run) -> HttpResponse:
    part = request.GET.get("part", "")
    if part == "payload":
        return payload(run, request.GET.get("of", ""), request.GET.get("sel", ""))
    context: Context = {"run": run, "path": reverse("run", args=[run.run_id]), "over": run.state in TERMINAL, "last": run.seq}
    if part in PARTS:
        context |= BUILDERS[part](request, actor, run)
        return render(request, f"pages/run/_{part}.html", context)
    events = run_facts.events_of(run)
    context |= (
        {"last": events[-1].seq if events else 0}
        | head(request, actor, run)
        | answer(request, actor, run)
        | drafts(request, actor, run)
        | undos(request, actor, run)
        | roles(request, actor, run)
        | tail_of(request, events)
        | asked(run)
        | run_callbacks.of(run, actor)
        | run_memory.of(run, actor)
    )
    context |= drawn(request, run, events)
    context["room"] = room(sum(not row.hidden for row in context["rows"]))
    context["detail"] = run_detail.detail(run, context["selected"], request.GET.get("tab", ""))
    context["ask"] = request.GET.get("ask") if request.GET.get("ask") in ("cancel", "retry") else ""
    context["ask_draft"] = draft_asked(request, context)
    context["ask_undo"] = run_undo.asked(request, context)
    return render(request, "pages/run.html", context)


def draft_asked(request: HttpRequest, context: Context) -> Context | None:
    """The draft that `?ask=carry_out&draft=2.1` is about, for browsers without scripts."""
    verb, key = request.GET.get("ask"), request.GET.get("draft")
    if verb not in ("carry_out", "dismiss") or not context["may_act"]:
        return None
    return next((one | {"verb": verb} for one in context["drafts"] if one["draft"].key == key and one["draft"].decision is None), None)


def head(request: HttpRequest, actor: Actor, run: Run) -> Context:
    now, over, writes = timezone.now(), run.state in TERMINAL, actor.can("runs:write")
    title = run_facts.title_of(run.asked.text)
    return {
        "title": title,
        "window_title": f"{look('run', run.state).label} · {plain(title)}",
        "callouts": run_facts.callouts(run, actor),
        "gauges": run_limits.gauges(run, now),
        "took": (run.ended_at or now) - run.created_at,
        "rehearsed": run_rehearsal.told(run),
        "may_fork": writes and run.asked.action is None,
        "may_make_case": over and actor.platform_admin and actor.can("config:write"),
        "may_cancel": writes and not over and not run.cancel_requested,
        "may_retry": writes and over and run.state != RunState.SUCCEEDED and run.asked.action is None,
    }


def answer(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return {"answer": run_facts.answer_of(run), "degraded": run_limits.degraded(run)}


def drafts(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return run_limits.drafts(run, actor)


def undos(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return run_undo.shown(run, actor)


def roles(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return run_limits.costs(run)


def asked(run: Run) -> Context:
    data = run.asked.data
    return {
        "question": run_facts.text_payload(run.asked.text, "input"),
        "data": None if data is None else run_facts.json_payload(data, "data"),
    }


def drawn(request: HttpRequest, run: Run, events: list[Event]) -> Context:
    """The waterfall: CHUNK rows from the start or around what is asked for by `sel`; `first` and `rows` are what a page has loaded."""
    whole = run_facts.waterfall_of(run, events, timezone.now())
    keys = [row.key for row in whole.rows]
    asked = request.GET.get("sel", "")
    selected = asked if asked in keys and run_detail.parsed(asked) else whole.default
    reveal(whole.rows, selected)
    around = keys.index(asked) if asked in keys and asked == selected and "first" not in request.GET else 0
    first = paging.number(request.GET.get("first"), "first", step_before(whole, around - CHUNK // 4) if around >= CHUNK else 0, 0, MOST)
    count = paging.number(request.GET.get("rows"), "rows", CHUNK, 1, MOST)
    return {"waterfall": whole, "selected": selected, "chosen": asked if asked == selected else "", **part_of(whole, first, first + count)}


def part_of(whole: Waterfall, first: int, end: int) -> Context:
    """Rows with what is left out before (`first`) and after them (`rest`)."""
    return {"rows": whole.rows[first:end], "first": first, "count": max(end - first, 1), "end": end, "rest": max(0, len(whole.rows) - end)}


def step_before(whole: Waterfall, place: int) -> int:
    """Where the step of a row begins: a part never begins inside a step."""
    place = max(place, 0)
    while place and whole.rows[place].level > 1:
        place -= 1
    return place


def room(rows: int) -> str:
    """How high the tree of a live run is made, once: rows come, and what is below it stays where it is."""
    return "short" if rows <= 6 else "middle" if rows <= 10 else "tall"


def timeline(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return drawn(request, run, run_facts.events_of(run))


def more_rows(request: HttpRequest, actor: Actor, run: Run) -> Context:
    """The chunk after `from`, or the one before `to`."""
    context = drawn(request, run, run_facts.events_of(run))
    whole = context["waterfall"]
    if "to" in request.GET:
        end = min(paging.number(request.GET["to"], "to", 0, 0, MOST), len(whole.rows))
        return context | part_of(whole, step_before(whole, end - CHUNK), end) | {"rest": 0}
    start = paging.number(request.GET.get("from"), "from", 0, 0, MOST)
    return context | part_of(whole, start, start + CHUNK) | {"first": 0}


def tail(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return tail_of(request, run_facts.events_of(run))


def tail_of(request: HttpRequest, events: list[Event]) -> Context:
    """The last events, or the last before `before`."""
    before = paging.number(request.GET.get("before"), "before", 0, 0, 2**62)
    kept = [event for event in events if not before or event.seq < before]
    shown = kept[-CHUNK:]
    began = events[0].at if events else None
    lines = [
        {
            "seq": event.seq,
            "at": offset((event.at - began).total_seconds() if began else 0.0),
            "kind": event.kind,
            "text": text(event.kind, event.payload),
            "tone": tone(event.kind, event.payload),
        }
        for event in shown
    ]
    return {"lines": lines, "earlier": len(kept) - len(shown), "oldest": shown[0].seq if shown else 0, "before": before, "began": began}


def offset(seconds: float) -> str:
    """As the live rows have it: +03:12.4."""
    return f"+{int(seconds // 60):02d}:{seconds % 60:04.1f}"


def inspector(request: HttpRequest, actor: Actor, run: Run) -> Context:
    asked = request.GET.get("sel", "")
    found = run_detail.detail(run, asked, request.GET.get("tab", ""))
    if found is None:
        selected = run_facts.waterfall_of(run, run_facts.events_of(run), timezone.now()).default
        found = run_detail.detail(run, selected, request.GET.get("tab", ""))
        asked = ""
    return {"detail": found, "chosen": asked, "may_fork": actor.can("runs:write") and run.asked.action is None}


def callbacks(request: HttpRequest, actor: Actor, run: Run) -> Context:
    return run_callbacks.of(run, actor)


def payload(run: Run, of: str, selection: str) -> HttpResponse:
    """Plain text: a browser shows it and runs nothing in it."""
    whole = run_detail.whole(run, of, selection)
    if whole is None:
        raise NotFound("payload")
    response = HttpResponse(whole.encode(errors="replace"), content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "private, no-store"
    return response


BUILDERS = {
    "head": head,
    "answer": answer,
    "drafts": drafts,
    "undo": undos,
    "roles": roles,
    "timeline": timeline,
    "rows": more_rows,
    "tail": tail,
    "inspector": inspector,
    "callbacks": callbacks,
}
