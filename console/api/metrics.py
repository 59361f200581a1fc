"""Metrics over HTTP: the summary of a period and a series of it, as JSON or as files."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from django.http import HttpResponse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import metrics, records, tables
from console.metric_definitions import COLUMNS, flat, record
from console.readings import Cut, read
from console.rollups import HOUR, KEPT, hour_of
from console.stored_hours import told_apart
from runs.models import Release
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import Tenant

from .schemas import ANY, NUMBER_OR_NULL, TEXT, WHOLE, answers
from .schemas import record as shape

AGO = re.compile(r"(\d{1,5})([hd])", re.ASCII)
YEARS = range(1970, 9999)  # whose moments can be reckoned with in every zone
MOST_POINTS = 2000
LABELS = ("tenant", "agent", "release", "model", "tool", "failure_class")


class Period(BaseModel):
    """The query. Times: RFC 3339, or so long ago as `24h` or `7d` says."""

    model_config = ConfigDict(extra="forbid")
    since: Annotated[str, Field(max_length=40)] = "24h"
    until: Annotated[str, Field(max_length=40)] = ""
    format: Literal["json", "csv", "jsonl"] = "json"
    tenant: Annotated[str, Field(max_length=63)] = ""
    agent: Annotated[str, Field(max_length=64)] = ""
    release: Annotated[str, Field(max_length=40)] = ""
    model: Annotated[str, Field(max_length=128)] = ""
    tool: Annotated[str, Field(max_length=128)] = ""
    failure_class: Annotated[str, Field(max_length=64)] = ""


class Grouped(Period):
    group_by: Literal["", "tenant", "agent", "release", "model", "tool", "failure_class"] = ""


class Stepped(Period):
    every: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}[hd]$")] = "1h"


class AsAsked(BaseContentNegotiation):
    """`format` names a kind of file here, not a renderer."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None) -> Any:
        first = next(iter(renderers))
        return first, first.media_type


def parameters(query: type[Period]) -> list[OpenApiParameter]:
    return [OpenApiParameter(name, OpenApiTypes.STR) for name in query.model_fields]


VALUE = shape(value=NUMBER_OR_NULL, n=WHOLE)
FIGURES: dict[str, Any] = {
    "run_success_rate": VALUE,
    "terminal_states": shape(value=ANY, n=WHOLE),
    "steps_per_run": VALUE,
    "tool_error_rate": VALUE,
    "retry_rate": shape(value=NUMBER_OR_NULL, n=WHOLE, by_class=ANY),
    "budget_exceeded_rate": VALUE,
    "fallback_rate": VALUE,
    "cost_per_success": shape(maybe="value", wholes="n", flags="partial"),
    "duration_ms": shape(p50=VALUE, p95=VALUE),
    "policy_violation_rate": VALUE,
}
ABOUT: dict[str, Any] = {"since": TEXT, "until": TEXT, "as_of": {"type": ["string", "null"]}, "uncounted_hours": WHOLE}
SUMMARY = shape(**ABOUT, group_by={"type": ["string", "null"]}, groups={"type": "array", "items": shape("key label", **FIGURES)}, **FIGURES)
SERIES = shape(**ABOUT, every_s=WHOLE, items={"type": "array", "items": shape("at", **FIGURES)})


class Summary(APIView):
    content_negotiation_class = AsAsked

    @extend_schema(
        operation_id="metrics_summary",
        description="Figures of the runs that started in a period of whole clock hours (UTC). `group_by`: one of "
        + ", ".join(LABELS)
        + ".",
        parameters=parameters(Grouped),
        responses=answers({200: SUMMARY}),
    )
    def get(self, request: Request) -> Response | HttpResponse:
        actor, asked = asker(request), Grouped.model_validate(request.query_params.dict())
        since, until = period(asked, timezone.now())
        cut = cut_of(actor, asked)
        reading = read(cut, since, until, apart=told_apart(asked.group_by))
        whole = metrics.grouped(reading, cut, None)[""]
        parts = metrics.grouped(reading, cut, asked.group_by) if asked.group_by else {}
        names = labels(asked.group_by, parts)
        if asked.format != "json":
            rows = parts.items() if asked.group_by else [("", whole)]
            head = ("since", "until", asked.group_by or "group")
            table = [dict(zip(head, (*stamps(since, until), names.get(key, key)), strict=True)) | flat(made) for key, made in rows]
            return file(asked.format, "metrics-summary", (*head, *COLUMNS), table)
        groups = [{"key": key, "label": names.get(key, key)} | record(made) for key, made in parts.items()]
        return Response(about(reading, since, until) | {"group_by": asked.group_by or None, "groups": groups} | record(whole))


