"""The list of runs: filters that live in the address, pages by id, and rows that change where they stand.

`?part=list` answers the list alone. With `ids` it is the rows that a page shows already: they are brought up to date and none is added;
one that the filter no longer matches stays, greyed. What is newer waits behind a link with its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, QuerySet
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import status
from console.api import paging, run_search
from console.api import runs as api
from console.api.run_filters import filtered
from console.live.hub import now_us
from runs.models import Run
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode

from . import run_columns, run_views
from .run_facts import title_of
from .run_filters import address, agents_of, asked, chips, others, readable, wanted
from .session import signed_in

PAGE = 50
NEW_AT_MOST = 99  # more new runs than this read "99+"
PREVIEW = 160  # characters
SHOWN_COLUMNS = "runs_columns"  # session key: the columns that its person picked last


@dataclass(slots=True)
class Listing:
    """One page of the list. `new`: runs above this page that its filter matches, not shown. `end`: when the last run was accepted that a
    text search looked at, where it stopped before the page was full."""

    rows: list[Run] = field(default_factory=list)
    older: str = ""
    newer: str = ""
    new: int = 0
    gone: set[UUID] = field(default_factory=set)
    refused: str = ""
    end: datetime | None = None

    @property
    def ids(self) -> str:
        return ",".join(row.run_id for row in self.rows)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for. `kept`: the part of it that its links keep; `refused`: why it cannot be read."""

    query: dict[str, str]
    columns: tuple[str, ...]
    kept: dict[str, str]
    refused: str = ""


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    seq, ask = now_us(), read(request)
    listing = Listing(refused=ask.refused) if ask.refused else listed(actor, ask, request.GET)
    first, alone = is_first(request.GET), request.GET.get("part") == "list"
    context: dict[str, Any] = {
        "listing": listing,
        "query": ask.query,
        "columns": [run_columns.COLUMNS[name] for name in ask.columns if name != "preview"],
        "with_preview": "preview" in ask.columns,
        "filtered": bool(ask.query),
        "first_page": first,
        "live_url": live_address(ask, listing, request.GET, first=first),
        "top": address(ask.kept),
        "top_part": address(ask.kept, part="list"),
        "older_url": listing.older and address(ask.kept, cursor=listing.older),
        "next_url": "" if listing.end else listing.older and address(ask.kept, cursor=listing.older),
        "newer_url": listing.newer and address(ask.kept, after=listing.newer),
        "looked_at": f"{run_search.LOOKED_AT:,}",
        "seq": seq,
        "now": timezone.now(),
        "may_start": actor.can("runs:write"),
    }
    if not (alone and listing.rows):
        context |= bar(actor, ask, request.GET.get("open", ""))
    if alone:
        return render(request, "pages/runs/_list.html", context)
    return render(request, "pages/runs.html", context, status=400 if listing.refused else 200)


def read(request: HttpRequest) -> Asked:
    """The filters and columns of the address; without columns those that were picked last."""
    cols, picked = request.GET.get("cols", ""), request.GET.get("open") == "columns"
    try:
        query = asked(request.GET.dict())
        columns = run_columns.read(cols) if cols or picked else remembered(request)
    except Refused as refused:
        query = readable(request.GET.dict())
        return Asked(query, run_columns.USUAL, query, refused.message)
    if picked and cols:
        request.session[SHOWN_COLUMNS] = run_columns.written(columns)
    elif picked:
        request.session.pop(SHOWN_COLUMNS, None)
    return Asked(query, columns if cols or not picked else run_columns.USUAL, {**query, "cols": cols} if cols else query)


def remembered(request: HttpRequest) -> tuple[str, ...]:
    """A column that is not there any more is left out."""
    text = request.session.get(SHOWN_COLUMNS)
    return run_columns.ordered(text.split(",")) if text else run_columns.USUAL


def bar(actor: Actor, ask: Asked, opened: str) -> dict[str, Any]:
    """What stands above the list: tabs, menus, columns."""
    agents = agents_of(actor)
    tabs, more_tabs = run_views.tabs(actor, ask.kept)
    return {
        "kept": ask.kept,
        "chips": [*chips(actor, ask.kept, agents, opened), *others(ask.kept)],
        "tabs": tabs,
        "more_tabs": more_tabs,
        "view_query": address(ask.kept).partition("?")[2],
        "may_keep": bool(ask.kept) and not ask.refused and not any(tab.current for tab in (*tabs, *more_tabs)),
        "pick": pick(ask),
        "pick_open": opened == "columns",
        "usual_url": address(ask.kept, cols="", open="columns"),
        "curl": curl(agents[0]) if agents else "",
    }


def pick(ask: Asked) -> list[dict[str, Any]]:
    """The columns to choose from, each with the address that puts it in or takes it out."""
    return [
        {
            "column": column,
            "current": name in ask.columns,
            "url": address(ask.kept, cols=run_columns.written(run_columns.toggled(ask.columns, name)), open="columns"),
        }
        for name, column in run_columns.COLUMNS.items()
    ]


