"""Tools, agents, releases and configuration over HTTP. Installation objects: read by all, changed by platform admins."""

import json
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
from runs.limits import Strict
from runs.models import Agent, Release
from runs.spec import Name, ReleaseSpec, ToolName
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import catalog, lint
from tools.models import Tool, ToolVersion
from tools.spec import Slug, ToolSpec

from .gateway import MAX_BODY, StrictJSONParser, loads, too_large
from .schemas import AGENT, CHANGES, RELEASE, TOOL, answers, inline, listed


class AgentSpec(Strict):
    """The body of `PUT /agents/{name}`; the name comes from the address. `tenants`: who sees it; empty: every tenant."""

    name: Name
    tenants: tuple[Slug, ...] = ()


class ToolPath(Strict):
    name: ToolName


AGENT_BODY = {
    "application/json": {
        "type": "object",
        "properties": {"tenants": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
    }
}
DOCUMENT_BODY = {kind: inline(document.Document.model_json_schema()) for kind in ("application/json", "application/yaml")}
RELEASE_BODY = {"application/json": inline(ReleaseSpec.model_json_schema())}
TOOL_BODY = {"application/json": inline(ToolSpec.model_json_schema())}


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
    body: dict[str, Any] = {"name": tool.name, "enabled": tool.enabled, "tenants": tool.tenants, "version": None, "lint": []}
    body |= {"classified": tool.classified, "origin": origin_record(tool), "pending": pending_record(tool)}
    return body | (version_record(version) if version else {})


def for_eyes(actor: Actor, body: dict[str, Any]) -> dict[str, Any]:
    """Which other tenants see a thing is the platform's to know."""
    return body if actor.platform_admin else body | {"tenants": [slug for slug in body["tenants"] if slug == actor.tenant.slug]}


def origin_record(tool: Tool) -> dict[str, Any] | None:
    return {key: part for key, part in tool.origin.items() if key != "definition"} if tool.origin else None


def pending_record(tool: Tool) -> dict[str, Any] | None:
    """What changed on the other side; `gone`: it is no longer offered."""
    if not tool.pending:
        return None
    told = {key: tool.pending[key] for key in ("sha256", "diff", "rejected")}
    return told | {"gone": tool.pending["definition"] is None}


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
    found = [asdict(each) for each in catalog.findings(version)]
    return {"version": version.number, **{name: getattr(version, name) for name in fields}, "lint": found}


def change_record(change: configuration.Change) -> dict[str, Any]:
    """What the lint says belongs to tools alone."""
    told = asdict(change)
    return told if change.kind == "tool" else {name: part for name, part in told.items() if name != "lint"}


def agent_record(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "tenants": agent.tenants,
        "live": release_record(agent.live, agent) if agent.live else None,
        "releases": [r.release_id for r in sorted(agent.releases.all(), key=lambda r: r.number, reverse=True)],
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
    @extend_schema(operation_id="list_tools", responses=answers({200: listed(TOOL)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        tools = Tool.objects.select_related("current").filter(seen_by(actor)).order_by("name")
        return Response({"items": [for_eyes(actor, tool_record(tool)) for tool in tools], "next_cursor": None})


class OneTool(APIView):
    @extend_schema(operation_id="get_tool", responses=answers({200: TOOL}))
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        tool = Tool.objects.select_related("current").filter(seen_by(actor), name=name).first()
        if tool is None:
            raise NotFound("tool")
        return Response(for_eyes(actor, tool_record(tool)))

    @extend_schema(operation_id="put_tool", request=TOOL_BODY, responses=answers({200: TOOL, 201: TOOL}))
    def put(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        name = ToolPath(name=name).name
        new = not Tool.objects.filter(name=name).exists()
        version, changed = catalog.put(actor, name, ToolSpec.model_validate(body_of(request)))
        return Response(tool_record(version.tool) | {"changed": changed}, status=201 if new else 200)


class Agents(APIView):
    @extend_schema(operation_id="list_agents", responses=answers({200: listed(AGENT)}))
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        found = agents(actor).prefetch_related("releases").order_by("name")
        return Response({"items": [for_eyes(actor, agent_record(agent)) for agent in found], "next_cursor": None})


class OneAgent(APIView):
    @extend_schema(operation_id="get_agent", responses=answers({200: AGENT}))
    def get(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:read")
        agent = agents(actor).filter(name=name).first()
        if agent is None:
            raise NotFound("agent")
        return Response(for_eyes(actor, agent_record(agent)))

    @extend_schema(operation_id="put_agent", request=AGENT_BODY, responses=answers({200: AGENT, 201: AGENT}))
    def put(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        wanted = AgentSpec.model_validate(body_of(request) | {"name": name})
        _, action = runs_catalog.put_agent(actor, wanted.name, wanted.tenants)
        agent = Agent.objects.select_related("live").get(name=name)
        return Response(agent_record(agent), status=201 if action == "create" else 200)


class Releases(APIView):
    @extend_schema(operation_id="create_release", request=RELEASE_BODY, responses=answers({200: RELEASE, 201: RELEASE}))
    def post(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        agent = agents(actor).filter(name=name).first()
        if agent is None:
            raise NotFound("agent")
        body = body_of(request)
        release, new = releases.make(actor, agent, body["release"] if set(body) == {"release"} else body)
        return Response(release_record(release, agent), status=201 if new else 200)


def flag(request: Request, name: str) -> bool:
    """A misspelt `dry_run` must never apply. Refuses bad_<name> 400."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise Refused(f"bad_{name}", f"{name} is true or false.", 400)
    return text == "true"


class DocumentParser(BaseParser):
    """YAML, with the same bounds as JSON: what JSON cannot say (dates, NaN, halves of surrogate pairs) is refused here too."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        raw = stream.read(MAX_BODY + 1)
        if len(raw) > MAX_BODY:
            raise too_large()
        if raw.lstrip()[:1] == b"{":
            return loads(raw)
        value = document.read(raw)
        try:
            return loads(json.dumps(value).encode())
        except TypeError as error:
            raise document.bad(f"it holds what JSON has no word for ({error}); write it in quotes") from None


class Apply(APIView):
    parser_classes = [StrictJSONParser, DocumentParser]

    @extend_schema(
        operation_id="apply_configuration",
        parameters=[OpenApiParameter("dry_run", OpenApiTypes.BOOL), OpenApiParameter("prune", OpenApiTypes.BOOL)],
        request=DOCUMENT_BODY,
        responses=answers({200: CHANGES}),
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        dry_run, prune = (flag(request, name) for name in ("dry_run", "prune"))
        changes = configuration.apply(actor, document.load(request.data), dry_run=dry_run, prune=prune)
        counts = lint.counts(found for change in changes for found in change.lint)
        return Response({"dry_run": dry_run, "changes": [change_record(change) for change in changes], "lint": counts})
