"""Callbacks of a run over HTTP: what was sent, what was answered, and sending it again."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import deliveries, records
from console.models import Delivery
from tenants.actors import Actor
from tenants.ids import encode

from .runs import find
from .schemas import LIST, answers, listed
from .schemas import record as shape

DELIVERY = shape("delivery_id kind event state url secret_name created_at", "run_id next_at delivered_at", "attempts", log=LIST)


def record(delivery: Delivery) -> dict[str, Any]:
    """`attempts`: of this series. `log`: `{at, status, error, ms}` of the last twenty sends. `next_at`: while it is pending."""
    return {
        "delivery_id": str(delivery),
        "run_id": delivery.run_id and encode("agt", delivery.run_id),
        "kind": delivery.kind,
        "event": delivery.event,
        "state": delivery.state,
        "url": delivery.url,
        "secret_name": delivery.secret_name,
        "attempts": delivery.attempts,
        "next_at": records.time(delivery.next_at) if delivery.state == Delivery.State.PENDING else None,
        "log": delivery.log,
        "created_at": records.time(delivery.created_at),
        "delivered_at": records.time(delivery.delivered_at),
    }


class Deliveries(APIView):
    @extend_schema(operation_id="list_deliveries", responses=answers({200: listed(DELIVERY)}))
    def get(self, request: Request, run_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        rows = Delivery.objects.filter(run_id=find(actor, run_id).id).order_by("id")
        return Response({"items": [record(row) for row in rows], "next_cursor": None})


class Redeliver(APIView):
    @extend_schema(operation_id="redeliver", request=None, responses=answers({202: DELIVERY}))
    def post(self, request: Request, delivery_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        return Response(record(deliveries.redeliver(actor, delivery_id)), status=202)
