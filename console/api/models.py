"""Models and breakers over HTTP: how each model fares, and a person's word on a breaker."""

from typing import Any, Literal

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import metrics, model_facts, model_metrics
from runs.limits import Strict
from runs.models import ModelDefinition
from tenants.actors import Actor
from tenants.errors import NotFound
from tools import breakers
from tools.models import Breaker

from .registry import actor_of, body_of
from .schemas import BREAKER, MODEL, answers, inline, listed


class Word(Strict):
    """The body of a person's word on a breaker. `open` and `close` hold it so until `reset`."""

    action: Literal["open", "close", "reset"]
    reason: str


def described(actor: Actor, name: str | None = None) -> list[dict[str, Any]]:
    """Every model, or the one of this name. Four queries."""
    rows = list(ModelDefinition.objects.filter(**({"name": name} if name else {})).order_by("name"))
    scope = metrics.scope_of(actor)
    used, flying = model_metrics.models(scope, timezone.now(), name), model_metrics.in_flight(scope)
    held = breakers.of_hosts(actor, {breakers.host_port(row.base_url) for row in rows})
    return [
        model_facts.model_record(row, used.get(row.name), flying.get(row.name, 0), held.get(breakers.host_port(row.base_url), []))
        for row in rows
    ]


class Models(APIView):
    @extend_schema(operation_id="list_models", responses=answers({200: listed(MODEL)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        return Response({"items": described(actor), "next_cursor": None})


class OneModel(APIView):
    @extend_schema(operation_id="get_model", responses=answers({200: MODEL}))
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        found = described(actor, name)
        if not found:
            raise NotFound("model")
        return Response(found[0])


class Breakers(APIView):
    @extend_schema(operation_id="list_breakers", responses=answers({200: listed(BREAKER)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        rows = Breaker.objects.select_related("tenant").filter(breakers.visible(actor)).order_by("host_port", "tenant__slug")
        return Response({"items": [model_facts.breaker_record(row) for row in rows], "next_cursor": None})


class OneBreaker(APIView):
    @extend_schema(
        operation_id="move_breaker",
        request={"application/json": inline(Word.model_json_schema())},
        responses=answers({200: BREAKER}),
    )
    def post(self, request: Request, breaker_id: str) -> Response:
        actor = actor_of(request)
        actor.need("runs:write")
        word = Word.model_validate(body_of(request))
        if not breaker_id.isascii() or not breaker_id.isdecimal() or len(breaker_id) > 18:
            raise NotFound("breaker")
        return Response(model_facts.breaker_record(breakers.force(actor, int(breaker_id), word.action, word.reason)))
