"""The audit log: who did what to which thing and why, each entry with its place in the chain. Files that can be verified elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from console import trail
from console.api import paging
from console.api.audit import LAST
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry

from .run_filters import SINCE, Chip, Option, wanted
from .session import signed_in

JSON = dict[str, Any]
PAGE, EXPORTED, CHOICES = 50, 10_000, 30
FILTERS = ("text", "actor", "action", "kind", "object", "request", "chain", "since", "until")
OTHERS = 6  # chains shown beside the list
FILES = {"csv": ("text/csv", trail.as_csv), "jsonl": ("application/x-ndjson", trail.jsonl)}


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    query = asked(request.GET)
    rows, states = trail.visible(actor), trail.chains(actor)
    context: JSON = {"query": query, "chips": chips(actor, query, rows, states), "now": timezone.now()}
    context |= {"chains": states[:OTHERS], "chains_more": max(0, len(states) - OTHERS), "broken": [one for one in states if one.problem]}
    try:
        found, more = trail.page(trail.filtered(rows, actor, wanted(query)), cursor_of(request.GET), PAGE)
    except Refused as refused:
        return render(request, "pages/audit.html", context | {"refused": refused.message}, status=refused.status)
    files = [(kind, address(query, "audit-file", kind)) for kind in FILES]
    context |= {"entries": [row(entry) for entry in found], "files": files, "older_url": address(query, cursor=more) if more else ""}
    return render(request, "pages/audit.html", context)


@require_safe
@signed_in
def one(request: HttpRequest, entry_id: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    entry = trail.visible(actor).filter(pk=number_of(entry_id)).first()
    if entry is None:
        raise NotFound("entry")
    return render(
        request, "pages/audit/entry.html", row(entry) | {"record": trail.record(entry), "diff": trail.diff(entry.before, entry.after)}
    )


@require_safe
@signed_in
def file(request: HttpRequest, kind: str) -> HttpResponse:
    """What the filter matches, newest first, at most `EXPORTED` entries: the header `X-Next-Cursor` leads on."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    rows = trail.filtered(trail.visible(actor), actor, wanted(asked(request.GET)))
    if kind not in FILES:
        raise NotFound("file")
    media, written = FILES[kind]
    found, more = trail.page(rows, cursor_of(request.GET), EXPORTED)
    name = f"audit-{timezone.now():%Y%m%d-%H%M%S}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'} | ({"X-Next-Cursor": more} if more else {})
    return HttpResponse(written(found), content_type=f"{media}; charset=utf-8", headers=headers)


def asked(given: QueryDict) -> dict[str, str]:
    values = {name: given.get(name, "").strip()[:200] for name in FILTERS}
    return {name: value for name, value in values.items() if value}


def cursor_of(given: QueryDict) -> int:
    return paging.number(given.get("cursor"), "cursor", LAST, 1, LAST)


def number_of(text: str) -> int:
    """Raises NotFound for what cannot be an id."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NotFound("entry")
    return int(text)


def row(entry: AuditEntry) -> JSON:
    changed = [one for one in trail.diff(entry.before, entry.after) if one[3]]
    return {
        "entry": entry,
        "chain": entry.tenant.slug if entry.tenant else trail.PLATFORMS,
        "changed": changed[:2],
        "more": max(0, len(changed) - 2),
    }


def address(query: dict[str, str], name: str = "audit", *args: str, **more: str) -> str:
    values = QueryDict(mutable=True)
    values.update({key: value for key, value in {**query, **more}.items() if value})
    return reverse(name, args=args) + (f"?{values.urlencode()}" if values else "")


def chips(actor: Actor, query: dict[str, str], rows: Any, states: list[trail.ChainState]) -> list[Chip]:
    newest = rows.order_by("-id").values_list("actor", "action", "object_kind")[:500]
    actors, actions, kinds = ({each[n]: each[n] for each in newest} for n in range(3))
    known = {"actor": actors, "action": actions, "kind": kinds, "since": {name: words for name, (words, _) in SINCE.items()}}
    if actor.platform_admin:
        known["chain"] = {one.name: one.name for one in states}
    return [chip(query, name, dict(sorted(values.items())[:CHOICES]) if name != "since" else values) for name, values in known.items()]


def chip(query: dict[str, str], name: str, known: dict[str, str]) -> Chip:
    chosen = query.get(name, "")
    options = [Option(label, address({**query, name: value}), value == chosen) for value, label in known.items()]
    return Chip(name, known.get(chosen, chosen), address({**query, name: ""}), options)
