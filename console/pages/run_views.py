"""Saved views: the tabs above the list of runs, and the pages on which a view is kept, renamed and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from console import saved_views
from console.models import SavedView
from tenants.actors import Actor
from tenants.errors import Refused

from . import run_columns, run_filters
from .session import signed_in

BUILT_IN = {
    "All": {},
    "Live": {"state": run_filters.OPEN},
    "Needs a person": {"state": run_filters.PEOPLE},
    "Failed 24h": {"state": "failed", "since": "24h"},
}
TABS = 8  # saved ones beside the built-in; the rest stands in a menu


@dataclass(frozen=True, slots=True)
class Tab:
    """`private`: nobody else has it."""

    label: str
    url: str
    current: bool
    private: bool = False


def tabs(actor: Actor, kept: Mapping[str, str]) -> tuple[list[Tab], list[Tab]]:
    """-> (tabs, what stands in the menu). `kept`: the filters and `cols` of the address that is open."""
    built = [Tab(label, run_filters.address(query), matches(query, kept)) for label, query in BUILT_IN.items()]
    saved = [tab(view, kept) for view in saved_views.offered(actor)]
    saved.sort(key=lambda one: not one.current)  # the one that is open is never hidden
    shown, rest = saved[:TABS], saved[TABS:]
    return built + sorted(shown, key=lambda one: one.label.casefold()), rest


def tab(view: SavedView, kept: Mapping[str, str]) -> Tab:
    query = parsed(view.query)
    return Tab(view.name, run_filters.address(query), matches(query, kept), not view.shared)


def matches(query: Mapping[str, str], kept: Mapping[str, str]) -> bool:
    """Whether the open address is this view: the same filters, and its columns if it has some."""
    named = ("cols",) if "cols" in query else ()
    try:
        mine, open_now = ({name: value for name, value in one.items() if name != "cols" or named} for one in (query, kept))
        return run_filters.same(mine) == run_filters.same(open_now)
    except Refused:
        return False


def parsed(text: str) -> dict[str, str]:
    """The filters and columns of an address, and nothing else of it."""
    given = QueryDict(text.encode(errors="replace"))
    return {name: given[name] for name in (*run_filters.FILTERS, "cols") if given.get(name)}


def checked(text: str) -> str:
    """The query as it is kept. Refuses what the list would refuse, 400."""
    query = parsed(text[: saved_views.LONGEST_QUERY + 1])
    run_filters.same(run_filters.asked(query))
    if cols := query.get("cols"):
        query["cols"] = run_columns.written(run_columns.read(cols))
    return run_filters.address(query).partition("?")[2]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET lists what the reader may change, with a form for the address in `query`; POST keeps one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    if request.method != "POST":
        return listed(request, actor, {"query": request.GET.get("query", "")})
    said = {name: request.POST.get(name, "") for name in ("name", "query", "shared")}
    try:
        view = saved_views.save(actor, said["name"], checked(said["query"]), shared=bool(said["shared"]))
    except Refused as refused:
        if refused.status not in (400, 422):
            raise
        return listed(request, actor, said, refused)
    messages.success(request, f"The view {view.name} is kept.")
    return redirect(run_filters.address(parsed(view.query)))


def listed(request: HttpRequest, actor: Actor, said: dict[str, str], refused: Refused | None = None) -> HttpResponse:
    rows = [{"view": view, "url": run_filters.address(parsed(view.query))} for view in saved_views.manageable(actor)]
    context: dict[str, Any] = {"rows": rows, "said": said, "refused": refused, "most": saved_views.LONGEST_NAME}
    return render(request, "pages/runs/views.html", context, status=refused.status if refused else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, view_id: str) -> HttpResponse:
    """GET shows it to those who may change it, POST `act`: save or delete."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    view, refused = saved_views.find(actor, view_id), None
    if request.method == "POST" and request.POST.get("act") == "delete":
        saved_views.delete(actor, view)
        messages.success(request, f"The view {view.name} is gone. The runs it showed are not.")
        return redirect("run-views")
    if request.method == "POST":
        try:
            saved_views.change(actor, view, request.POST.get("name", ""), shared=bool(request.POST.get("shared")))
        except Refused as error:
            refused = error
        else:
            messages.success(request, "The view is changed.")
            return redirect("run-views")
    said = request.POST if refused else {"name": view.name, "shared": view.shared and "1"}
    context: dict[str, Any] = {"view": view, "said": said, "refused": refused, "most": saved_views.LONGEST_NAME}
    context |= {"path": reverse("run-view", args=[view.view_id]), "url": run_filters.address(parsed(view.query))}
    return render(request, "pages/runs/view.html", context, status=422 if refused else 200)
