"""Suites, their cases, evaluations and scores over HTTP. Suites are read by those who see them, changed by platform admins."""

from decimal import Decimal
from typing import IO, Annotated, Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.eval_records import LINES, case_record, evaluation_record, export, score_record, suite_record
from runs.evals import evaluations, suites
from runs.evals.cases import CaseSpec, read
from runs.evals.from_runs import from_run
from runs.models import Evaluation, Release, Run, Score
from runs.spec import Name
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools.spec import Slug

from . import paging
from .approvers import acting, body, plain
from .gateway import MAX_BODY, too_large
from .registry import agents, flag
from .schemas import REASON, TEXT, TEXTS, WHOLE_OR_NULL, answers, inline, listed
from .schemas import record as shape

SUITE = shape("name description sha256 created_at updated_at", "", "revision cases", tenants=TEXTS)
CASE = shape("case_id key sha256 added_at", "tenant run_id added_by", "version", "case")
EVALUATION = shape(
    "evaluation_id suite suite_sha256 release tenant state max_cost_usd started_by at", "ended_at", "revision repetitions done total",
    "result",
)  # fmt: skip
SCORE = shape(
    "score_id run_id tenant at", "evaluation_id case", "repetition checks_version", "measures", failing=TEXTS, case_version=WHOLE_OR_NULL
)
IMPORTED = shape(wholes="created updated unchanged removed")
PAGED = [OpenApiParameter("cursor", OpenApiTypes.STR), OpenApiParameter("limit", OpenApiTypes.INT)]
PRUNE = OpenApiParameter("prune", OpenApiTypes.BOOL, description="Take out the cases that are not given.")


class WantedSuite(BaseModel):
    model_config = ConfigDict(extra="forbid")
    description: Annotated[str, Field(max_length=2000)] = ""
    tenants: tuple[Slug, ...] = ()


class FromRun(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run_id: Annotated[str, Field(max_length=40)]
    key: Annotated[str, Field(max_length=100)] = ""


class WantedEvaluation(BaseModel):
    """`tenant`: in which its runs act, the caller's unless given; `max_cost_usd`: of all runs together."""

    model_config = ConfigDict(extra="forbid")
    suite: Name
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=6)]
    repetitions: Annotated[int, Field(ge=1, le=evaluations.MOST_REPETITIONS)] = 1
    tenant: Slug | None = None
    reason: Annotated[str, Field(max_length=1000)] = ""


