"""Drafts over HTTP: calls that were kept for a person instead of sent, and what a person makes of them."""

from typing import Annotated

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import kept, records
from runs import drafts
from tenants.actors import Actor
from tenants.errors import Refused

from . import paging
from .runs import record
from .schemas import DRAFT, REASON, RUN, answers, listed


class Said(BaseModel):
    """The body of a decision about a draft. Who decides comes from the credentials."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(max_length=2000)] = ""


class Drafts(APIView):
    @extend_schema(
        operation_id="list_drafts",
        description="Newest first. `state`: `open` (nobody has decided; the default) or `all`.",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("state", "cursor", "limit")],
        responses=answers({200: listed(DRAFT)}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        query = request.query_params
        state = query.get("state") or "open"
        if state not in ("open", "all"):
            raise Refused("bad_state", "state is open or all.", 400)
        limit = paging.number(query.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        found, more = kept.seen_by(actor, waiting=state == "open", before=query.get("cursor", ""), limit=limit)
        return Response(paging.answer([kept.record(one) for one in found], more))


class CarryOut(APIView):
    @extend_schema(
        operation_id="carry_out_draft",
        description="A new run makes exactly this call, under the permissions and approvals of now.",
        request=REASON,
        responses=answers({202: RUN}),
    )
    def post(self, request: Request, draft_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        said, call = body(request), kept.find(actor, draft_id).call
        made = drafts.carry_out(actor, call.run_id, call.step, call.ord, said.reason)
        run = records.RUN_ROWS.get(id=made.id)
        return Response(record(run), status=202, headers={"Location": f"/api/v1/runs/{run.run_id}"})


class Dismiss(APIView):
    @extend_schema(operation_id="dismiss_draft", request=REASON, responses=answers({200: DRAFT}))
    def post(self, request: Request, draft_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        said, call = body(request), kept.find(actor, draft_id).call
        drafts.dismiss(actor, call.run_id, call.step, call.ord, said.reason)
        return Response(kept.record(kept.find(actor, draft_id)))


def body(request: Request) -> Said:
    """None is needed."""
    if not isinstance(request.data, dict):
        raise Refused("validation", "The body must be a JSON object.", 422)
    return Said.model_validate(request.data)
