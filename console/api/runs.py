"""Runs over HTTP: accept, list, read, cancel, retry, extend."""

import hashlib
from typing import Annotated, Any
from uuid import UUID

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import exports, records, retention, role_costs, undoing
from console.live import ndjson
from runs import forks, grants, intake, lifecycle, signoff, tracing
from runs.models import Event, Run
from runs.states import RunState
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode

from . import paging, run_search
from .run_filters import FILTERS, filtered
from .schemas import EVENT, RUN, RUNS, STEP, TEXT, answers, inline, listed, order_schema

PARAMETERS = (*FILTERS, "cursor", "limit")
PAGE_OF_EVENTS = 500


def visible(actor: Actor) -> "QuerySet[Run]":
    """The runs of the actor's tenant; a platform admin's are everybody's."""
    return records.RUN_ROWS if actor.platform_admin else records.RUN_ROWS.filter(tenant=actor.tenant)


def find(actor: Actor, run_id: str) -> Run:
    """Raises NotFound for another tenant's and for what is no id at all."""
    try:
        run = visible(actor).filter(id=decode("agt", run_id)).first()
    except ValueError:
        run = None
    if run is None:
        retention.refuse_deleted(actor, run_id)
        raise NotFound("run")
    return run


def record(run: Run) -> dict[str, Any]:
    """The record of one run; alone, it also tells what its tools answered, and what each role cost."""
    whole = records.run_records([run])[0] | {"tool_results": records.tool_results(run)}
    whole["usage"] |= {"by_role": role_costs.record(run)}
    return whole


