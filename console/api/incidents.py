"""Incidents and detectors over HTTP."""

from typing import Annotated, Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.incidents import backtest, book, reading, settings
from console.incidents.kinds import KINDS
from console.incidents.moves import TEXT as TEXT_MAX
from console.incidents.moves import Opening, fresh
from console.incidents.parameters import DetectorSpec
from console.incidents.reading import Asked
from console.models import Detector, Incident
from tenants.actors import Actor

from . import paging
from .approvers import Strict, acting, body, plain
from .schemas import ANY, COUNTED, LIST, NUMBER_OR_NULL, TEXTS, answers, listed
from .schemas import record as shape
from .switches import tenant_named

INCIDENT = shape(
    "incident_id title state severity opened_at", "tenant detector owner opened_by acknowledged_at resolved_at resolved_by", "reopened",
    "subject runbook", value=NUMBER_OR_NULL, worst=NUMBER_OR_NULL,
)  # fmt: skip
WHOLE_INCIDENT = INCIDENT | {"properties": INCIDENT["properties"] | {"evidence": ANY, "runs": LIST, "steps_done": TEXTS, "log": LIST}}
ENTRY = shape("at kind text", "by", objects="data")
DETECTOR = shape("name kind severity runbook unit metric", objects="parameters", flags="enabled", tenants=TEXTS)
SUMMARY = shape(
    wholes="days opened resolved opened_by_detectors", mean_time_to_acknowledge_s=NUMBER_OR_NULL, mean_time_to_resolve_s=NUMBER_OR_NULL,
    live=COUNTED,
)  # fmt: skip
TESTED = shape("detector text", wholes="days count", incidents=LIST)
Words = Annotated[str, Field(max_length=TEXT_MAX)]


class Wanted(Strict):
    """An incident by hand. `chart`: the kind of detector whose figure of the subject is frozen as its evidence."""

    title: Annotated[str, Field(max_length=200)]
    severity: str = "major"
    subject: dict[Annotated[str, Field(max_length=20)], Annotated[str, Field(max_length=128)]] = {}
    text: Words = ""
    chart: Annotated[str, Field(max_length=24)] = ""
    runbook: Annotated[str, Field(max_length=64)] = ""
    tenant: Annotated[str, Field(max_length=63)] | None = None


class Said(Strict):
    text: Words = ""


class Owner(Strict):
    """`to`: a username; empty: nobody."""

    to: Annotated[str, Field(max_length=150)]


class Graded(Strict):
    severity: str


