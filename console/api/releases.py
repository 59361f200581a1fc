"""Releases and how they go out, over HTTP. Read by who sees the agent; moved by platform admins."""

from decimal import Decimal
from typing import Annotated, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import release_records as rr
from console import release_writes as writes
from runs import stages
from runs.models import Agent, Release, Rollout
from runs.rehearsals import Reads
from runs.rollouts import ENOUGH
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tools.catalog import need_platform_admin

from . import paging
from .approvers import Reason, Strict, acting, body, plain
from .registry import Releases as MakeRelease
from .registry import agent_record, agents
from .schemas import AGENT, COUNTED, RELEASE, TEXTS, answers, listed
from .schemas import record as shape

Share = Annotated[float, Field(ge=0, le=1)]
ROLLOUT = shape(
    "rollout_id kind agent state candidate baseline key reads reason started_at step_at",
    "max_cost_usd started_by ended_by ended_at looked_at", "enough", "verdict",
    share={"type": "number"}, steps={"type": "array", "items": {"type": "number"}},
)  # fmt: skip
WHOLE_RELEASE = RELEASE | {
    "properties": RELEASE["properties"]
    | shape("stage", "created_by objection", tool_versions=COUNTED, models=COUNTED, rollouts={"type": "array", "items": ROLLOUT})[
        "properties"
    ]
}
MOVED = {"type": "array", "items": shape("name way", before={}, after={})}
DIFF = shape(
    "before after", flags="same", instructions={"type": "array", "items": shape("what text")},
    ladder={"type": "array", "items": shape("what on do")}, tools=MOVED, models=MOVED, limits=MOVED, memory=MOVED,
)  # fmt: skip
WRITE = shape("call_id run_id tool effect state args_sha256", "applied_at", "step_id ord", "compensation")
UNDONE = shape("call_id", "run_id code message")
TAKEN_BACK = AGENT | {"properties": AGENT["properties"] | {"runs": shape("in_flight", "", "count"), "stopped": TEXTS}}
PAGED = [OpenApiParameter("cursor", OpenApiTypes.STR), OpenApiParameter("limit", OpenApiTypes.INT)]


class WantedShadow(Strict):
    """`share`: of the runs of the live release; `max_cost_usd`: of all shadows together."""

    share: Share
    reads: Reads = "both"
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=6)] | None = None
    reason: Reason = ""


class WantedCanary(Strict):
    """`steps`: the shares it goes through; `key`: who keeps the same release; `enough`: runs at a share before it may go on."""

    steps: Annotated[tuple[Share, ...], Field(min_length=1, max_length=10)] = stages.STEPS
    key: Literal["tenant", "user", "session"] = "user"
    enough: Annotated[int, Field(ge=2, le=20_000)] = ENOUGH
    reason: Reason = ""


class WantedPromotion(Strict):
    """`override`: in spite of what speaks against it; two people have to say so, each with a reason."""

    reason: Reason = ""
    override: bool = False


class WantedRollback(Strict):
    """`in_flight`: what becomes of the runs that have it: they go on, go on with the other release from their next step, or end."""

    in_flight: stages.InFlight = "finish"
    reason: Reason = ""


class WantedShare(Strict):
    share: Share
    reason: Reason = ""


class WantedReason(Strict):
    reason: Reason = ""


class WantedUndo(Strict):
    calls: Annotated[tuple[Annotated[str, Field(max_length=60)], ...], Field(min_length=1, max_length=writes.MOST)]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


def agent_now(release: Release) -> Agent:
    return Agent.objects.select_related("live").get(pk=release.agent_id)


class Releases(MakeRelease):
    @extend_schema(operation_id="list_releases", parameters=PAGED, responses=answers({200: listed(WHOLE_RELEASE)}))
    def get(self, request: Request, name: str) -> Response:
        """Newest first."""
        actor = acting(request, "config:read")
        agent = agents(actor).filter(pk=name).first()
        if agent is None:
            raise NotFound("agent")
        rows = Release.objects.filter(agent=agent).select_related("agent", "created_by")
        found, more = paging.page(rows, request.query_params, "rel")
        return Response(paging.answer([rr.whole_record(actor, one) for one in found], more))


