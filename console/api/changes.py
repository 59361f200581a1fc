"""What changed that runs are decided by, over HTTP."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import change_words, changes, metrics, records
from console.trail import time_of
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant

from . import paging
from .schemas import answers
from .schemas import listed as listing
from .schemas import record as shape

JSON = dict[str, Any]
CHANGE = shape("kind who sentence why label url at", "tenant", "id")
LAST = (1 << 63) - 1


def listed(actor: Actor, query: Mapping[str, str], limit: int) -> tuple[list[changes.Change], str | None]:
    """-> (newest first, next_cursor). Refuses bad_since, bad_until, bad_kind, bad_cursor 400; not_found 404 for another tenant."""
    scope = metrics.scope_of(actor)
    if slug := query.get("tenant", ""):
        scope = tenant_of(actor, slug)
    kinds = [kind for kind in query.get("kind", "").split(",") if kind]
    if strange := sorted(set(kinds) - set(change_words.KINDS)):
        raise Refused("bad_kind", f"There is no kind {', '.join(strange)}. Known are: {', '.join(change_words.KINDS)}.", 400)
    cursor = paging.number(query.get("cursor"), "cursor", LAST, 1, LAST)
    only = changes.Only(kinds, query.get("agent", ""), query.get("tool", ""), cursor if cursor != LAST else None)
    found = changes.between(scope, time_of(query, "since"), time_of(query, "until"), limit=limit + 1, only=only)
    return found[:limit], str(found[limit - 1].id) if len(found) > limit else None


def tenant_of(actor: Actor, slug: str) -> metrics.Scope:
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None or not actor.sees(tenant.pk):
        raise NotFound("tenant")
    return tenant.pk


def record(change: changes.Change) -> JSON:
    return {name: value for name, value in asdict(change).items() if name not in ("icon", "request_id")} | {"at": records.time(change.at)}


class Changes(APIView):
    @extend_schema(operation_id="list_changes", responses=answers({200: listing(CHANGE)}))
    def get(self, request: Request) -> Response:
        actor: Actor = request.auth  # type: ignore[assignment]
        actor.need("config:read")
        limit = paging.number(request.query_params.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        found, more = listed(actor, request.query_params.dict(), limit)
        return Response(paging.answer([record(one) for one in found], more))
