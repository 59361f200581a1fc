"""Many runs cancelled or retried over HTTP: the list is taken as it is, and acted on in the background."""

import hashlib
from typing import Annotated, Any, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import bulks, records
from console.models import Bulk, BulkItem
from runs.intake import as_json
from tenants.errors import Refused
from tenants.ids import encode

from . import paging
from .approvers import acting, body, plain
from .schemas import COUNTED, WHOLE, answers
from .schemas import record as shape

ITEM = shape("run_id was outcome words", "new_run at")
BULK = shape(
    "id act state by reason held_up sha256 created_at", "tenant started_at ended_at stopped_by next_cursor", total=WHOLE, outcomes=COUNTED,
    items={"type": "array", "items": ITEM},
)  # fmt: skip


class Wanted(BaseModel):
    """What is done to which runs, and why. A run is taken once, however often it is named."""

    model_config = ConfigDict(extra="forbid")
    act: Literal["cancel", "retry"]
    runs: Annotated[list[Annotated[str, Field(max_length=40)]], Field(min_length=1, max_length=bulks.MOST)]
    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]


def record(made: Bulk) -> dict[str, Any]:
    return {
        "id": str(made), "act": made.act, "state": made.state, "tenant": made.tenant.slug if made.tenant else None,
        "by": made.by.username, "reason": made.reason, "held_up": made.held_up, "total": made.total, "sha256": made.sha256,
        "outcomes": bulks.tally(made), "created_at": records.time(made.created_at), "started_at": records.time(made.started_at),
        "ended_at": records.time(made.ended_at), "stopped_by": made.stopped_by.username if made.stopped_by else None,
    }  # fmt: skip


def item_record(item: BulkItem) -> dict[str, Any]:
    return {
        "run_id": str(item), "was": item.was, "outcome": item.outcome, "words": item.words,
        "new_run": encode("agt", item.made_id) if item.made_id else None, "at": records.time(item.at),
    }  # fmt: skip


class Bulks(APIView):
    @extend_schema(
        operation_id="act_on_runs",
        description=f"Cancel or retry up to {bulks.MOST:,} runs, one after the other in the order of their ids. A run that is not there has"
        " the outcome `could_not`. A quota holds the rest up, and it goes on by itself.",
        parameters=[OpenApiParameter("Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER)],
        request=plain(Wanted),
        responses=answers({202: BULK}),
    )
    def post(self, request: Request) -> Response:
        actor, said = acting(request, "runs:write"), body(request)
        wanted = Wanted.model_validate(said)
        key, sha256 = request.headers.get("Idempotency-Key"), hashlib.sha256(as_json(said)).digest()
        made, replayed = bulks.submit(actor, wanted.act, wanted.runs, wanted.reason, key=key, body_sha256=sha256)
        headers = {"Location": f"/api/v1/runs/bulk/{made}"} | ({"Idempotent-Replayed": "true"} if replayed else {})
        return Response(record(made), status=202, headers=headers)


class OneBulk(APIView):
    @extend_schema(
        operation_id="get_bulk",
        description="How far it is, and what became of each run, in the order of the runs. `outcome` narrows the items.",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("outcome", "cursor", "limit")],
        responses=answers({200: BULK}),
    )
    def get(self, request: Request, bulk_id: str) -> Response:
        actor = acting(request, "runs:read")
        made = bulks.find(actor, bulk_id)
        limit = paging.number(request.query_params.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        rows = made.items.order_by("run_id")
        if outcome := request.query_params.get("outcome"):
            if outcome not in BulkItem.Outcome.values:
                raise Refused("bad_outcome", f"outcome is one of {', '.join(BulkItem.Outcome.values)}.", 400)
            rows = rows.filter(outcome=outcome)
        if cursor := request.query_params.get("cursor"):
            rows = rows.filter(run_id__gt=paging.typed_id("agt", cursor, "cursor"))
        found = list(rows[: limit + 1])
        more = str(found[limit - 1]) if len(found) > limit else None
        return Response(record(made) | paging.answer([item_record(one) for one in found[:limit]], more))


class StopBulk(APIView):
    @extend_schema(
        operation_id="stop_bulk",
        description="Leave the rest untouched. One that is over is answered as it is.",
        request=None,
        responses=answers({200: BULK}),
    )
    def post(self, request: Request, bulk_id: str) -> Response:
        actor = acting(request, "runs:write")
        bulks.stop(actor, bulks.find(actor, bulk_id))
        return Response(record(bulks.find(actor, bulk_id)))
