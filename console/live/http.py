"""The two asynchronous HTTP views: `Prefer: wait` and the event stream. They hold no database connection while they wait."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import psycopg
from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from console import records
from console.api import paging, runs
from console.api.identity import actor_of
from console.api.problems import answer
from runs.models import Run
from runs.states import PEOPLE, TERMINAL
from tenants.ids import decode
from tenants.scope import tenant_scope

from .hub import hub
from .threads import briefly

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,9})\s*(?:$|[,;])", re.IGNORECASE)
LONGEST_S = 60
RECHECK_S = 5.0  # hints may be lost: look at the row anyway
KEEP_ALIVE_S = 15.0
AT_ONCE = 200

View = Callable[..., Any]


def like(view: View) -> Callable[[View], View]:
    """An asynchronous view in front of a REST framework one: it keeps that view's place in the OpenAPI document."""

    def mark(entry: View) -> View:
        entry.cls, entry.initkwargs = view.cls, view.initkwargs  # type: ignore[attr-defined]
        return csrf_exempt(entry)

    return mark


def seconds_to_wait(request: HttpRequest) -> int:
    found = WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), LONGEST_S) if found else 0


def submit_and_wait(view: View) -> View:
    """`POST /runs` with `Prefer: wait=N`: 200 with the finished run, or 202 with the run as it is by then."""

    @like(view)
    async def entry(request: HttpRequest, **where: Any) -> HttpResponseBase:
        seconds = seconds_to_wait(request) if request.method == "POST" else 0
        request.priority = 1 if seconds else 0  # type: ignore[attr-defined]
        response: HttpResponse = await briefly(rendered, view, request, where)
        if response.status_code != 202 or not seconds:
            return response
        run_id = decode("agt", json.loads(response.content)["run_id"])
        try:
            status = 200 if await ended(run_id, seconds) else 202
            body = await briefly(body_of, run_id)
        except (Error, psycopg.Error):
            return response  # the run is accepted, and that is what the caller must learn
        finished = HttpResponse(body, content_type="application/json", status=status)
        for name in ("Location", "Idempotent-Replayed"):
            if name in response:
                finished[name] = response[name]
        finished["Preference-Applied"] = f"wait={seconds}"
        return finished

    return entry


def rendered(view: View, request: HttpRequest, where: dict[str, Any]) -> HttpResponse:
    response: HttpResponse = view(request, **where)
    if hasattr(response, "render"):
        response.render()
    return response


def body_of(run_id: UUID) -> bytes:
    return json.dumps(runs.record(records.RUN_ROWS.get(id=run_id))).encode()


async def ended(run_id: UUID, seconds: float) -> bool:
    """True when the run is terminal within `seconds`; False sooner when it waits for people."""
    until = time.monotonic() + seconds
    with hub.subscribe(run_id) as moved:
        while True:
            moved.clear()
            state = await briefly(state_of, run_id)
            if state in TERMINAL or state in PEOPLE or (left := until - time.monotonic()) <= 0:
                return state in TERMINAL
            await woken(moved, min(left, RECHECK_S))


def state_of(run_id: UUID) -> str:
    return str(Run.objects.values_list("state", flat=True).get(id=run_id))


async def woken(moved: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(moved.wait(), seconds)
    except TimeoutError:
        return False
    return True


def events_or_stream(view: View) -> View:
    """`GET /runs/{id}/events`: JSON, or the live stream for `Accept: text/event-stream`."""

    @like(view)
    async def entry(request: HttpRequest, run_id: str) -> HttpResponseBase:
        if request.method != "GET" or "text/event-stream" not in request.headers.get("Accept", ""):
            return await briefly(rendered, view, request, {"run_id": run_id})
        try:
            run = await briefly(allowed, request, run_id)
            asked = request.headers.get("Last-Event-ID") or request.GET.get("after")
            after = paging.number(asked, "after", 0, 0, 2**62)
        except Exception as error:
            return answer(error)
        response = StreamingHttpResponse(stream(run.id, run.tenant_id, after), content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response

    return entry


def allowed(request: HttpRequest, run_id: str) -> Run:
    actor = actor_of(request)
    actor.need("runs:read")
    return runs.find(actor, run_id)


async def stream(run_id: UUID, tenant_id: UUID, after: int) -> AsyncIterator[bytes]:
    """Every event after `after`, once, in order; ends after the run's last one. `id:` is the seq."""
    spoke = time.monotonic()
    with hub.subscribe(run_id) as moved:
        while True:
            moved.clear()
            over, rows = await briefly(look, run_id, tenant_id, after)
            for event in rows:
                after = event.seq
                record = json.dumps(records.event_record(event), separators=(",", ":"))
                yield f"id: {event.seq}\nevent: {event.kind}\ndata: {record}\n\n".encode()
                spoke = time.monotonic()
            if over and len(rows) < AT_ONCE:
                return
            if len(rows) < AT_ONCE and not await woken(moved, RECHECK_S) and time.monotonic() - spoke > KEEP_ALIVE_S:
                spoke = time.monotonic()
                yield b": still here\n\n"


def look(run_id: UUID, tenant_id: UUID, after: int) -> tuple[bool, list[Any]]:
    """(whether the run is over, its events after `after`). State first: events of the last entry are read after it.

    In a scope of its own: a stream goes on when the request's scope is over."""
    with tenant_scope((tenant_id,)):
        return state_of(run_id) in TERMINAL, runs.events_after(run_id, after, AT_ONCE)
