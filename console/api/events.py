"""Events of all runs: what they look like, and all of a stretch of time."""

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import exports, records
from console.live import ndjson
from console.retention import database_now
from runs.event_catalogue import schema
from tenants.actors import Actor

from .run_filters import moment
from .schemas import TEXT, answers


class EventSchema(APIView):
    @extend_schema(
        operation_id="event_schema",
        description="JSON Schema (2020-12) of events: `$defs` has one for each kind; the whole also takes kinds of a later version.",
        responses=answers({200: {"type": "object", "additionalProperties": {}}}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        return Response(schema())


class EventExport(APIView):
    renderer_classes = (JSONRenderer, ndjson.NdjsonRenderer)

    @extend_schema(
        operation_id="export_events",
        description="Every event from `since` on and before `until`, in the order of time, one JSON object a line. `X-Export-Until` says "
        "how far it goes (ten seconds ago at most: later ones may still be committed); begin there the next time.",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("since", "until", "agent")],
        responses=answers({}) | {(200, ndjson.CONTENT_TYPE): TEXT},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        query = request.query_params
        settled = database_now() - exports.SETTLED
        until = min(moment(query["until"], "until"), settled) if query.get("until") else settled
        until = until.replace(microsecond=until.microsecond // 1000 * 1000)  # as it is written
        since = moment(query["since"], "since") if query.get("since") else exports.EVER
        tenant = None if actor.platform_admin else actor.tenant.id
        wanted = exports.Wanted(actor.tenants, since, until, tenant, query.get("agent", ""))
        answer = ndjson.response(exports.walk(wanted), "events")
        answer["X-Export-Until"] = str(records.time(until))
        return answer
