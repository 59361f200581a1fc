"""Who decides over HTTP: groups, delegations, standing grants, how they do, and decisions that broke the glass."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from approvals import delegations, groups, reviews
from approvals.health import Line
from approvals.models import Delegation, GlassReview, Group, StandingGrant
from console import records, reviewers
from runs import standing_grants
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode
from tenants.models import Tenant

from . import paging
from .approvals import find as find_approval
from .schemas import LIST, NUMBER_OR_NULL, REASON, TEXTS, WHOLE, answers, inline, listed
from .schemas import record as shape
from .switches import tenant_named

Slug = Annotated[str, Field(max_length=63)]
Name = Annotated[str, Field(max_length=64)]
Reason = Annotated[str, Field(max_length=2000)]
GROUP = shape("name tenant", "escalates_to", people=TEXTS)
DELEGATION = shape("id tenant of to until created_at reason", "revoked_at")
GRANT = shape("grant_id tenant agent tool when state reason by created_at expires_at", "revoked_by revoked_at", "most used", uses=LIST)
LINE = shape(
    "name",
    "",
    "decided rejected edited quick expired broke_glass",
    p50_s=NUMBER_OR_NULL,
    p95_s=NUMBER_OR_NULL,
    rejection_rate=NUMBER_OR_NULL,
)
FINDING = shape("code subject text", "", "n")
HEALTH = shape(
    people={"type": "array", "items": LINE}, tools={"type": "array", "items": LINE}, findings={"type": "array", "items": FINDING},
    days=WHOLE, decided=WHOLE, expired=WHOLE,
)  # fmt: skip
REVIEW = shape("approval_id run_id tenant agent tool by reason at", "reviewed_by reviewed_at note")
USES = 50


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WantedGroup(Strict):
    """`people`: usernames of members; exactly these are in it afterwards."""

    people: Annotated[tuple[Annotated[str, Field(max_length=150)], ...], Field(max_length=200)]
    escalates_to: Name = ""
    reason: Reason = ""


class WantedDelegation(Strict):
    """`of`: whose decisions; absent: your own."""

    to: Annotated[str, Field(max_length=150)]
    until: AwareDatetime
    of: Annotated[str, Field(max_length=150)] = ""
    reason: Annotated[str, Field(max_length=300)] = ""


class WantedGrant(Strict):
    """A yes in advance: `most` times, until then, for calls whose arguments fit `when` (CEL over `args`; empty: any)."""

    agent: Name
    tool: Name
    most: int
    expires_at: AwareDatetime
    reason: Reason
    when: Annotated[str, Field(max_length=2000)] = ""
    tenant: Slug | None = None


class Because(Strict):
    reason: Reason = ""


class Noted(Strict):
    note: Annotated[str, Field(max_length=1000)]


def group_record(group: Group) -> dict[str, Any]:
    people = sorted(person.username for person in group.people.all())
    return {"name": group.name, "tenant": group.tenant.slug, "people": people, "escalates_to": group.escalates_to or None}


def delegation_record(one: Delegation) -> dict[str, Any]:
    names = {"of": one.of.username, "to": one.to.username, "tenant": one.tenant.slug, "reason": one.reason}
    times = {name: records.time(getattr(one, name)) for name in ("until", "created_at", "revoked_at")}
    return {"id": str(one.pk), **names, **times}


def grant_record(grant: StandingGrant, uses: bool = False) -> dict[str, Any]:
    found = {
        "grant_id": str(grant), "tenant": grant.tenant.slug, "agent": grant.agent, "tool": grant.tool, "when": grant.when,
        "most": grant.most, "used": grant.used, "state": standing_grants.state(grant), "reason": grant.reason,
        "by": grant.created_by.username, "created_at": records.time(grant.created_at), "expires_at": records.time(grant.expires_at),
        "revoked_by": grant.revoked_by.username if grant.revoked_by else None, "revoked_at": records.time(grant.revoked_at),
    }  # fmt: skip
    return found | ({"uses": [use_record(use) for use in grant.uses.order_by("-id")[:USES]]} if uses else {})


def use_record(approval: Any) -> dict[str, Any]:
    at = records.time(approval.decided_at)
    return {"approval_id": approval.approval_id, "run_id": encode("agt", approval.run_id), "state": approval.state, "at": at}


def line_record(line: Line) -> dict[str, Any]:
    names = ("name", "decided", "rejected", "edited", "quick", "expired", "broke_glass", "p50_s", "p95_s", "rejection_rate")
    return {name: getattr(line, name) for name in names}


def review_record(review: GlassReview) -> dict[str, Any]:
    approval = review.approval
    said = next((one for one in approval.decisions.all() if one.break_glass), None)
    return {
        "approval_id": approval.approval_id, "run_id": encode("agt", approval.run_id), "tenant": review.tenant.slug,
        "agent": approval.agent, "tool": approval.tool, "by": said.user.username if said else "", "reason": said.reason if said else "",
        "at": records.time(said.at) if said else None, "reviewed_by": review.reviewed_by.username if review.reviewed_by else None,
        "reviewed_at": records.time(review.reviewed_at), "note": review.note or None,
    }  # fmt: skip


def body(request: Request) -> Any:
    """Raises Refused for what is no object; an absent body is an empty one."""
    if not isinstance(request.data, dict):
        raise Refused("validation", "The body must be a JSON object.", 422)
    return request.data


def acting(request: Request, scope: str) -> Actor:
    """Who asks. The scope comes first: nothing of the body is answered without it."""
    actor: Actor = request.auth  # type: ignore[assignment]
    actor.need(scope)
    return actor


def plain(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": inline(model.model_json_schema())}


class Groups(APIView):
    @extend_schema(operation_id="list_groups", responses=answers({200: listed(GROUP)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "config:read")
        rows: QuerySet[Group] = Group.objects.filter(tenant=actor.tenant).select_related("tenant").prefetch_related("people")
        return Response({"items": [group_record(one) for one in rows.order_by("name")], "next_cursor": None})


class OneGroup(APIView):
    @extend_schema(operation_id="get_group", responses=answers({200: GROUP}))
    def get(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:read")
        return Response(group_record(groups.find(actor, actor.tenant, name)))

    @extend_schema(operation_id="put_group", request=plain(WantedGroup), responses=answers({200: GROUP, 201: GROUP}))
    def put(self, request: Request, name: str) -> Response:
        actor, wanted = acting(request, "config:write"), WantedGroup.model_validate(body(request))
        made, action = groups.put(actor, actor.tenant, name, wanted.people, wanted.escalates_to, wanted.reason)
        return Response(group_record(made), status=201 if action == "create" else 200)

    @extend_schema(operation_id="delete_group", responses=answers({204: {}}))
    def delete(self, request: Request, name: str) -> Response:
        actor = acting(request, "config:write")
        groups.delete(actor, groups.find(actor, actor.tenant, name))
        return Response(status=204)


class Delegations(APIView):
    @extend_schema(operation_id="list_delegations", responses=answers({200: listed(DELEGATION)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "approvals:read")
        rows = delegations.visible(actor)[:200]
        return Response({"items": [delegation_record(one) for one in rows], "next_cursor": None})

    @extend_schema(operation_id="give_delegation", request=plain(WantedDelegation), responses=answers({201: DELEGATION}))
    def post(self, request: Request) -> Response:
        actor, wanted = acting(request, "approvals:decide"), WantedDelegation.model_validate(body(request))
        made = delegations.give(actor, actor.tenant, to=wanted.to, until=wanted.until, of=wanted.of, reason=wanted.reason)
        return Response(delegation_record(made), status=201)


class RevokeDelegation(APIView):
    @extend_schema(operation_id="revoke_delegation", request=REASON, responses=answers({200: DELEGATION}))
    def post(self, request: Request, delegation_id: str) -> Response:
        actor, why = acting(request, "approvals:decide"), Because.model_validate(body(request))
        return Response(delegation_record(delegations.revoke(actor, delegations.find(actor, delegation_id), why.reason)))


class Grants(APIView):
    @extend_schema(operation_id="list_grants", responses=answers({200: listed(GRANT)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "approvals:read")
        found, more = paging.page(standing_grants.visible(actor), request.query_params, "grt")
        return Response(paging.answer([grant_record(one) for one in found], more))

    @extend_schema(operation_id="give_grant", request=plain(WantedGrant), responses=answers({201: GRANT}))
    def post(self, request: Request) -> Response:
        actor, wanted = acting(request, "approvals:decide"), WantedGrant.model_validate(body(request))
        return Response(grant_record(given(actor, wanted)), status=201)


def given(actor: Actor, wanted: WantedGrant) -> StandingGrant:
    """Refuses as `runs.standing_grants.give`, and not_found 404 for another tenant."""
    tenant: Tenant = tenant_named(actor, wanted.tenant) or actor.tenant
    expires_at: datetime = wanted.expires_at
    terms = {"agent": wanted.agent, "tool": wanted.tool, "reason": wanted.reason, "when": wanted.when}
    return standing_grants.give(actor, tenant=tenant, most=wanted.most, expires_at=expires_at, **terms)


class OneGrant(APIView):
    @extend_schema(operation_id="get_grant", description="With the last calls that used it.", responses=answers({200: GRANT}))
    def get(self, request: Request, grant_id: str) -> Response:
        actor = acting(request, "approvals:read")
        return Response(grant_record(standing_grants.find(actor, grant_id), uses=True))


class RevokeGrant(APIView):
    @extend_schema(operation_id="revoke_grant", request=REASON, responses=answers({200: GRANT}))
    def post(self, request: Request, grant_id: str) -> Response:
        actor, why = acting(request, "approvals:decide"), Because.model_validate(body(request))
        return Response(grant_record(standing_grants.revoke(actor, standing_grants.find(actor, grant_id), why.reason)))


class ReviewerHealth(APIView):
    @extend_schema(
        operation_id="get_approvals_health",
        description="Decisions of the last 30 days by tool and by person; people other than oneself are for admins.",
        responses=answers({200: HEALTH}),
    )
    def get(self, request: Request) -> Response:
        found = reviewers.look(acting(request, "approvals:read"))
        told = [{"code": one.code, "subject": one.subject, "n": one.n, "text": one.text} for one in found.findings]
        lists = {"people": [line_record(one) for one in found.people], "tools": [line_record(one) for one in found.tools]}
        return Response({"days": reviewers.DAYS, "decided": found.decided, "expired": found.expired, **lists, "findings": told})


class Reviews(APIView):
    @extend_schema(operation_id="list_reviews", responses=answers({200: listed(REVIEW)}))
    def get(self, request: Request) -> Response:
        actor = acting(request, "approvals:read")
        return Response({"items": [review_record(one) for one in reviews.visible(actor)[:200]], "next_cursor": None})


class Reviewed(APIView):
    @extend_schema(operation_id="review_approval", request=plain(Noted), responses=answers({200: REVIEW}))
    def post(self, request: Request, approval_id: str) -> Response:
        actor, noted = acting(request, "approvals:decide"), Noted.model_validate(body(request))
        done = reviews.reviewed(actor, find_approval(actor, approval_id), noted.note)
        return Response(review_record(reviews.visible(actor).get(pk=done.pk)))
