"""Approvals over HTTP: the inbox, one request, and a person's decision."""

from django.db.models import OuterRef, QuerySet, Subquery
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from approvals.models import Approval
from console import records, step_up
from runs import signoff
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode

from . import paging
from .identity import ConsoleSession
from .schemas import APPROVAL, DECISION, answers, listed


class Decision(BaseModel):
    """The body of a decision. Who decides comes from the credentials, never from here."""

    model_config = ConfigDict(extra="forbid")
    verdict: str
    digest: str
    reason: str = ""
    args: dict[str, object] | None = None  # approve these arguments instead: the answer is the request that replaces this one
    break_glass: bool = False


def visible(actor: Actor) -> "QuerySet[Approval]":
    newer = Approval.objects.filter(run_id=OuterRef("run_id"), replaces=OuterRef("pk")).order_by("id").values("id")[:1]
    rows = Approval.objects.select_related("edited_by", "grant__created_by").annotate(replaced_by=Subquery(newer))
    rows = rows.prefetch_related("decisions__user", "decisions__for_user")
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def find(actor: Actor, approval_id: str) -> Approval:
    try:
        approval = visible(actor).filter(id=decode("apr", approval_id)).first()
    except ValueError:
        approval = None
    if approval is None:
        raise NotFound("approval")
    return approval


class Approvals(APIView):
    @extend_schema(
        operation_id="list_approvals",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("state", "kind", "run_id", "tool", "cursor", "limit")],
        responses=answers({200: listed(APPROVAL)}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("approvals:read")
        rows, query = visible(actor), request.query_params
        if state := query.get("state"):
            rows = rows.filter(state__in=state.split(","))
        if kind := query.get("kind"):
            rows = rows.filter(kind=kind)
        if run_id := query.get("run_id"):
            rows = rows.filter(run_id=paging.typed_id("agt", run_id, "run_id"))
        if tool := query.get("tool"):
            rows = rows.filter(tool=tool)
        found, more = paging.page(rows, query, "apr")
        return Response(paging.answer([records.approval_record(a) for a in found], more))


class OneApproval(APIView):
    @extend_schema(operation_id="get_approval", responses=answers({200: APPROVAL}))
    def get(self, request: Request, approval_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("approvals:read")
        return Response(records.approval_record(find(actor, approval_id)))


class Decide(APIView):
    @extend_schema(operation_id="decide_approval", request=DECISION, responses=answers({200: APPROVAL}))
    def post(self, request: Request, approval_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("approvals:decide")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        said = Decision.model_validate(request.data)
        approval = find(actor, approval_id)
        if said.verdict == "approve" and isinstance(request.successful_authenticator, ConsoleSession):
            step_up.need(request.session, approval)
        decided = signoff.decide(
            actor, approval.id, verdict=said.verdict, digest=said.digest, reason=said.reason, args=said.args,
            break_glass=said.break_glass, surface="api",
        )  # fmt: skip
        return Response(records.approval_record(find(actor, decided.approval_id)))
