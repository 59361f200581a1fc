"""Memory over HTTP: what agents keep between runs, its correction, and its deletion with a receipt."""

from dataclasses import asdict
from typing import Annotated, Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import records
from runs import memory, memory_people
from runs.models import MemoryItem
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode

from . import paging
from .approvers import acting, body, plain
from .schemas import LIST, TEXTS, answers, listed
from .schemas import record as shape
from .switches import tenant_named

SCOPES = ("kind", "session", "subject", "agent")
Reason = Annotated[str, Field(min_length=1, max_length=2000)]
ITEM = shape(
    "memory_id tenant kind agent session subject key sensitivity owner source_run created_at updated_at expires_at", "corrected_by",
    "source_step runs", "", labels=TEXTS, value={},
)  # fmt: skip
WHOLE = {**ITEM, "properties": {**ITEM["properties"], "uses": LIST}}
RECEIPT = shape("sha256", "", "items calls runs running", "", "dry_run")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Corrected(Strict):
    """`value`: what it is from now on. A reference is `{system, id, type?, url?}`."""

    value: JsonValue
    reason: Reason


class Forgotten(Strict):
    """All there is about a `subject` or of a `session`, one of them. A dry run only counts, and needs no reason."""

    subject: Annotated[str, Field(max_length=200)] = ""
    session: Annotated[str, Field(max_length=128)] = ""
    tenant: Annotated[str, Field(max_length=63)] = ""
    reason: Annotated[str, Field(max_length=2000)] = ""
    dry_run: bool = False


def record(row: MemoryItem, runs: int) -> dict[str, Any]:
    """A sensitive value is null."""
    return {
        "memory_id": row.memory_id, "tenant": row.tenant.slug, "kind": row.kind, "agent": row.agent, "session": row.session,
        "subject": row.subject, "key": row.key, "value": row.value, "sensitivity": row.sensitivity, "labels": row.labels,
        "owner": row.owner, "source_run": encode("agt", row.run_id), "source_step": row.step, "runs": runs,
        "corrected_by": row.corrected_by.username if row.corrected_by else None, "created_at": records.time(row.created_at),
        "updated_at": records.time(row.updated_at), "expires_at": records.time(row.expires_at),
    }  # fmt: skip


def whole(actor: Actor, row: MemoryItem, *, reveal: bool) -> dict[str, Any]:
    """`reveal`: the value too where it is sensitive, which is audited."""
    uses = [
        {"run_id": encode("agt", use.run_id), "step_id": use.step, "did": use.did, "at": records.time(use.at)}
        for use in memory_people.uses(row)
    ]
    found = record(row, memory.used_by([row.id]).get(row.id, 0)) | {"uses": uses}
    return found | ({"value": memory_people.reveal(actor, row)} if reveal and row.sensitive else {})


class Memories(APIView):
    @extend_schema(
        operation_id="list_memory",
        description="Newest first. `q`: in the key, or in a value that is not sensitive. Sensitive values are null.",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in (*SCOPES, "q", "cursor", "limit")],
        responses=answers({200: listed(ITEM)}),
    )
    def get(self, request: Request) -> Response:
        actor = acting(request, memory_people.READ)
        query = request.query_params
        rows = memory_people.search(actor, text=query.get("q", ""), **{name: query.get(name, "") for name in SCOPES})
        found, more = paging.page(rows, query, "mem")
        runs = memory.used_by(row.id for row in found)
        return Response(paging.answer([record(row, runs.get(row.id, 0)) for row in found], more))


class OneMemory(APIView):
    @extend_schema(
        operation_id="get_memory",
        description="A sensitive value needs `memory:read_sensitive` and is null without; each view of one is audited.",
        responses=answers({200: WHOLE}),
    )
    def get(self, request: Request, memory_id: str) -> Response:
        actor = acting(request, memory_people.READ)
        row = memory_people.find(actor, memory_id)
        return Response(whole(actor, row, reveal=actor.can(memory_people.READ_SENSITIVE)))

    @extend_schema(operation_id="correct_memory", request=plain(Corrected), responses=answers({200: WHOLE}))
    def put(self, request: Request, memory_id: str) -> Response:
        actor, wanted = acting(request, memory_people.WRITE), Corrected.model_validate(body(request))
        made = memory_people.correct(actor, memory_people.find(actor, memory_id), wanted.value, wanted.reason)
        return Response(whole(actor, memory_people.find(actor, made.memory_id), reveal=False))

    @extend_schema(
        operation_id="delete_memory",
        parameters=[OpenApiParameter("reason", OpenApiTypes.STR, required=True)],
        responses=answers({200: RECEIPT}),
    )
    def delete(self, request: Request, memory_id: str) -> Response:
        actor = acting(request, memory_people.WRITE)
        reason = request.query_params.get("reason", "")
        if len(reason) > 2000:
            raise Refused("validation", "reason has 2000 characters at most.", 422)
        return Response(asdict(memory_people.delete(actor, memory_people.find(actor, memory_id), reason)))


class Forget(APIView):
    @extend_schema(operation_id="forget_memory", request=plain(Forgotten), responses=answers({200: RECEIPT}))
    def post(self, request: Request) -> Response:
        actor, wanted = acting(request, memory_people.WRITE), Forgotten.model_validate(body(request))
        tenant = tenant_named(actor, wanted.tenant) or actor.tenant
        about = wanted.model_dump(include={"subject", "session", "reason", "dry_run"})
        return Response(asdict(memory_people.forget(actor, tenant, **about)))
