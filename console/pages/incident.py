"""One incident: its evidence, its runbook as steps that can be carried out, what it touched, and one log of people and the machine.

`?part=head|runbook|side|runs` answers a part alone. Forms are no part of what live data fetches again, but for the ticks, which hold
nothing that could be lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from console.incidents import actions, book, figure
from console.incidents.kinds import spelled
from console.models import Detector, Incident, IncidentEntry, RunbookVersion
from console.runbooks import shelf
from console.runbooks.reading import Book, Step
from runs.history import MOVED, hint
from runs.models import Run
from runs.states import TERMINAL
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from .incidents import about
from .runs import failure, seconds
from .session import signed_in

JSON = dict[str, Any]
PARTS = ("head", "runbook", "side", "runs")
RUNS = 20
CHANGES = 8
ICONS = {
    "opened": "siren", "acknowledged": "hand", "assigned": "user", "note": "message-square-plus", "action": "wrench",
    "step_ticked": "check", "value": "trending-up", "changed": "pencil", "resolved": "circle-check", "reopened": "rotate-ccw",
}  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, incident_id: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(book.READ)
    incident = book.find(actor, incident_id)
    if request.method == "POST":
        return act(request, actor, incident)
    part = request.GET.get("part", "")
    if part in PARTS:
        return render(request, f"pages/incident/_{part}.html", MADE[part](actor, incident) | common(actor, incident))
    return show(request, actor, incident)


def show(request: HttpRequest, actor: Actor, incident: Incident, status: int = 200, **more: Any) -> HttpResponse:
    context = common(actor, incident) | evidence(incident)
    for made in MADE.values():
        context |= made(actor, incident)
    return render(request, "pages/incident.html", context | more, status=status)


def common(actor: Actor, incident: Incident) -> JSON:
    return {"incident": incident, "id": str(incident), "url": reverse("incident", args=[str(incident)]), "may": actor.can(book.WRITE)}


# parts ------------------------------------------------------------------------------------------------------------------------


def head(actor: Actor, incident: Incident) -> JSON:
    ids = actions.run_ids(incident)
    live = Run.objects.filter(pk__in=ids).exclude(state__in=TERMINAL).count() if ids else 0
    first = incident.entries.filter(kind=IncidentEntry.Kind.OPENED).order_by("id").first()
    return {
        "about": about(incident),
        "hit": len(ids),
        "live": live,
        "sentence": first.text if first else "",
        "detector": Detector.objects.filter(name=incident.detector).first() if incident.detector else None,
        "people": list(book.people(incident)) if actor.can(book.WRITE) and incident.live else [],
        "now_value": value_words(incident, last_value(incident)) if incident.live else "",
    }


def last_value(incident: Incident) -> float | None:
    """As its detector saw it last: at its opening, or since."""
    held = incident.evidence
    seen = [point["value"] for point in held.get("since") or () if point["value"] is not None]
    value: float | None = seen[-1] if seen else (held.get("window") or {}).get("value")
    return value


def value_words(incident: Incident, value: float | None) -> str:
    return spelled(value, str(incident.evidence.get("unit", ""))) if value is not None else ""


def evidence(incident: Incident) -> JSON:
    held = incident.evidence
    drawn, changes = figure.of(held), (held.get("changes") or ())[:CHANGES]
    return {
        "figure": drawn,
        "metric": held.get("metric", ""),
        "spoken": figure.spoken(held, drawn) if drawn else "",
        "threshold": value_words(incident, held.get("threshold")),
        "value": value_words(incident, last_value(incident)),
        "first_value": value_words(incident, (held.get("window") or {}).get("value")) if held.get("since") else "",
        "changes": [{**each, "words": figure.words(each), "clock": str(each["at"])[11:16]} for each in changes],
    }


def runbook(actor: Actor, incident: Incident) -> JSON:
    version, read = pinned(incident)
    if read is None:
        return {"version": version, "sections": [], "steps": 0, "done": 0}
    known, ticked = actions.facts(incident), book.ticked(incident)
    current = next((step.number for step in read.steps if str(step.number) not in ticked), 0)

    def line(step: Step) -> JSON:
        offered = actions.of_step(actor, incident, known, step.number, step.offers)
        return {"step": step, "tick": ticked.get(str(step.number)), "current": step.number == current, "offers": offered}

    sections = [{"title": section.title, "lines": [line(step) for step in section.steps]} for section in read.sections]
    return {
        "version": version,
        "sections": [section for section in sections if section["lines"]],
        "steps": len(read.steps),
        "done": sum(str(step.number) in ticked for step in read.steps),
    }


def pinned(incident: Incident) -> tuple[RunbookVersion | None, Book | None]:
    version = shelf.version(incident.runbook, incident.runbook_version) if incident.runbook else None
    return version, shelf.read(version) if version else None


def side(actor: Actor, incident: Incident) -> JSON:
    _, read = pinned(incident)
    offers = tuple(offer for step in read.steps for offer in step.offers) if read else ()
    entries = list(incident.entries.select_related("actor").order_by("id"))
    standing = actions.standing(incident, entries)
    log = [entry_line(incident, entry, entry.pk in standing) for entry in entries]
    return {"offers": actions.of_card(actor, incident, actions.facts(incident), offers), "log": log}


def entry_line(incident: Incident, entry: IncidentEntry, stands: bool) -> JSON:
    return {"entry": entry, "icon": ICONS.get(entry.kind, "circle-dashed"), "words": entry_words(incident, entry), "stands": stands}


def entry_words(incident: Incident, entry: IncidentEntry) -> str:
    """What happened, after the name of who did it."""
    data = entry.data
    words = {
        "opened": "opened it",
        "acknowledged": "acknowledged it",
        "assigned": f"assigned it to {data.get('to')}" if data.get("to") else "took it from its owner",
        "note": "wrote",
        "action": "took back" if "takes_back" in data else "did",
        "step_ticked": f"{'did' if data.get('done') else 'opened again'} step {data.get('step')}",
        "value": f"saw it worsen to {value_words(incident, data.get('value'))}",
        "changed": f"changed {data.get('field')} from {data.get('before')} to {data.get('after')}",
        "resolved": "resolved it",
        "reopened": "reopened it",
    }
    return words.get(entry.kind, entry.kind)


def touched(actor: Actor, incident: Incident) -> JSON:
    ids = actions.run_ids(incident)
    rows, now = list(Run.objects.filter(pk__in=ids).select_related("release").order_by("-id")[:RUNS]), timezone.now()
    lines = [{"run": run, "failure": failure(run), "took_s": seconds(run, now)} for run in rows]
    undo = actions.offered_if(actor, incident, "undo_writes")
    return {"affected": lines, "affected_number": len(ids), "undo": undo}


MADE: dict[str, Callable[[Actor, Incident], JSON]] = {"head": head, "runbook": runbook, "side": side, "runs": touched}


# doing ------------------------------------------------------------------------------------------------------------------------


def act(request: HttpRequest, actor: Actor, incident: Incident) -> HttpResponse:
    """POST `act`: one of ACTS. A refusal of what was typed is shown on the page with what was typed."""
    name = request.POST.get("act", "")
    if name not in ACTS:
        raise NotFound("act")
    try:
        said = ACTS[name](actor, incident, request)
    except Refused as refused:
        if refused.status not in (409, 422):
            raise
        fresh, typed = book.find(actor, str(incident)), request.POST.get("text", "")
        return show(request, actor, fresh, refused.status, refused=refused.message, refused_act=name, typed=typed)
    hint(MOVED)
    if name == "tick" and request.headers.get("HX-Request"):  # the box keeps the focus, so live data would wait
        answer = render(request, "pages/incident/_runbook.html", runbook(actor, incident) | common(actor, incident))
        answer.headers["HX-Trigger"] = json.dumps({"sb:decided": {"topic": "incidents"}})
        return answer
    if said:
        messages.success(request, said)
    return redirect("incident", str(incident))


def text(request: HttpRequest) -> str:
    return request.POST.get("text", "").replace("\r\n", "\n")


def acknowledge(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    book.acknowledge(actor, incident)
    return "Acknowledged: it is yours." if incident.owner is None else "Acknowledged."


def assign(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    owner = request.POST.get("owner", "")
    book.assign(actor, incident, owner)
    return f"Assigned to {owner}." if owner else "Assigned to nobody."


def note(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    book.note(actor, incident, text(request))
    return ""


def resolve(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    book.resolve(actor, incident, text(request))
    return "Resolved."


def reopen(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    book.reopen(actor, incident, text(request))
    return "Open again."


def tick(actor: Actor, incident: Incident, request: HttpRequest) -> str:
    """A box that is not checked is not sent, so `done` says it."""
    step = request.POST.get("step", "")
    _, read = pinned(incident)
    if read is None or step not in {str(each.number) for each in read.steps}:
        raise NotFound("step")
    book.tick(actor, incident, step, request.POST.get("done") == "1")
    return ""


ACTS: dict[str, Callable[[Actor, Incident, HttpRequest], str]] = {
    "acknowledge": acknowledge,
    "assign": assign,
    "note": note,
    "resolve": resolve,
    "reopen": reopen,
    "tick": tick,
}
