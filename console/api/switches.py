"""Kill switches over HTTP: what is on, what it hits, turning one on, lifting it."""

from typing import Annotated, Any, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import records
from runs import impact, switches
from runs.models import Switch
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode
from tenants.models import Tenant

from . import paging
from .schemas import SWITCH, SWITCH_WITH_IMPACT, answers, inline, listed

Name = Annotated[str, Field(max_length=64)]


class Throw(BaseModel):
    """The body that turns a switch on. No `tenant`: in every tenant."""

    model_config = ConfigDict(extra="forbid")
    scope: Literal["all", "tenant", "agent", "tool", "writes"]
    then: Literal["pause", "stop"] = "pause"
    tenant: Name | None = None
    agent: Name = ""
    tool: Name = ""
    reason: str
    drill: bool = False


class Lift(BaseModel):
    """`per_second`: so many runs go on in each second; null: all at once."""

    model_config = ConfigDict(extra="forbid")
    reason: str
    per_second: float | None = None


def find(actor: Actor, switch_id: str) -> Switch:
    """Raises NotFound for another tenant's and for what is no id at all."""
    try:
        switch = switches.visible(actor).filter(id=decode("swi", switch_id)).first()
    except ValueError:
        switch = None
    if switch is None:
        raise NotFound("switch")
    return switch


def tenant_named(actor: Actor, slug: str | None) -> Tenant | None:
    """Another tenant is as unknown as one that is not there."""
    if not slug:
        return None
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None or not actor.sees(tenant.pk):
        raise NotFound("tenant")
    return tenant


def within(actor: Actor) -> Tenant | None:
    """Whose runs this person may count; None: everybody's."""
    return None if actor.platform_admin else actor.tenant


def measured(actor: Actor, switch: Switch) -> dict[str, Any]:
    """What it hits now, and what came within its scope since it is on, both as far as the actor sees."""
    narrow = within(actor)
    tenant = switch.tenant_id or (narrow.pk if narrow else None)
    now = impact.impact(switch.scope, tenant=tenant, agent=switch.agent, tool=switch.tool)
    return {"impact": now.as_json(), "since_on": impact.since(switch, tenant).as_json()}


class Switches(APIView):
    @extend_schema(
        operation_id="list_switches",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("state", "cursor", "limit")],
        responses=answers({200: listed(SWITCH)}),
    )
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        rows, state = switches.visible(actor), request.query_params.get("state")
        if state in ("on", "lifted"):
            rows = rows.filter(lifted_at__isnull=state == "on")
        elif state:
            raise Refused("bad_state", "state is on or lifted.", 400)
        found, more = paging.page(rows, request.query_params, "swi")
        return Response(paging.answer([records.switch_record(switch) for switch in found], more))

    @extend_schema(
        operation_id="engage_switch",
        request={"application/json": inline(Throw.model_json_schema())},
        responses=answers({201: SWITCH_WITH_IMPACT}),
    )
    def post(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        said = Throw.model_validate(request.data)
        order = switches.Order(
            said.scope, said.then, said.reason, tenant_named(actor, said.tenant), said.agent, said.tool, said.drill
        )  # fmt: skip
        switch = switches.engage(actor, order)
        return Response(records.switch_record(switch) | measured(actor, switch), status=201)


class OneSwitch(APIView):
    @extend_schema(operation_id="get_switch", responses=answers({200: SWITCH_WITH_IMPACT}))
    def get(self, request: Request, switch_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:read")
        switch = find(actor, switch_id)
        return Response(records.switch_record(switch) | measured(actor, switch))


class LiftSwitch(APIView):
    @extend_schema(
        operation_id="lift_switch",
        request={"application/json": inline(Lift.model_json_schema())},
        responses=answers({200: SWITCH}),
    )
    def post(self, request: Request, switch_id: str) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("runs:write")
        if not isinstance(request.data, dict):
            raise Refused("validation", "The body must be a JSON object.", 422)
        said = Lift.model_validate(request.data)
        switch = find(actor, switch_id)
        return Response(records.switch_record(switches.lift(actor, switch.pk, said.reason, said.per_second)))
