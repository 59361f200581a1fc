"""Undoing on a run's page: the writes that can be undone, the question, and the run that is made."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from console import undoing
from runs import undo
from runs.models import Run
from tenants.actors import Actor
from tenants.errors import NotFound

from . import run_detail

Context = dict[str, Any]


def shown(run: Run, actor: Actor) -> Context:
    lines = undoing.of_run(run)
    return {"undos": lines, "undos_open": sum(line.undoing.available for line in lines), "may_undo": actor.can("runs:write")}


def asked(request: HttpRequest, context: Context) -> undoing.Line | None:
    """The write that `?ask=undo&call=2.1` is about, for browsers without scripts."""
    if request.GET.get("ask") != "undo" or not context["may_undo"]:
        return None
    return next((line for line in context["undos"] if line.key == request.GET.get("call") and line.undoing.available), None)


def start(request: HttpRequest, actor: Actor, run: Run) -> HttpResponse:
    place = run_detail.parsed(request.POST.get("call", ""))
    if place is None:
        raise NotFound("call")
    made = undo.undo(actor, run.id, *place, request.POST.get("reason", ""))
    messages.success(request, "This run undoes it, under the permissions and approvals of now.")
    return redirect("run", made.run_id)
