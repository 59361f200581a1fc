"""Memory as pages: what agents keep between runs, who used it, correcting it, and deleting it with a receipt.

A sensitive value is shown by a POST alone, and only in its answer: each view is audited, and no address shows it again.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from console.api import paging
from console.run_memory import line
from runs import memory, memory_people
from runs.models import MemoryItem
from tenants.actors import Actor
from tenants.errors import Refused

from .run_facts import json_payload
from .session import signed_in

Context = dict[str, Any]
KINDS = {"session": "Session", "reference": "Reference"}
SCOPES = ("agent", "subject", "session")
FIELDS = {"bad_value": "value", "bad_json": "value", "reason_missing": "reason"}


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?q=` and the scopes narrow it; `?cursor=` shows older ones."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    query = {name: request.GET[name].strip() for name in ("q", "kind", *SCOPES) if request.GET.get(name, "").strip()}
    kind = query.get("kind", "") if query.get("kind") in KINDS else ""
    rows = memory_people.search(actor, text=query.get("q", ""), kind=kind, **{name: query.get(name, "") for name in SCOPES})
    found, more = paging.page(rows, request.GET, "mem")
    runs = memory.used_by(row.id for row in found)
    path = reverse("memory")
    context = {
        "items": [{"row": row, "runs": runs.get(row.id, 0), "text": line(row)} for row in found],
        "kinds": [{"word": word, "url": f"{path}?{urlencode(without(query, 'kind') | each)}", "current": kind == each.get("kind", "")}
                  for word, each in (("All", {}), *((word, {"kind": name}) for name, word in KINDS.items()))],
        "query": query, "scopes": [(name, query.get(name, "")) for name in SCOPES], "kind": kind,
        "older": f"{path}?{urlencode(query | {'cursor': more})}" if more else "",
        "may_forget": actor.can(memory_people.WRITE),
    }  # fmt: skip
    return render(request, "pages/memory.html", context)


def without(query: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in query.items() if key != name}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, memory_id: str) -> HttpResponse:
    """POST `act`: reveal, correct, delete. What is refused says so on the page."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    row = memory_people.find(actor, memory_id)
    act = request.POST.get("act", "") if request.method == "POST" else ""
    try:
        if act == "reveal":
            return show(request, actor, row, {"revealed": json_payload(memory_people.reveal(actor, row), "value")})
        if act == "correct":
            memory_people.correct(actor, row, parsed(request.POST.get("value", "")), request.POST.get("reason", ""))
            messages.success(request, "Corrected. Runs read this from now on.")
            return redirect("memory-item", memory_id)
        if act == "delete":
            receipt = memory_people.delete(actor, row, request.POST.get("reason", ""))
            return render(request, "pages/memory/gone.html", {"receipt": receipt, "what": row.key})
    except Refused as refused:
        return show(request, actor, row, {"act": act, "refused": refused.message, "field": FIELDS.get(refused.code, "")}, refused.status)
    return show(request, actor, row, {})


def parsed(text: str) -> Any:
    """JSON where it is JSON, else the text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def show(request: HttpRequest, actor: Actor, row: MemoryItem, more: Context, status: int = 200) -> HttpResponse:
    may = actor.can(memory_people.WRITE)
    sees = actor.can(memory_people.READ_SENSITIVE)
    context = {
        "row": row, "uses": memory_people.uses(row), "runs": memory.used_by([row.id]).get(row.id, 0),
        "value": None if row.sensitive else json_payload(row.value, "value"), "may": may, "sees": sees,
        "may_correct": may and (sees or not row.sensitive),
        "typed": request.POST.get("value", "") if more.get("act") == "correct" else "" if row.sensitive else line(row),
        "reason": request.POST.get("reason", ""), "kind": KINDS[row.kind],
    }  # fmt: skip
    response = render(request, "pages/memory/item.html", context | more, status=status)
    if "revealed" in more:
        response["Cache-Control"] = "private, no-store"
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def forget(request: HttpRequest) -> HttpResponse:
    """First a dry run that counts, then the deletion itself."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(memory_people.WRITE)
    given = {name: request.POST.get(name, "").strip()[:200] for name in ("subject", "session")}
    reason, context = request.POST.get("reason", ""), Context()
    if request.method == "POST":
        try:
            dry = request.POST.get("act") != "forget"
            receipt = memory_people.forget(actor, actor.tenant, **given, reason=reason, dry_run=dry)
            context = {"receipt": receipt}
            if not dry:
                return render(request, "pages/memory/gone.html", {"receipt": receipt, "what": given["subject"] or given["session"]})
        except Refused as refused:
            context = {"refused": refused.message}
            if refused.code == "reason_missing":
                context["receipt"] = memory_people.forget(actor, actor.tenant, **given, dry_run=True)
    status = 422 if "refused" in context else 200
    return render(request, "pages/memory/forget.html", {**given, "reason": reason, **context}, status=status)