class OneRelease(APIView):
    @extend_schema(operation_id="get_release", responses=answers({200: WHOLE_RELEASE}))
    def get(self, request: Request, release_id: str) -> Response:
        actor = acting(request, "config:read")
        return Response(rr.whole_record(actor, rr.find(actor, release_id)))


class Diff(APIView):
    @extend_schema(operation_id="diff_releases", responses=answers({200: DIFF}))
    def get(self, request: Request, release_id: str, other_id: str) -> Response:
        """What the second one has that the first has not, and the other way round."""
        actor = acting(request, "config:read")
        return Response(rr.diff_record(rr.find(actor, release_id), rr.find(actor, other_id)))


class Shadow(APIView):
    @extend_schema(operation_id="shadow_release", request=plain(WantedShadow), responses=answers({201: ROLLOUT}))
    def post(self, request: Request, release_id: str) -> Response:
        """Ended runs of the live release, once more on this one. They change nothing."""
        actor = acting(request, "config:write")
        release, said = rr.find(actor, release_id), WantedShadow.model_validate(body(request))
        most = None if said.max_cost_usd is None else int(said.max_cost_usd * 1_000_000)
        made = stages.shadow(actor, release, share=said.share, reads=said.reads, max_cost_micro=most, reason=said.reason)
        return Response(rr.rollout_record(actor, rr.find_rollout(actor, str(made))), status=201)


class Canary(APIView):
    @extend_schema(operation_id="canary_release", request=plain(WantedCanary), responses=answers({201: ROLLOUT}))
    def post(self, request: Request, release_id: str) -> Response:
        """A share of new runs. It grows, is held and is rolled back by the watch; it goes live by a person's word."""
        actor = acting(request, "config:write")
        release, said = rr.find(actor, release_id), WantedCanary.model_validate(body(request))
        made = stages.canary(actor, release, steps=said.steps, key=said.key, enough=said.enough, reason=said.reason)
        return Response(rr.rollout_record(actor, rr.find_rollout(actor, str(made))), status=201)


class Promote(APIView):
    @extend_schema(operation_id="promote_release", request=plain(WantedPromotion), responses=answers({200: AGENT}))
    def post(self, request: Request, release_id: str) -> Response:
        """New runs get it. Refused with the reason while its canary speaks against it."""
        actor = acting(request, "config:write")
        release, said = rr.find(actor, release_id), WantedPromotion.model_validate(body(request))
        stages.promote(actor, release, said.reason, override=said.override)
        return Response(agent_record(agent_now(release)))


class Rollback(APIView):
    @extend_schema(operation_id="roll_back_release", request=plain(WantedRollback), responses=answers({200: TAKEN_BACK}))
    def post(self, request: Request, release_id: str) -> Response:
        """Live or canary. `stop` ends its runs; the writes that they made are at `GET /releases/{id}/writes`."""
        actor = acting(request, "config:write")
        release, said = rr.find(actor, release_id), WantedRollback.model_validate(body(request))
        need_platform_admin(actor)
        if said.in_flight == "stop":
            actor.need("runs:write")
        held = rr.runs_of(actor, release).filter(ended_at=None).count()
        stages.roll_back(actor, release, in_flight=said.in_flight, reason=said.reason)
        stopped = stages.stop_in_flight(actor, release) if said.in_flight == "stop" else []
        told = {"runs": {"in_flight": said.in_flight, "count": held}, "stopped": [encode("agt", run) for run in stopped]}
        return Response(agent_record(agent_now(release)) | told)


