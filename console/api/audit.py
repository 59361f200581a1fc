"""The audit trail over HTTP: entries with their place in the chain, as JSON or as lines that can be verified elsewhere."""

import json
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import trail
from tenants.actors import Actor

from . import paging
from .schemas import ANY, answers, listed
from .schemas import record as shape

ENTRY = shape("chain at actor action kind object reason request_id", "prev hash row", "id seq", before=ANY, after=ANY)
LAST = (1 << 63) - 1


class Lines(BaseRenderer):
    """One entry a line. The cursor of the next page is in the header `X-Next-Cursor`."""

    media_type = "application/x-ndjson"
    format = "jsonl"
    charset = "utf-8"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in data["items"]).encode()


class Audit(APIView):
    renderer_classes = (JSONRenderer, Lines)

    @extend_schema(
        operation_id="list_audit", responses=answers({200: listed(ENTRY)}) | {(200, Lines.media_type): {"type": "string"}},
    )  # fmt: skip
    def get(self, request: Request) -> Response | HttpResponse:
        """`?format=jsonl`: the same entries as lines, up to the same limit."""
        actor: Actor = request.auth  # type: ignore[assignment]
        query = request.query_params
        rows = trail.filtered(trail.visible(actor), actor, query.dict())
        limit = paging.number(query.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        cursor = paging.number(query.get("cursor"), "cursor", LAST, 1, LAST)
        found, more = trail.page(rows, cursor, limit)
        headers = {"X-Next-Cursor": more} if more else None
        told = paging.answer([trail.record(entry) for entry in found], more)
        if isinstance(request.accepted_renderer, Lines):  # REST framework takes the media type off an answer without a line
            return HttpResponse(Lines().render(told), content_type=f"{Lines.media_type}; charset={Lines.charset}", headers=headers)
        return Response(told, headers=headers)