class Runs(APIView):
    @extend_schema(
        operation_id="list_runs",
        description="Choices take several values (`state=failed,cancelled`), or values to leave out (`state=!failed,!cancelled`). A search"
        f" for text (`q`) looks at {run_search.LOOKED_AT:,} runs at a time: follow `next_cursor` until it is null, even when a page is"
        " empty.",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in PARAMETERS],
        responses=answers({200: RUNS}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        query = request.query_params.dict()
        limit = paging.number(query.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        below = paging.typed_id("agt", query["cursor"], "cursor") if query.get("cursor") else None
        sight = visible(actor)
        found = run_search.older(sight, filtered(sight, query), query, limit, below)
        return Response(paging.answer(records.run_records(found.rows), encode("agt", found.more) if found.more else None))

    @extend_schema(
        operation_id="submit_run",
        description="Accept a run. `Prefer: wait=N` (60 at most) answers 200 with the finished run if it ends in time.",
        parameters=[
            OpenApiParameter("Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER),
            OpenApiParameter("Prefer", OpenApiTypes.STR, OpenApiParameter.HEADER),
        ],
        request=order_schema(),
        responses=answers({200: RUN, 202: RUN}),
    )
    def post(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        body = request.data
        if not isinstance(body, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        accepted = intake.submit(
            actor,
            intake.Order.model_validate(body),
            idempotency_key=request.headers.get("Idempotency-Key"),
            body_sha256=hashlib.sha256(intake.as_json(body)).digest(),
            traceparent=tracing.accepted(request.headers.get("traceparent")),
            priority=getattr(request._request, "priority", 0),
        )
        run = records.RUN_ROWS.get(id=accepted.run.id)
        if not tracing.accepted(request.headers.get("traceparent")):  # else the caller's own is returned
            request._request.traceparent = tracing.trace_of(run.run_id, run.asked.traceparent).root_header  # type: ignore[attr-defined]
        headers = {"Location": f"/api/v1/runs/{run.run_id}"}
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(record(run), status=202, headers=headers)


class OneRun(APIView):
    @extend_schema(operation_id="get_run", responses=answers({200: RUN}))
    def get(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        return Response(record(find(actor, run_id)))


class Steps(APIView):
    @extend_schema(operation_id="get_steps", responses=answers({200: listed(STEP)}))
    def get(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        return Response({"items": undoing.step_records(find(actor, run_id)), "next_cursor": None})


class Events(APIView):
    """JSON pages, or all as NDJSON; with `Accept: text/event-stream` the live stream of `console.live.http` answers instead."""

    renderer_classes = (JSONRenderer, ndjson.NdjsonRenderer)

    @extend_schema(
        operation_id="get_events",
        parameters=[OpenApiParameter("after", OpenApiTypes.INT), OpenApiParameter("limit", OpenApiTypes.INT)],
        responses=answers({200: listed(EVENT)}) | {(200, "text/event-stream"): TEXT, (200, ndjson.CONTENT_TYPE): TEXT},
    )
    def get(self, request: Request, run_id: str) -> HttpResponseBase:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        run = find(actor, run_id)
        if getattr(request.accepted_renderer, "format", "") == ndjson.NdjsonRenderer.format:
            return ndjson.response(exports.of_run(run.id, actor.tenants, run.seq), run.run_id)
        after = paging.number(request.query_params.get("after"), "after", 0, 0, 2**62)
        limit = paging.number(request.query_params.get("limit"), "limit", PAGE_OF_EVENTS, 1, PAGE_OF_EVENTS)
        rows = events_after(run.id, after, limit + 1)
        more = str(rows[limit - 1].seq) if len(rows) > limit else None
        return Response(paging.answer([records.event_record(event) for event in rows[:limit]], more))


def events_after(run_id: UUID, after: int, limit: int) -> list[Event]:
    return list(Event.objects.filter(run_id=run_id, seq__gt=after).order_by("seq")[:limit])


class Cancel(APIView):
    @extend_schema(operation_id="cancel_run", request=None, responses=answers({200: RUN, 202: RUN}))
    def post(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        run = lifecycle.cancel(actor, find(actor, run_id).id)
        done = run.state == RunState.CANCELLED or run.outcome is not None
        return Response(record(records.RUN_ROWS.get(id=run.id)), status=200 if done else 202)


class Retry(APIView):
    @extend_schema(operation_id="retry_run", request=None, responses=answers({202: RUN}))
    def post(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        run = lifecycle.retry(actor, find(actor, run_id).id)
        return Response(record(records.RUN_ROWS.get(id=run.id)), status=202, headers={"Location": f"/api/v1/runs/{run.run_id}"})


class Extension(BaseModel):
    """The body of `extend`: how much is added to which limits, and why."""

    model_config = ConfigDict(extra="forbid")
    add: grants.More
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class Forking(BaseModel):
    """The body of `fork`: the first step that is taken anew, and what is changed."""

    model_config = ConfigDict(extra="forbid")
    step: Annotated[int, Field(ge=1, le=1000)]
    changes: forks.Changes = forks.Changes()


class Extend(APIView):
    @extend_schema(
        operation_id="extend_run",
        description="Grant more to a run that waits in `waiting_budget`: a decision of its request, so it needs `approvals:decide`.",
        request={"application/json": inline(Extension.model_json_schema(ref_template="#/$defs/{model}"))},
        responses=answers({200: RUN}),
    )
    def post(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        actor.need("approvals:decide")
        said, run = Extension.model_validate(request.data), find(actor, run_id)
        signoff.extend(actor, run.id, said.add, said.reason)
        return Response(record(records.RUN_ROWS.get(id=run.id)))


class Fork(APIView):
    @extend_schema(
        operation_id="fork_run",
        description="A new run that keeps the steps before `step` and takes the rest anew, with something changed. It sends no write unless"
        " `writes` is `live`.",
        request={"application/json": inline(Forking.model_json_schema(ref_template="#/$defs/{model}"))},
        responses=answers({202: RUN}),
    )
    def post(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        run = find(actor, run_id)
        actor.need("runs:write")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        asked = Forking.model_validate(request.data)
        made = forks.fork(actor, run.id, asked.step, asked.changes)
        return Response(record(records.RUN_ROWS.get(id=made.id)), status=202, headers={"Location": f"/api/v1/runs/{made.run_id}"})