class Series(APIView):
    content_negotiation_class = AsAsked

    @extend_schema(
        operation_id="metrics_series",
        description=f"The same figures for each stretch of `every` (1h, 6h, 1d …) of the period, {MOST_POINTS} at most.",
        parameters=parameters(Stepped),
        responses=answers({200: SERIES}),
    )
    def get(self, request: Request) -> Response | HttpResponse:
        actor, asked = asker(request), Stepped.model_validate(request.query_params.dict())
        since, until = period(asked, timezone.now())
        every = length(asked.every)
        if (until - since) / every > MOST_POINTS:
            raise invalid("every", f"That would be more than {MOST_POINTS} points: ask for a shorter period or a longer `every`.")
        cut = cut_of(actor, asked)
        reading = read(cut, since, until)
        points = metrics.stretches(reading, cut, since, until, every)
        if asked.format != "json":
            return file(asked.format, "metrics-series", ("at", *COLUMNS), [{"at": records.time(p.at)} | flat(p.figures) for p in points])
        items = [{"at": records.time(point.at)} | record(point.figures) for point in points]
        return Response(about(reading, since, until) | {"every_s": int(every.total_seconds()), "items": items})


def asker(request: Request) -> Actor:
    actor: Actor = request.auth  # type: ignore[assignment]
    actor.need("metrics:read")
    return actor


def invalid(field: str, message: str) -> Refused:
    return Refused("validation", f"{field}: {message}", 422, fields=[{"field": field, "message": message, "kind": "invalid"}])


def length(text: str) -> timedelta:
    """`24h`, `7d`."""
    found = AGO.fullmatch(text)
    assert found
    return int(found[1]) * (HOUR if found[2] == "h" else 24 * HOUR)


def moment(field: str, text: str, now: datetime) -> datetime:
    if AGO.fullmatch(text):
        return now - min(length(text), 3 * KEPT)
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.year not in YEARS:
        raise invalid(field, "Give a time such as 2026-05-01T00:00:00Z, or how long ago, such as 24h or 7d.")
    return found


def period(asked: Period, now: datetime) -> tuple[datetime, datetime]:
    """As whole hours: (when the first begins, when the last ends). `24h` are the hour that runs now and the 23 before it."""
    until = min(moment("until", asked.until, now), now) if asked.until else now
    since = moment("since", asked.since, now)
    ago = AGO.fullmatch(asked.since) is not None
    start, end = hour_of(since) + ago * HOUR, hour_of(until - timedelta(microseconds=1)) + HOUR
    if start >= end or (since >= until and not ago):
        raise invalid("since", "It must lie before `until`, and not in the future.")
    if start < now - 2 * KEPT:
        raise invalid("since", f"It may lie {2 * KEPT.days} days back at most.")
    return start, end


def cut_of(actor: Actor, asked: Period) -> Cut:
    """Refuses not_found 404 for a tenant that is not the actor's, and for what is no release."""
    scope = metrics.scope_of(actor)
    if asked.tenant:
        tenant = Tenant.objects.filter(slug=asked.tenant).first()
        if tenant is None or not actor.sees(tenant.pk):
            raise NotFound("tenant")
        scope = tenant.pk
    try:
        release = decode("rel", asked.release) if asked.release else None
    except ValueError:
        raise invalid("release", "It must look like rel_…") from None
    return Cut(scope, asked.agent, release, asked.model, asked.tool, asked.failure_class)


def labels(group_by: str, keys: Iterable[str]) -> dict[str, str]:
    """What people call it, where the key is an id."""
    if group_by == "tenant":
        return {str(pk): slug for pk, slug in Tenant.objects.filter(pk__in=list(keys)).values_list("pk", "slug")}
    if group_by == "release":
        return {str(row.pk): f"{row} {encode('rel', row.pk)}" for row in Release.objects.filter(pk__in=list(keys))}
    return {}


def stamps(since: datetime, until: datetime) -> tuple[str | None, str | None]:
    return records.time(since), records.time(until)


def about(reading: metrics.Reading, since: datetime, until: datetime) -> dict[str, Any]:
    start, end = stamps(since, until)
    return {"since": start, "until": end, "as_of": records.time(reading.as_of), "uncounted_hours": reading.uncounted}


def file(kind: str, name: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> HttpResponse:
    text = tables.csv(columns, rows) if kind == "csv" else tables.jsonl(rows)
    return HttpResponse(
        text, content_type=tables.MEDIA[kind], headers={"Content-Disposition": tables.attachment(f"signalbox-{name}.{kind}")}
    )
