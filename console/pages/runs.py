"""The list of runs: filters that live in the address, pages by id, and rows that change where they stand.

`?part=list` answers the list alone. With `ids` it is the rows that a page shows already: they are brought up to date and none is added;
one that the filter no longer matches stays, greyed. What is newer waits behind a link with its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, QuerySet
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import status
from console.api import paging
from console.api import runs as api
from console.api.registry import seen_by
from console.live.hub import now_us
from runs.models import Agent, Release, Run
from runs.states import TERMINAL, RunState
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode
from tools.models import Tool

from .run_facts import title_of
from .session import signed_in

PAGE = 50
NEW_AT_MOST = 99  # more new runs than this read "99+"
FILTERS = ("q", "state", "agent", "outcome", "mode", "tool", "release", "tenant", "since", "until")
SINCE = {"1h": ("Last hour", 1), "24h": ("Last 24 hours", 24), "7d": ("Last 7 days", 24 * 7), "30d": ("Last 30 days", 24 * 30)}
OPEN = ",".join(state.value for state in RunState if state not in TERMINAL)
PEOPLE = ",".join(("waiting_approval", "waiting_budget", "needs_reconciliation", "quarantined", "paused"))
STATES = {OPEN: "Live", PEOPLE: "Needs a person", **{state: look.label for state, look in status.RUN.items()}}
MODES = {
    "any": "Any, rehearsals too", "shadow": "Shadow", "eval": "Evaluation", "fork": "Fork", "read_only": "Read only", "draft": "Draft",
}  # fmt: skip
REAL = "normal,read_only,draft"  # a list without a choice shows no rehearsals
CHOICES = 30  # options of one chip


@dataclass(frozen=True, slots=True)
class Option:
    label: str
    url: str
    current: bool


@dataclass(frozen=True, slots=True)
class Chip:
    name: str
    shown: str  # what is chosen, for people; empty when nothing is
    clear: str
    options: list[Option]


@dataclass(slots=True)
class Listing:
    """One page of the list. `more_new`: runs above this page that its filter matches, not shown."""

    rows: list[Run]
    older: str = ""
    newer: str = ""
    new: int = 0
    gone: set[UUID] = field(default_factory=set)
    refused: str = ""

    @property
    def ids(self) -> str:
        return ",".join(row.run_id for row in self.rows)


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    seq, query = now_us(), asked(request.GET)
    listing = listed(actor, query, request.GET)
    context: dict[str, Any] = {
        "listing": listing,
        "query": query,
        "filtered": bool(query),
        "first_page": is_first(request.GET),
        "top": address(query),
        "older_url": address(query, cursor=listing.older) if listing.older else "",
        "newer_url": address(query, after=listing.newer) if listing.newer else "",
        "seq": seq,
        "now": timezone.now(),
        "may_start": actor.can("runs:write"),
    }
    alone = request.GET.get("part") == "list"
    if not (alone and listing.rows):
        agents = agents_of(actor)
        context |= {"chips": chips(actor, query, agents), "curl": curl(agents[0] if agents else "support-triage")}
    if alone:
        return render(request, "pages/runs/_list.html", context)
    return render(request, "pages/runs.html", context, status=400 if listing.refused else 200)


def is_first(given: QueryDict) -> bool:
    """Whether newer runs may appear above the rows. `inner` marks the fragment of an older page."""
    return not (given.get("cursor") or given.get("after") or given.get("inner"))


def asked(given: QueryDict) -> dict[str, str]:
    """The filters that are set."""
    values = {name: given.get(name, "").strip()[:200] for name in FILTERS}
    return {name: value for name, value in values.items() if value}


def listed(actor: Actor, query: dict[str, str], given: QueryDict) -> Listing:
    """A filter that cannot be read gives an empty list that says so."""
    try:
        rows = columns(api.visible(actor))
        matching = api.filtered(rows, wanted(query))
        if ids := given.get("ids", ""):
            return again(rows, matching, ids, first_page=is_first(given))
        return turned(matching, given)
    except Refused as refused:
        if refused.status != 400:
            raise
        return Listing([], refused=refused.message)


def columns(rows: QuerySet[Run]) -> QuerySet[Run]:
    """Of what was asked only the beginning is read, and of the release only its number."""
    light = rows.select_related(None).select_related("tenant", "release").defer("release__spec", "release__tools", "stop")
    return light.annotate(asked_text=Left("asked__text", 400), most_steps=KeyTransform("max_steps", F("asked__limits")))


def wanted(query: dict[str, str]) -> dict[str, str]:
    """The filters as the API has them."""
    since = SINCE.get(query.get("since", ""))
    moment = (timezone.now() - timedelta(hours=since[1])).isoformat() if since else query.get("since", "")
    mode = query.get("mode") or ("any" if query.get("q", "").startswith("agt_") else REAL)
    return {**query, "since": moment, "mode": "" if mode == "any" else mode}


def turned(rows: QuerySet[Run], given: QueryDict) -> Listing:
    """One page: older than `cursor`, newer than `after`, or the newest."""
    if after := given.get("after"):
        above = list(rows.filter(id__gt=paging.typed_id("agt", after, "after")).order_by("id")[: PAGE + 1])
        shown = above[:PAGE][::-1]
        return dressed(Listing(shown, older=edge(shown[-1:]), newer=edge(shown[:1]) if len(above) > PAGE else ""))
    cursor = given.get("cursor")
    below = rows.filter(id__lt=paging.typed_id("agt", cursor, "cursor")) if cursor else rows
    found = list(below.order_by("-id")[: PAGE + 1])
    shown = found[:PAGE]
    return dressed(Listing(shown, older=edge(shown[-1:]) if len(found) > PAGE else "", newer=edge(shown[:1]) if cursor else ""))


def edge(rows: list[Run]) -> str:
    return rows[0].run_id if rows else ""


def again(rows: QuerySet[Run], matching: QuerySet[Run], ids: str, *, first_page: bool) -> Listing:
    """The rows of a page that is open, as they are now."""
    places = [paging.typed_id("agt", one, "ids") for one in ids.split(",")[:PAGE]]
    shown = list(rows.filter(id__in=places).order_by("-id"))
    keep = set(matching.filter(id__in=places).values_list("id", flat=True)) if shown else set()
    first, last = encode("agt", max(places)), encode("agt", min(places))
    new = matching.filter(id__gt=max(places)).order_by().values("id")[: NEW_AT_MOST + 1].count() if first_page else 0
    older = last if matching.filter(id__lt=min(places)).exists() else ""
    listing = Listing(shown, older=older, newer="" if first_page else first, new=new)
    listing.gone = {run.id for run in shown if run.id not in keep}
    return dressed(listing)


def dressed(listing: Listing) -> Listing:
    now = timezone.now()
    for run in listing.rows:
        run.title = title_of(run.asked_text or "")  # type: ignore[attr-defined]
        run.took_s = seconds(run, now)  # type: ignore[attr-defined]
        run.failure = failure(run)  # type: ignore[attr-defined]
        run.gone = run.id in listing.gone  # type: ignore[attr-defined]
    return listing


def seconds(run: Run, now: datetime) -> float:
    return ((run.ended_at or now) - run.created_at).total_seconds()


def failure(run: Run) -> str:
    """What went wrong, in a few words: the outcome, else the last error of a run that is still going."""
    if run.outcome in ("completed", "cancelled"):
        return ""
    if run.outcome:
        return status.look("outcome", run.outcome).label
    return str((run.last_error or {}).get("error_type") or "").replace("_", " ")


# the filter bar -------------------------------------------------------------------------------------------------------


def address(query: dict[str, str], **more: str) -> str:
    values = QueryDict(mutable=True)
    values.update({name: value for name, value in {**query, **more}.items() if value})
    return reverse("runs") + (f"?{values.urlencode()}" if values else "")


def agents_of(actor: Actor) -> list[str]:
    seen = Agent.objects.filter(seen_by(actor)).order_by("name")
    return list(seen.values_list("name", flat=True))


def chips(actor: Actor, query: dict[str, str], agents: list[str]) -> list[Chip]:
    releases = Release.objects.filter(agent__in=[query["agent"]] if query.get("agent") in agents else agents)
    newest = list(releases.order_by("-id").only("id", "agent_id", "number")[:CHOICES])
    tools = Tool.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True)[:CHOICES]
    return [
        chip(query, "state", STATES),
        chip(query, "agent", {name: name for name in agents[:CHOICES]}),
        chip(query, "outcome", {name: look.label for name, look in status.OUTCOME.items()}),
        chip(query, "mode", MODES),
        chip(query, "tool", {name: name for name in tools}),
        chip(query, "release", {release.release_id: str(release) for release in newest}),
        chip(query, "since", {name: words for name, (words, _) in SINCE.items()}),
        *([chip(query, "tenant", {query["tenant"]: query["tenant"]})] if query.get("tenant") else ()),
    ]


def chip(query: dict[str, str], name: str, known: dict[str, str]) -> Chip:
    chosen = query.get(name, "")
    options = [Option(label, address({**query, name: value}), value == chosen) for value, label in known.items()]
    return Chip(name, known.get(chosen, chosen), address({**query, name: ""}), options)


def curl(agent: str) -> str:
    body = f'{{"agent": "{agent}", "input": "I was charged twice on acct_1001"}}'
    return (
        f"curl -X POST {settings.PUBLIC_URL}/api/v1/runs \\\n"
        '  -H "Authorization: Bearer $SIGNALBOX_API_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )
