"""Unknown writes over HTTP: what nobody knows the outcome of, and a person's word on it."""

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import records
from runs import reconcile
from runs.models import Call, UnknownWrite
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode

from . import paging
from .schemas import UNKNOWN, answers, listed


class Resolution(BaseModel):
    """The body of a resolution. `resend` authorises one more attempt of a write that was not applied."""

    model_config = ConfigDict(extra="forbid")
    result: str
    evidence: str
    resend: bool = False


def visible(actor: Actor) -> "QuerySet[UnknownWrite]":
    rows = UnknownWrite.objects.all()
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def find(actor: Actor, unknown_id: str) -> UnknownWrite:
    try:
        case = visible(actor).filter(id=decode("unk", unknown_id)).first()
    except ValueError:
        case = None
    if case is None:
        raise NotFound("unknown write")
    return case


def record(case: UnknownWrite) -> dict[str, object]:
    call = Call.objects.filter(run_id=case.run_id, step=case.step, ord=case.ord).first()
    return records.unknown_record(case, call)


class Unknowns(APIView):
    @extend_schema(
        operation_id="list_unknowns",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("state", "run_id", "cursor", "limit")],
        responses=answers({200: listed(UNKNOWN)}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        rows, query = visible(actor), request.query_params
        if state := query.get("state"):
            rows = rows.filter(result="") if state == "open" else rows.exclude(result="")
        if run_id := query.get("run_id"):
            rows = rows.filter(run_id=paging.typed_id("agt", run_id, "run_id"))
        found, more = paging.page(rows, query, "unk")
        return Response(paging.answer([record(case) for case in found], more))


class OneUnknown(APIView):
    @extend_schema(operation_id="get_unknown", responses=answers({200: UNKNOWN}))
    def get(self, request: Request, unknown_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        return Response(record(find(actor, unknown_id)))


class Resolve(APIView):
    @extend_schema(
        operation_id="resolve_unknown",
        request={"application/json": Resolution.model_json_schema()},
        responses=answers({200: UNKNOWN}),
    )
    def post(self, request: Request, unknown_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("approvals:decide")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        said = Resolution.model_validate(request.data)
        case = find(actor, unknown_id)
        reconcile.resolve(actor, case.id, result=said.result, evidence=said.evidence, resend=said.resend)
        return Response(record(find(actor, unknown_id)))