class LineParser(BaseParser):
    """JSON lines, as they are: a refusal names the line."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        raw = stream.read(MAX_BODY + 1)
        if len(raw) > MAX_BODY:
            raise too_large()
        return raw


class LineRenderer(BaseRenderer):
    """Only so that a client may ask for it: the lines are streamed."""

    media_type, format = LINES, "jsonl"


class Suites(APIView):
    @extend_schema(operation_id="list_suites", responses=answers({200: listed(SUITE)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        return Response(paging.answer([suite_record(actor, one) for one in suites.visible(actor).order_by("name")], None))


class OneSuite(APIView):
    @extend_schema(operation_id="get_suite", responses=answers({200: SUITE}))
    def get(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:read")
        return Response(suite_record(actor, suites.find(actor, name)))

    @extend_schema(operation_id="put_suite", request=plain(WantedSuite), responses=answers({200: SUITE, 201: SUITE}))
    def put(self, request: Request, name: str) -> Response:
        actor, said = acting(request, "config:write"), WantedSuite.model_validate(body(request))
        spec = suites.SuiteSpec(name=name, description=said.description, tenants=said.tenants)
        suite, action = suites.put_suite(actor, spec.name, spec.description, spec.tenants)
        return Response(suite_record(actor, suite), status=201 if action == "create" else 200)


class Cases(APIView):
    @extend_schema(operation_id="list_cases", parameters=PAGED, responses=answers({200: listed(CASE)}))
    def get(self, request: Request, name: str) -> Response:
        """Newest first."""
        actor = acting(request, "config:read")
        rows = suites.current(suites.find(actor, name)).select_related("tenant", "added_by")
        found, more = paging.page(rows, request.query_params, "cas")
        return Response(paging.answer([case_record(one) for one in found], more))


class OneCase(APIView):
    @extend_schema(operation_id="get_case", responses=answers({200: CASE}))
    def get(self, request: Request, name: str, key: str) -> Response:
        actor = acting(request, "config:read")
        return Response(case_record(suites.find_case(suites.find(actor, name), key)))

    @extend_schema(
        operation_id="put_case",
        request={"application/json": inline(CaseSpec.model_json_schema())},
        responses=answers({200: CASE, 201: CASE}),
    )
    def put(self, request: Request, name: str, key: str) -> Response:
        actor = acting(request, "config:write")
        suite = suites.find(actor, name)
        done = suites.put_cases(actor, suite, [read(dict(body(request)) | {"key": key})])
        return Response(case_record(suites.find_case(suite, key)), status=201 if done.created else 200)

    @extend_schema(operation_id="delete_case", responses=answers({204: {}}))
    def delete(self, request: Request, name: str, key: str) -> Response:
        actor = acting(request, "config:write")
        suites.remove_case(actor, suites.find(actor, name), key)
        return Response(status=204)


class ImportCases(APIView):
    parser_classes = (LineParser,)

    @extend_schema(operation_id="import_cases", parameters=[PRUNE], request={LINES: TEXT}, responses=answers({200: IMPORTED}))
    def post(self, request: Request, name: str) -> Response:
        """One case a line. Nothing is taken unless every line is good."""
        actor = acting(request, "config:write")
        suite = suites.find(actor, name)
        raw = request.data if isinstance(request.data, bytes) else b""
        return Response(suites.import_jsonl(actor, suite, raw, prune=flag(request, "prune")).as_json())


class ExportCases(APIView):
    renderer_classes = (JSONRenderer, LineRenderer)

    @extend_schema(operation_id="export_cases", responses=answers({}) | {(200, LINES): TEXT})
    def get(self, request: Request, name: str) -> StreamingHttpResponse:
        actor = acting(request, "config:read")
        return export(actor, suites.find(actor, name))


class CaseFromRun(APIView):
    @extend_schema(operation_id="make_case_from_run", request=plain(FromRun), responses=answers({201: CASE}))
    def post(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:write")
        said = FromRun.model_validate(body(request))
        suite = suites.find(actor, name)
        run = Run.objects.select_related("tenant").filter(pk=paging.typed_id("agt", said.run_id, "run_id")).first()
        if run is None or not actor.sees(run.tenant_id):
            raise NotFound("run")
        return Response(case_record(suites.find_case(suite, from_run(actor, run, suite, said.key))), status=201)


class Evaluate(APIView):
    @extend_schema(operation_id="evaluate_release", request=plain(WantedEvaluation), responses=answers({202: EVALUATION}))
    def post(self, request: Request, release_id: str) -> Response:
        """Its runs change nothing. They are started by the jobs cluster, within a minute."""
        actor = acting(request, "config:write")
        release = release_of(actor, release_id)
        made = started(actor, release, WantedEvaluation.model_validate(body(request)))
        return Response(evaluation_record(made), status=202)


class Evaluations(APIView):
    @extend_schema(operation_id="list_evaluations", parameters=PAGED, responses=answers({200: listed(EVALUATION)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        found, more = paging.page(evaluations_of(actor), request.query_params, "evl")
        return Response(paging.answer([evaluation_record(one) for one in found], more))


class OneEvaluation(APIView):
    @extend_schema(operation_id="get_evaluation", responses=answers({200: EVALUATION}))
    def get(self, request: Request, evaluation_id: str) -> Response:
        actor = acting(request, "config:read")
        return Response(evaluation_record(evaluations.find(actor, evaluation_id)))


class CancelEvaluation(APIView):
    @extend_schema(operation_id="cancel_evaluation", request=REASON, responses=answers({200: EVALUATION}))
    def post(self, request: Request, evaluation_id: str) -> Response:
        actor = acting(request, "config:write")
        found = evaluations.find(actor, evaluation_id)
        if not evaluations.cancel(actor, found, str(body(request).get("reason", ""))[:1000]):
            raise Refused("already_over", "The evaluation is over already.", 409)
        return Response(evaluation_record(evaluations.find(actor, evaluation_id)))


class Scores(APIView):
    @extend_schema(
        operation_id="list_scores",
        parameters=[*PAGED, OpenApiParameter("run_id", OpenApiTypes.STR), OpenApiParameter("evaluation_id", OpenApiTypes.STR)],
        responses=answers({200: listed(SCORE)}),
    )
    def get(self, request: Request) -> Response:
        """Newest first: of production unless an evaluation or a run is named."""
        actor = acting(request, "runs:read")
        found, more = paging.page(scores_of(actor, request.query_params), request.query_params, "scr")
        return Response(paging.answer([score_record(one) for one in found], more))


def evaluations_of(actor: Actor) -> "QuerySet[Evaluation]":
    rows = Evaluation.objects.select_related("suite", "release", "tenant", "started_by")
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def scores_of(actor: Actor, query: Any) -> "QuerySet[Score]":
    rows = Score.objects.select_related("tenant", "case").filter(measures__isnull=False)
    rows = rows if actor.platform_admin else rows.filter(tenant=actor.tenant)
    if query.get("run_id"):
        return rows.filter(run_id=paging.typed_id("agt", query["run_id"], "run_id"))
    if query.get("evaluation_id"):
        return rows.filter(evaluation_id=paging.typed_id("evl", query["evaluation_id"], "evaluation_id"))
    return rows.filter(evaluation__isnull=True)


def release_of(actor: Actor, text: str) -> Release:
    found = Release.objects.filter(pk=paging.typed_id("rel", text, "release_id"), agent__in=agents(actor)).first()
    if found is None:
        raise NotFound("release")
    return found


def started(actor: Actor, release: Release, wanted: WantedEvaluation) -> Evaluation:
    tenant = Tenant.objects.filter(slug=wanted.tenant).first() if wanted.tenant else actor.tenant
    if tenant is None or not actor.sees(tenant.id):
        raise NotFound("tenant")
    return evaluations.start(
        actor, suites.find(actor, wanted.suite), release, tenant, repetitions=wanted.repetitions,
        ceiling_micro=int(wanted.max_cost_usd * 1_000_000), reason=wanted.reason,
    )  # fmt: skip