class WantedDetector(DetectorSpec):
    """The whole detector as it will be; what is left out is as its kind says."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class Period(Strict):
    """`parameters`: to try, instead of those that are set."""

    days: Annotated[int, Field(ge=1, le=30)] = backtest.DAYS
    parameters: dict[str, int | float] | None = None


def detector_record(row: Detector) -> dict[str, Any]:
    kind = KINDS[row.kind]
    return {"name": row.name, "metric": kind.metric, "unit": kind.unit, **settings.as_json(row)}


def asked(request: Request) -> Asked:
    return Asked(**{name: request.query_params.get(name, "") for name in ("state", "severity", "detector")})


class Incidents(APIView):
    @extend_schema(
        operation_id="list_incidents",
        parameters=[OpenApiParameter(name, OpenApiTypes.STR) for name in ("state", "severity", "detector", "cursor", "limit")],
        responses=answers({200: listed(INCIDENT)}),
    )
    def get(self, request: Request) -> Response:
        actor = acting(request, book.READ)
        found, more = paging.page(reading.listed(actor, asked(request)), request.query_params, "inc")
        return Response(paging.answer([reading.record(one) for one in found], more))

    @extend_schema(operation_id="open_incident", request=plain(Wanted), responses=answers({201: WHOLE_INCIDENT}))
    def post(self, request: Request) -> Response:
        actor, wanted = acting(request, book.WRITE), Wanted.model_validate(body(request))
        tenant = tenant_named(actor, wanted.tenant) or actor.tenant
        opening = Opening(
            tenant=tenant.pk, title=wanted.title, severity=wanted.severity, text=wanted.text, subject=dict(wanted.subject),
            runbook=wanted.runbook,
        )  # fmt: skip
        return Response(reading.whole(fresh(book.by_hand(actor, opening, timezone.now(), wanted.chart))), status=201)


class Summary(APIView):
    @extend_schema(
        operation_id="get_incidents_summary",
        description="Of the incidents that opened in the last 30 days: how many, and how long they took.",
        responses=answers({200: SUMMARY}),
    )
    def get(self, request: Request) -> Response:
        found = reading.summary(acting(request, book.READ), timezone.now())
        return Response(
            {
                "days": found.days,
                "opened": found.opened,
                "resolved": found.resolved,
                "opened_by_detectors": found.by_machine,
                "mean_time_to_acknowledge_s": found.acknowledge_s,
                "mean_time_to_resolve_s": found.resolve_s,
                "live": found.live,
            }
        )


class OneIncident(APIView):
    @extend_schema(operation_id="get_incident", responses=answers({200: WHOLE_INCIDENT}))
    def get(self, request: Request, incident_id: str) -> Response:
        return Response(reading.whole(book.find(acting(request, book.READ), incident_id)))


def moved(incident: Incident) -> Response:
    return Response(reading.record(incident))


class Acknowledge(APIView):
    @extend_schema(operation_id="acknowledge_incident", request=None, responses=answers({200: INCIDENT}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor: Actor = acting(request, book.WRITE)
        return moved(book.acknowledge(actor, book.find(actor, incident_id)))


class Assign(APIView):
    @extend_schema(operation_id="assign_incident", request=plain(Owner), responses=answers({200: INCIDENT}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor, owner = acting(request, book.WRITE), Owner.model_validate(body(request))
        return moved(book.assign(actor, book.find(actor, incident_id), owner.to))


class Note(APIView):
    @extend_schema(operation_id="note_incident", request=plain(Said), responses=answers({201: ENTRY}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor, said = acting(request, book.WRITE), Said.model_validate(body(request))
        entry = book.note(actor, book.find(actor, incident_id), said.text)
        entry.refresh_from_db()
        return Response(reading.entry_record(entry), status=201)


class Grade(APIView):
    @extend_schema(operation_id="grade_incident", request=plain(Graded), responses=answers({200: INCIDENT}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor, graded = acting(request, book.WRITE), Graded.model_validate(body(request))
        return moved(book.change_severity(actor, book.find(actor, incident_id), graded.severity))


class Resolve(APIView):
    @extend_schema(operation_id="resolve_incident", request=plain(Said), responses=answers({200: INCIDENT}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor, said = acting(request, book.WRITE), Said.model_validate(body(request))
        return moved(book.resolve(actor, book.find(actor, incident_id), said.text))


class Reopen(APIView):
    @extend_schema(operation_id="reopen_incident", request=plain(Said), responses=answers({200: INCIDENT}))
    def post(self, request: Request, incident_id: str) -> Response:
        actor, said = acting(request, book.WRITE), Said.model_validate(body(request))
        return moved(book.reopen(actor, book.find(actor, incident_id), said.text))


class Detectors(APIView):
    @extend_schema(operation_id="list_detectors", responses=answers({200: listed(DETECTOR)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        return Response({"items": [detector_record(row) for row in settings.visible(actor)], "next_cursor": None})


class OneDetector(APIView):
    @extend_schema(operation_id="get_detector", responses=answers({200: DETECTOR}))
    def get(self, request: Request, name: str) -> Response:
        return Response(detector_record(settings.find(acting(request, "config:read"), name)))

    @extend_schema(operation_id="put_detector", request=plain(WantedDetector), responses=answers({200: DETECTOR, 201: DETECTOR}))
    def put(self, request: Request, name: str) -> Response:
        actor, wanted = acting(request, "config:write"), WantedDetector.model_validate(body(request))
        row, done, _ = settings.put(actor, name, settings.read(given(wanted)), wanted.reason)
        return Response(detector_record(row), status=201 if done == "create" else 200)


def given(wanted: WantedDetector) -> dict[str, Any]:
    """What was said, and no more: a runbook that is left out is the kind's own."""
    return wanted.model_dump(exclude={"reason"}, exclude_unset=True)


class TryDetector(APIView):
    @extend_schema(
        operation_id="backtest_detector",
        description="What it would have opened in the last days, in the caller's tenant; a platform admin's: in every tenant.",
        request=plain(Period),
        responses=answers({200: TESTED}),
    )
    def post(self, request: Request, name: str) -> Response:
        actor, period = acting(request, "config:read"), Period.model_validate(body(request))
        rule = settings.rule_of(settings.find(actor, name), period.parameters)
        found = backtest.backtest(rule, None if actor.platform_admin else actor.tenant.pk, timezone.now(), period.days)
        return Response(backtest.as_json(rule, found, period.days))
