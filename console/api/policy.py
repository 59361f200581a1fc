"""The policy over HTTP: rules, permissions, their versions; what would happen to a call, and back-tests of a change."""

from typing import Annotated, Any

from django.db.models import Q
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import backtests, preview
from console.document import PermissionBlock, RuleBlock
from console.policy_records import backtest_record, permission_record, rule_record, version_record
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import permissions, rules, versions
from tools.models import Permission, PolicyVersion, Rule
from tools.policy_diff import diff
from tools.proposals import Proposal, scope_of

from . import paging
from .registry import actor_of, body_of
from .schemas import BACKTEST, FORETOLD, PERMISSION, POLICY_VERSION, REASON, RULE, answers, inline, listed

Reason = Annotated[str, Field(max_length=1000)]
TENANT = OpenApiParameter("tenant", OpenApiTypes.STR, description="Its scope; absent: the one of every tenant.")
REASON_PARAMETER = OpenApiParameter("reason", OpenApiTypes.STR)


class RuleBody(RuleBlock):
    reason: Reason = ""


class PermissionBody(PermissionBlock):
    reason: Reason = ""


class Restore(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason
    tenant: Annotated[str, Field(max_length=63)] | None = None


class Backtest(BaseModel):
    """`days`: how far back, counted from now."""

    model_config = ConfigDict(extra="forbid")
    proposal: Proposal
    days: Annotated[int, Field(ge=1, le=30)] = 7


def shape(body: type[BaseModel], *without: str) -> dict[str, Any]:
    schema = inline(body.model_json_schema())
    schema["properties"] = {name: part for name, part in schema["properties"].items() if name not in without}
    schema["required"] = [name for name in schema.get("required", ()) if name not in without]
    return {"application/json": schema}


def mine(actor: Actor) -> Q:
    """Rows that matter to what the actor sees: their tenant's and those of every tenant."""
    return Q() if actor.platform_admin else Q(tenant=None) | Q(tenant=actor.tenant)


def need_key(actor: Actor) -> None:
    """Who may edit a permission is a question of the row and of the role; a key must be for configuration all the same."""
    if actor.scopes is not None and "config:write" not in actor.scopes:
        actor.need("config:write")


def rule_named(actor: Actor, name: str, tenant: str | None) -> Rule:
    found = Rule.objects.select_related("tenant").filter(tenant=scope_of(actor, tenant), name=name).first()
    if found is None:
        raise NotFound("rule")
    return found


class Rules(APIView):
    @extend_schema(operation_id="list_rules", responses=answers({200: listed(RULE)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        rows = Rule.objects.select_related("tenant").filter(mine(actor)).order_by("name", "id")
        return Response(paging.answer([rule_record(row) for row in rows], None))


class OneRule(APIView):
    @extend_schema(operation_id="get_rule", parameters=[TENANT], responses=answers({200: RULE}))
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        return Response(rule_record(rule_named(actor, name, request.query_params.get("tenant"))))

    @extend_schema(
        operation_id="put_rule",
        parameters=[TENANT],
        request=shape(RuleBody, "name", "tenant"),
        responses=answers({200: RULE, 201: RULE}),
    )
    def put(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        tenant = request.query_params.get("tenant")
        said = RuleBody.model_validate(body_of(request) | {"name": name, "tenant": tenant})
        scope = scope_of(actor, tenant)
        new = not Rule.objects.filter(name=name, tenant=scope).exists()
        fields = said.model_dump(include={"decision", "when", "on", "approvers", "enabled", "reason"})
        row, changed = rules.set_rule(actor, name, scope, **fields)
        return Response(rule_record(row) | {"changed": changed}, status=201 if new else 200)

    @extend_schema(operation_id="delete_rule", parameters=[TENANT, REASON_PARAMETER], responses=answers({204: {}}))
    def delete(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        rules.delete(actor, rule_named(actor, name, request.query_params.get("tenant")), request.query_params.get("reason", ""))
        return Response(status=204)


class Permissions(APIView):
    """Rows are named by their place: tool, tenant, agent, user role and condition."""

    @extend_schema(operation_id="list_permissions", responses=answers({200: listed(PERMISSION)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        rows = Permission.objects.select_related("tenant").filter(mine(actor)).order_by("tool_id", "id")
        return Response(paging.answer([permission_record(row) for row in rows], None))

    @extend_schema(operation_id="put_permission", request=shape(PermissionBody), responses=answers({200: PERMISSION, 201: PERMISSION}))
    def put(self, request: Request) -> Response:
        actor = actor_of(request)
        need_key(actor)
        said = PermissionBody.model_validate(body_of(request))
        scope = scope_of(actor, said.tenant)
        place = {"agent": said.agent, "user_role": said.user_role, "when": said.when}
        row = Permission.objects.filter(tool_id=said.tool, tenant=scope, **place).first()
        new, row = row is None, row or Permission(tool_id=said.tool, tenant=scope, **place)
        row.decision, row.approvers, row.loosen, row.group = said.decision, said.approvers, said.loosen, said.group
        changed = permissions.save(actor, row, said.reason)
        return Response(permission_record(row) | {"changed": changed}, status=201 if new else 200)

    @extend_schema(
        operation_id="delete_permission",
        parameters=[OpenApiParameter("id", OpenApiTypes.INT, required=True), REASON_PARAMETER],
        responses=answers({204: {}}),
    )
    def delete(self, request: Request) -> Response:
        actor = actor_of(request)
        need_key(actor)
        number = paging.number(request.query_params.get("id"), "id", 0, 0, 1 << 62)
        row = Permission.objects.select_related("tenant").filter(mine(actor), pk=number).first()
        if row is None:
            raise NotFound("permission")
        permissions.delete(actor, row, request.query_params.get("reason", ""))
        return Response(status=204)


class Versions(APIView):
    @extend_schema(
        operation_id="list_policy_versions",
        parameters=[TENANT, OpenApiParameter("limit", OpenApiTypes.INT)],
        responses=answers({200: listed(POLICY_VERSION)}),
    )
    def get(self, request: Request) -> Response:
        """Newest first, each with what it changed in the one before."""
        actor = actor_of(request)
        actor.need("config:read")
        scope = scope_of(actor, request.query_params.get("tenant"))
        limit = paging.number(request.query_params.get("limit"), "limit", 50, 1, 200)
        found = list(PolicyVersion.objects.select_related("tenant").filter(tenant=scope).order_by("-number")[: limit + 1])
        empty: dict[str, Any] = {"permissions": [], "rules": []}
        pairs = zip(found, [*[each.document for each in found[1:]], empty], strict=True)
        items = [version_record(version, diff(before, version.document)) for version, before in pairs]
        return Response(paging.answer(items[:limit], None))


class RestoreVersion(APIView):
    @extend_schema(
        operation_id="restore_policy_version",
        request={"application/json": inline(Restore.model_json_schema())},
        responses=answers({200: POLICY_VERSION}),
    )
    def post(self, request: Request, number: str) -> Response:
        """Makes a new version that is like this one."""
        actor = actor_of(request)
        actor.need("config:write")
        said = Restore.model_validate(body_of(request))
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise NotFound("policy version")
        scope = scope_of(actor, said.tenant)
        before = versions.document(scope)
        made = versions.roll_back(actor, scope, int(number), said.reason)
        return Response(version_record(made, diff(before, made.document)))


class Preview(APIView):
    @extend_schema(
        operation_id="preview_decision",
        request={"application/json": inline(preview.Sample.model_json_schema())},
        responses=answers({200: FORETOLD}),
    )
    def post(self, request: Request) -> Response:
        """What would be decided about a call. Nothing is sent and nothing is kept."""
        actor = actor_of(request)
        actor.need("config:read")
        return Response(preview.foretell(actor, preview.Sample.model_validate(body_of(request))).as_json())


class Backtests(APIView):
    @extend_schema(
        operation_id="start_backtest",
        request={"application/json": inline(Backtest.model_json_schema())},
        responses=answers({200: BACKTEST, 202: BACKTEST}),
    )
    def post(self, request: Request) -> Response:
        """200: it is done. 202: the jobs cluster counts; ask again."""
        actor = actor_of(request)
        actor.need("config:read")
        need_key(actor)
        said = Backtest.model_validate(body_of(request))
        made = backtests.start(actor, said.proposal, said.days)
        return Response(backtest_record(made), status=202 if made.state in made.OPEN else 200)


class OneBacktest(APIView):
    @extend_schema(operation_id="get_backtest", responses=answers({200: BACKTEST}))
    def get(self, request: Request, backtest_id: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        return Response(backtest_record(backtests.find(actor, backtest_id)))


class CancelBacktest(APIView):
    @extend_schema(operation_id="cancel_backtest", request=REASON, responses=answers({200: BACKTEST}))
    def post(self, request: Request, backtest_id: str) -> Response:
        actor = actor_of(request)
        need_key(actor)
        made = backtests.find(actor, backtest_id)
        if not backtests.cancel(actor, made):
            raise Refused("already_over", "The back-test is over already.", 409)
        return Response(backtest_record(backtests.find(actor, backtest_id)))