def is_first(given: QueryDict) -> bool:
    """Whether newer runs may appear above the rows. `inner` marks the fragment of an older page."""
    return not (given.get("cursor") or given.get("after") or given.get("inner"))


def live_address(ask: Asked, listing: Listing, given: QueryDict, *, first: bool) -> str:
    """Of the list alone: the rows that are shown, or what an empty page looked for."""
    more = {} if first else {"inner": "1"}
    if listing.rows:
        return address(ask.kept, part="list", ids=listing.ids, older=listing.older, **more)
    return address(ask.kept, part="list", cursor=given.get("cursor", ""), after=given.get("after", ""), **more)


def listed(actor: Actor, ask: Asked, given: QueryDict) -> Listing:
    """A filter that cannot be read gives an empty list that says so."""
    try:
        sight, query = api.visible(actor), wanted(ask.query)
        rows = columns(sight, ask.columns)
        matching = filtered(rows, query)
        if ids := given.get("ids", ""):
            return again(rows, matching, query, ids, given)
        return turned(sight, matching, query, given)
    except Refused as refused:
        if refused.status != 400:
            raise
        return Listing(refused=refused.message)


def columns(rows: QuerySet[Run], shown: tuple[str, ...]) -> QuerySet[Run]:
    """Of what was asked only the beginning is read, and of the release only its number."""
    light = rows.select_related(None).select_related("tenant", "release").defer("release__spec", "release__tools", "stop")
    if "user" in shown:
        light = light.annotate(for_user=KeyTextTransform("id", F("asked__user")))
    if "session" in shown:
        light = light.annotate(in_session=F("asked__session"))
    return light.annotate(asked_text=Left("asked__text", 400), most_steps=KeyTransform("max_steps", F("asked__limits")))


def turned(sight: QuerySet[Run], rows: QuerySet[Run], query: Mapping[str, str], given: QueryDict) -> Listing:
    """One page: older than `cursor`, newer than `after`, or the newest."""
    if after := given.get("after"):
        found = run_search.newer(sight, rows, query, PAGE, paging.typed_id("agt", after, "after"))
        return dressed(Listing(found.rows, older=edge(found.rows[-1:]), newer=encode("agt", found.more) if found.more else ""))
    cursor = given.get("cursor")
    found = run_search.older(sight, rows, query, PAGE, paging.typed_id("agt", cursor, "cursor") if cursor else None)
    more = encode("agt", found.more) if found.more else ""
    return dressed(Listing(found.rows, older=more, newer=edge(found.rows[:1]) if cursor else "", end=accepted(sight, found.end)))


def edge(rows: list[Run]) -> str:
    return rows[0].run_id if rows else ""


def accepted(sight: QuerySet[Run], run_id: UUID | None) -> datetime | None:
    return sight.filter(pk=run_id).values_list("created_at", flat=True).first() if run_id else None


def again(rows: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], ids: str, given: QueryDict) -> Listing:
    """The rows of a page that is open, as they are now. What is older than a page does not change: its link stays as it was."""
    places = [paging.typed_id("agt", one, "ids") for one in ids.split(",")[:PAGE]]
    shown = list(rows.filter(id__in=places).order_by("-id"))
    keep = set(matching.filter(id__in=places).values_list("id", flat=True)) if shown else set()
    first_page, text = is_first(given), given.get("older", "")
    older = paging.typed_id("agt", text, "older") if text else None
    new = run_search.count_newer(rows, matching, query, NEW_AT_MOST + 1, max(places)) if first_page else 0
    end = accepted(rows, older) if older and older not in places else None
    listing = Listing(shown, older=text, newer="" if first_page else encode("agt", max(places)), new=new, end=end)
    listing.gone = {run.id for run in shown if run.id not in keep}
    return dressed(listing)


def dressed(listing: Listing) -> Listing:
    now = timezone.now()
    for run in listing.rows:
        run.title = title_of(run.asked_text or "")  # type: ignore[attr-defined]
        run.preview = preview_of(run.asked_text or "")  # type: ignore[attr-defined]
        run.took_s = seconds(run, now)  # type: ignore[attr-defined]
        run.failure = failure(run)  # type: ignore[attr-defined]
        run.gone = run.id in listing.gone  # type: ignore[attr-defined]
    return listing


def preview_of(text: str) -> str:
    """What follows the line that is the title."""
    _, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return " ".join(" ".join(rest).split())[:PREVIEW]


def seconds(run: Run, now: datetime) -> float:
    return ((run.ended_at or now) - run.created_at).total_seconds()


def failure(run: Run) -> str:
    """What went wrong, in a few words: the outcome, else the last error of a run that is still going."""
    if run.outcome in ("completed", "cancelled"):
        return ""
    if run.outcome:
        return status.look("outcome", run.outcome).label
    return str((run.last_error or {}).get("error_type") or "").replace("_", " ")


def curl(agent: str) -> str:
    body = f'{{"agent": "{agent}", "input": "I was charged twice on acct_1001"}}'
    return (
        f"curl -X POST {settings.PUBLIC_URL}/api/v1/runs \\\n"
        '  -H "Authorization: Bearer $SIGNALBOX_API_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )
