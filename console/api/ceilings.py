"""Ceilings over HTTP: what they are and how far they are used, and setting one."""

from decimal import Decimal
from typing import Annotated, Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import records
from console.spending import Standing, standings
from runs import ceilings as runs_ceilings
from tenants import ceilings
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Ceiling, Tenant
from tenants.quotas import amount

from .schemas import CEILING, answers, inline, listed


class Wanted(BaseModel):
    """One ceiling. No tenant and no agent: the whole installation. `value` null takes it away."""

    model_config = ConfigDict(extra="forbid")
    tenant: Annotated[str, Field(max_length=63)] | None = None
    agent: Annotated[str, Field(max_length=64)] = ""
    kind: str
    value: Decimal | int | None
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


def record(one: Standing) -> dict[str, Any]:
    ceiling, costs = one.ceiling, one.is_cost
    return {
        "scope": one.scope,
        "tenant": ceiling.tenant.slug if ceiling.tenant else None,
        "agent": ceiling.agent,
        "kind": ceiling.kind,
        "value": ceilings.shown(ceiling.kind, ceiling.value),
        "spent_usd": amount(one.spent) if costs else None,
        "reserved_usd": amount(one.reserved) if costs else None,
        "live": None if costs else one.used,
        "starts_at": records.time(one.starts_at),
        "resets_at": records.time(one.ends_at),
        "over": one.over,
        "note": "More is held than this allows: nothing that runs is stopped, and nothing new is accepted until there is room."
        if one.over
        else None,
    }


def change(actor: Actor, wanted: Wanted) -> Ceiling | None:
    """None: it was taken away. Refuses as `runs.ceilings.put` does, and not_found 404 for another tenant."""
    tenant = Tenant.objects.filter(slug=wanted.tenant).first() if wanted.tenant else None
    if wanted.tenant and (tenant is None or not actor.sees(tenant.pk)):
        raise NotFound("tenant")
    if not wanted.reason.strip():
        raise Refused("reason_missing", "Say why: the audit trail keeps it.", 422)
    if wanted.value is not None:
        value = ceilings.read(wanted.kind, wanted.value)
        return runs_ceilings.put(actor, tenant, wanted.agent, wanted.kind, value, wanted.reason)[0]
    found = Ceiling.objects.filter(tenant=tenant, agent=wanted.agent, kind=wanted.kind).first()
    ceilings.need(actor, tenant)
    if found is None:
        raise NotFound("ceiling")
    ceilings.delete(actor, found, wanted.reason)
    return None


class Ceilings(APIView):
    @extend_schema(operation_id="list_ceilings", responses=answers({200: listed(CEILING)}))
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("config:read")
        return Response({"items": [record(one) for one in standings(actor, timezone.now())], "next_cursor": None})

    @extend_schema(
        operation_id="put_ceiling",
        description="Set one ceiling. Lowering it below what is held stops nothing; nothing new is accepted until there is room.",
        request={"application/json": inline(Wanted.model_json_schema())},
        responses=answers({200: CEILING, 204: {}}),
    )
    def put(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("config:write")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        made = change(actor, Wanted.model_validate(request.data))
        if made is None:
            return Response(status=204)
        return Response(next(record(one) for one in standings(actor, timezone.now()) if one.ceiling.pk == made.pk))