class Writes(APIView):
    @extend_schema(operation_id="list_release_writes", parameters=PAGED, responses=answers({200: listed(WRITE)}))
    def get(self, request: Request, release_id: str) -> Response:
        """What the release's runs wrote, newest run first, and whether it can be undone."""
        actor = acting(request, "runs:read")
        release, query = rr.find(actor, release_id), request.query_params
        limit = paging.number(query.get("limit"), "limit", paging.DEFAULT, 1, paging.MOST)
        rows, more = writes.of_release(actor, release, before=query.get("cursor", ""), limit=limit)
        return Response(paging.answer([writes.record(row) for row in rows], more or None))


class Undo(APIView):
    @extend_schema(
        operation_id="undo_release_writes",
        request=plain(WantedUndo),
        responses=answers({202: {"type": "object", "properties": {"items": {"type": "array", "items": UNDONE}}}}),
    )
    def post(self, request: Request, release_id: str) -> Response:
        """Each is undone by a run of its own, under the permissions and approvals of now."""
        actor = acting(request, "runs:write")
        release, said = rr.find(actor, release_id), WantedUndo.model_validate(body(request))
        return Response({"items": writes.undo_chosen(actor, release, list(said.calls), said.reason)}, status=202)


class Rollouts(APIView):
    @extend_schema(operation_id="list_rollouts", parameters=PAGED, responses=answers({200: listed(ROLLOUT)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        found, more = paging.page(rr.rollouts(actor), request.query_params, "rol")
        return Response(paging.answer([rr.rollout_record(actor, one) for one in found], more))


class OneRollout(APIView):
    @extend_schema(operation_id="get_rollout", responses=answers({200: ROLLOUT}))
    def get(self, request: Request, rollout_id: str) -> Response:
        actor = acting(request, "config:read")
        return Response(rr.rollout_record(actor, rr.find_rollout(actor, rollout_id)))


class MoveRollout(APIView):
    """`share`, `hold`, `resume` or `end`: one guarded move."""

    verb = ""

    def move(self, request: Request, rollout_id: str, model: type[Strict]) -> Response:
        actor = acting(request, "config:write")
        found, said = rr.find_rollout(actor, rollout_id), model.model_validate(body(request))
        if not turned(actor, found, self.verb, getattr(said, "share", 0.0), getattr(said, "reason", "")):
            raise Refused("rollout_moved", "It is so already, or somebody ended it. Look again.", 409)
        return Response(rr.rollout_record(actor, rr.find_rollout(actor, rollout_id)))


class ShareRollout(MoveRollout):
    verb = "share"

    @extend_schema(operation_id="share_rollout", request=plain(WantedShare), responses=answers({200: ROLLOUT}))
    def post(self, request: Request, rollout_id: str) -> Response:
        """A larger share keeps everybody who has the candidate already."""
        return self.move(request, rollout_id, WantedShare)


class HoldRollout(MoveRollout):
    verb = "hold"

    @extend_schema(operation_id="hold_rollout", request=plain(WantedReason), responses=answers({200: ROLLOUT}))
    def post(self, request: Request, rollout_id: str) -> Response:
        return self.move(request, rollout_id, WantedReason)


class ResumeRollout(MoveRollout):
    verb = "resume"

    @extend_schema(operation_id="resume_rollout", request=plain(WantedReason), responses=answers({200: ROLLOUT}))
    def post(self, request: Request, rollout_id: str) -> Response:
        return self.move(request, rollout_id, WantedReason)


class EndRollout(MoveRollout):
    verb = "end"

    @extend_schema(operation_id="end_rollout", request=plain(WantedReason), responses=answers({200: ROLLOUT}))
    def post(self, request: Request, rollout_id: str) -> Response:
        """Nothing new goes to the candidate. To take it back with a verdict, roll the release back."""
        return self.move(request, rollout_id, WantedReason)


def turned(actor: Actor, rollout: Rollout, verb: str, share: float, reason: str) -> bool:
    """False: it is so already, or over. Refuses as `stages` does."""
    if verb == "share":
        return stages.set_share(actor, rollout, share, reason)
    if verb == "end":
        return stages.end(actor, rollout, Rollout.State.ENDED, reason)
    return stages.hold(actor, rollout, verb == "hold", reason)
