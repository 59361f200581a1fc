"""Every run that a filter matches: named in words and counted, then frozen as a list. Nothing is acted on here."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from console import bulk_words, bulks
from console.api import run_filters as api_filters
from console.api import run_search
from console.api import runs as api
from runs.models import Run
from tenants.actors import Actor
from tenants.errors import Refused

from . import run_filters as filters
from .session import signed_in

NEWEST = f", looked for in the newest {run_search.LOOKED_AT:,} runs only"
OTHERS = {"q": "text holds “{}”", "until": "accepted before {}", "degraded": "degraded is {}", "cost_gt": "cost is over {} USD"}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """The filters of the list of runs, in the address or posted; POST `act` freezes what matches at that moment.

    `?part=link` is the link of the list of runs, with the number. Refuses filter_missing 422.
    """
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:write")
    query = filters.asked(request.POST if request.method == "POST" else request.GET)
    if not {name: value for name, value in query.items() if (name, value) != ("mode", filters.ANY)}:
        raise Refused("filter_missing", "Choose a filter first: not every run there is can be acted on at once.", 422)
    rows, partly = matching(actor, query)
    words = told(actor, query) + (NEWEST if partly else "")
    if request.method == "POST":
        made = bulks.draft_matching(actor, request.POST.get("act", ""), rows, words)
        return HttpResponseRedirect(reverse("bulk", args=[made]))
    number = rows.order_by().values("id")[: bulks.MOST + 1].count()
    template = "pages/bulk/_all.html" if request.GET.get("part") == "link" else "pages/bulk/matching.html"
    context = {
        "query": query, "words": words, "number": number, "over": number > bulks.MOST, "most": bulks.MOST,
        "address": filters.address(query), "runs": bulk_words.runs(min(number, bulks.MOST)),
    }  # fmt: skip
    return render(request, template, context)


def matching(actor: Actor, query: dict[str, str]) -> tuple[QuerySet[Run], bool]:
    """-> (rows, whether a text is looked for in the newest runs only, as one page of the list does). Refuses bad_<filter> 400."""
    wanted, sight = filters.wanted(query), api.visible(actor)
    return run_search.at_once(sight, api_filters.filtered(sight, wanted), wanted)


def told(actor: Actor, query: dict[str, str]) -> str:
    """`State is Failed, agent is not billing, accepted in the last 24 hours, rehearsals left out`."""
    chips = filters.chips(actor, query, filters.agents_of(actor))
    said = [f"{chip.name} is {chip.shown}" for chip in chips if chip.shown and chip.name != "since"]
    said += [form.format(query[name]) for name, form in OTHERS.items() if name in query]
    if since := query.get("since"):
        said.append(f"accepted in the {filters.SINCE[since][0].lower()}" if since in filters.SINCE else f"accepted since {since}")
    if filters.wanted(query)["mode"] == filters.REAL:
        said.append("rehearsals left out")
    text = ", ".join(said)
    return text[:1].upper() + text[1:]
