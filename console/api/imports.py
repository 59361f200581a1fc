"""Tools from elsewhere over HTTP: what could be imported, importing it, and a person's word on imported tools."""

from typing import Annotated, Any, Literal

from drf_spectacular.utils import extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tools.canonical import dumps
from tools.definitions import Effect
from tools.imports import apis, definitions, servers
from tools.imports.drafts import Draft
from tools.models import Tool
from tools.spec import Label, ServerName, Slug

from .registry import actor_of, body_of, tool_record
from .schemas import DRAFTS, TOOL, answers, inline

Remote = Annotated[str, Field(max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]
Reason = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class OpenApiImport(Body):
    """`document`: the document itself, or its text in JSON or YAML. Nothing in `operations`: only shown. `base_url`: where the
    API is, if not at the document's first server."""

    name: ServerName
    document: dict[str, Any] | str
    operations: tuple[Remote, ...] = ()
    base_url: Annotated[str, Field(max_length=2000)] = ""
    credential: Annotated[str, Field(max_length=100)] = ""
    tenants: tuple[Slug, ...] = ()
    dry_run: bool = False


class McpImport(Body):
    """`tools`: names on the server; absent: all that it offers."""

    server: ServerName
    tools: tuple[Remote, ...] | None = None
    dry_run: bool = False


class Classification(Body):
    effect: Effect
    idempotency: Literal["key", "none"] = "none"
    labels: tuple[Label, ...] = ()
    reason: Reason


class Word(Body):
    """`sha256`: `pending.sha256` of the tool as it was read (empty when the tool is gone)."""

    sha256: Digest
    reason: Reason


def shape(body: type[Body]) -> dict[str, Any]:
    return {"application/json": inline(body.model_json_schema())}


def draft_record(draft: Draft, imported: bool) -> dict[str, Any]:
    return {
        "name": draft.name,
        "remote": draft.remote,
        "effect": draft.spec.effect.value if draft.spec else "",
        "description": draft.spec.description if draft.spec else "",
        "hints": dict(draft.hints),
        "notes": list(draft.notes),
        "problem": draft.problem,
        "imported": imported,
    }


def drafts_answer(done: list[tuple[Draft, bool]], dry_run: bool) -> Response:
    return Response({"dry_run": dry_run, "items": [draft_record(draft, new) for draft, new in done]})


def tool_answer(name: str) -> Response:
    return Response(tool_record(Tool.objects.select_related("current").get(name=name)))


class FromOpenApi(APIView):
    @extend_schema(operation_id="import_openapi", request=shape(OpenApiImport), responses=answers({200: DRAFTS}))
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        wanted = OpenApiImport.model_validate(body_of(request))
        raw = wanted.document.encode() if isinstance(wanted.document, str) else dumps(wanted.document)
        dry_run = wanted.dry_run or not wanted.operations
        done = apis.import_operations(
            actor, raw, wanted.name, list(wanted.operations), base_url=wanted.base_url, credential=wanted.credential,
            tenants=wanted.tenants, dry_run=dry_run,
        )  # fmt: skip
        return drafts_answer(done, dry_run)


class FromMcp(APIView):
    @extend_schema(operation_id="import_mcp", request=shape(McpImport), responses=answers({200: DRAFTS}))
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        wanted = McpImport.model_validate(body_of(request))
        chosen = None if wanted.tools is None else list(wanted.tools)
        return drafts_answer(servers.import_tools(actor, wanted.server, chosen, dry_run=wanted.dry_run), wanted.dry_run)


class Classify(APIView):
    @extend_schema(operation_id="classify_tool", request=shape(Classification), responses=answers({200: TOOL}))
    def post(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        said = Classification.model_validate(body_of(request))
        definitions.classify(
            actor, name, effect=said.effect, idempotency=said.idempotency, labels=said.labels, reason=said.reason
        )  # fmt: skip
        return tool_answer(name)


class Accept(APIView):
    @extend_schema(operation_id="accept_tool", request=shape(Word), responses=answers({200: TOOL}))
    def post(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        said = Word.model_validate(body_of(request))
        definitions.accept(actor, name, said.sha256, said.reason)
        return tool_answer(name)


class Reject(APIView):
    @extend_schema(operation_id="reject_tool", request=shape(Word), responses=answers({200: TOOL}))
    def post(self, request: Request, name: str) -> Response:
        actor = actor_of(request)
        actor.need("config:write")
        said = Word.model_validate(body_of(request))
        definitions.reject(actor, name, said.sha256, said.reason)
        return tool_answer(name)
