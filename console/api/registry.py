"""Tools, agents, releases and configuration over HTTP. Installation objects: read by all, changed by platform admins."""

from dataclasses import asdict
from typing import IO, Any

from django.db.models import Q, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import apply as configuration
from console import document, records
from runs import catalog as runs_catalog
from runs import releases
from runs.models import Agent, Release
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode
from tools import catalog
from tools.models import Tool, ToolVersion
from tools.spec import ToolSpec

from .gateway import MAX_BODY, StrictJSONParser, loads, too_large
from .schemas import inline

OBJECT = OpenApiTypes.OBJECT


def actor_of(request: Request) -> Actor:
    actor: Actor = request.auth  # type: ignore[assignment]
    return actor


def body_of(request: Request) -> dict[str, Any]:
    if not isinstance(request.data, dict):
        raise Refused("validation", "The body must be a JSON object.", 422)
    return dict(request.data)


def seen_by(actor: Actor) -> Q:
    """Tools and agents that the actor's tenant sees."""
    return Q() if actor.platform_admin else Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug])


def tool_record(tool: Tool) -> dict[str, Any]:
    version = tool.current
    body: dict[str, Any] = {"name": tool.name, "enabled": tool.enabled, "tenants": tool.tenants, "version": None}
    return body | (version_record(version) if version else {})


def version_record(version: ToolVersion) -> dict[str, Any]:
    fields = (
        "description",
        "effect",
        "idempotency",
        "adapter",
        "input_schema",
        "output_schema",
        "timeout_s",
        "retry",
        "labels",
        "sha256",
    )
    return {"version": version.number, **{name: getattr(version, name) for name in fields}}


def agent_record(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "tenants": agent.tenants,
        "live": release_record(agent.live, agent) if agent.live else None,
        "releases": [release.release_id for release in agent.releases.order_by("-number")],
    }


def release_record(release: Release, agent: Agent) -> dict[str, Any]:
    return {
        "release_id": release.release_id,
        "agent": release.agent_id,
        "number": release.number,
        "live": agent.live_id == release.id,
        "release": release.spec,
        "tools": release.tools,
        "sha256": release.sha256,
        "created_at": records.time(release.created_at),
    }


def agents(actor: Actor) -> "QuerySet[Agent]":
    return Agent.objects.select_related("live").filter(seen_by(actor))


class Tools(APIView):
    @extend_schema(operation_id="list_tools", responses={200: OBJECT})
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        tools = Tool.objects.select_related("current").filter(seen_by(actor)).order_by("name")
        return Response({"items": [tool_record(tool) for tool in tools], "next_cursor": None})


class OneTool(APIView):
    @extend_schema(operation_id="get_tool", responses={200: OBJECT})
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        tool = Tool.objects.select_related("current").filter(seen_by(actor), name=name).first()
        if tool is None:
            raise NotFound("tool")
        return Response(tool_record(tool))

    @extend_schema(
        operation_id="put_tool", request={"application/json": inline(ToolSpec.model_json_schema())}, responses={200: OBJECT}
    )
    def put(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        version, changed = catalog.put(actor, name, ToolSpec.model_validate(body_of(request)))
        return Response(tool_record(version.tool) | {"changed": changed}, status=201 if changed and version.number == 1 else 200)


class Agents(APIView):
    @extend_schema(operation_id="list_agents", responses={200: OBJECT})
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        return Response({"items": [agent_record(agent) for agent in agents(actor).order_by("name")], "next_cursor": None})


class OneAgent(APIView):
    @extend_schema(operation_id="get_agent", responses={200: OBJECT})
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        agent = agents(actor).filter(name=name).first()
        if agent is None:
            raise NotFound("agent")
        return Response(agent_record(agent))

    @extend_schema(operation_id="put_agent", request=OBJECT, responses={200: OBJECT})
    def put(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        body = body_of(request)
        tenants = body.pop("tenants", [])
        if body or not isinstance(tenants, list):
            raise Refused("validation", "An agent has the one field `tenants`, a list of tenants that see it.", 422)
        runs_catalog.put_agent(actor, name, tuple(tenants))
        return Response(agent_record(Agent.objects.select_related("live").get(name=name)))


class Releases(APIView):
    @extend_schema(operation_id="create_release", request=OBJECT, responses={201: OBJECT})
    def post(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        agent = agents(actor).filter(name=name).first()
        if agent is None:
            raise NotFound("agent")
        body = body_of(request)
        release = releases.create(actor, agent, body.get("release", body))
        return Response(release_record(release, agent), status=201)


class MoveRelease(APIView):
    """`promote` and `rollback` move the agent's live pointer; new runs follow it."""

    @extend_schema(operation_id="move_release", request=None, responses={200: OBJECT})
    def post(self, request: Request, release_id: str, verb: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        try:
            release = Release.objects.filter(id=decode("rel", release_id), agent__in=agents(actor)).first()
        except ValueError:
            release = None
        if release is None:
            raise NotFound("release")
        if verb == "promote":
            releases.promote(actor, release)
        elif verb == "rollback":
            releases.rollback(actor, release)
        else:
            raise Refused("not_supported", f"{verb} is not supported yet.", 422, key=verb)
        return Response(agent_record(Agent.objects.select_related("live").get(name=release.agent_id)))


class DocumentParser(BaseParser):
    """YAML, with the same bounds as JSON."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        raw = stream.read(MAX_BODY + 1)
        if len(raw) > MAX_BODY:
            raise too_large()
        return loads(raw) if raw.lstrip()[:1] == b"{" else document.read(raw)


class Apply(APIView):
    parser_classes = [StrictJSONParser, DocumentParser]

    @extend_schema(
        operation_id="apply_configuration",
        parameters=[OpenApiParameter("dry_run", OpenApiTypes.BOOL), OpenApiParameter("prune", OpenApiTypes.BOOL)],
        request=OBJECT,
        responses={200: OBJECT},
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        dry_run, prune = (request.query_params.get(name) == "true" for name in ("dry_run", "prune"))
        changes = configuration.apply(actor, document.load(request.data), dry_run=dry_run, prune=prune)
        return Response({"dry_run": dry_run, "changes": [asdict(change) for change in changes]})
