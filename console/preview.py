"""What would happen? One call that nobody makes, decided as the engine would decide it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from django.db.models import Q
from pydantic import BaseModel, ConfigDict, Field

from runs.models import Agent
from runs.spec import ReleaseSpec
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools import catalog, past, policy, proposals, schemas
from tools.models import Permission, Rule, Tool, ToolVersion
from tools.proposals import Proposal
from tools.replay import Policy

JSON = dict[str, Any]
Name = Annotated[str, Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Used(BaseModel):
    """Calls of one tool so far, and the sums of their arguments."""

    model_config = ConfigDict(extra="forbid")
    count: Count = 0
    sums: dict[str, float] = Field(default_factory=dict, max_length=50)


class Sample(BaseModel):
    """A call, and what its run did before. `tools`: of the run; `day`: of the tenant today. `proposal`: a change to try as well."""

    model_config = ConfigDict(extra="forbid")
    tool: Name
    agent: Name
    tenant: Annotated[str, Field(max_length=63)] | None = None  # None: the caller's own
    args: dict[str, Any] = Field(default_factory=dict)
    user: dict[str, Any] | None = None  # {id, attributes}
    labels: tuple[Name, ...] = ()
    tools: dict[Name, Used] = Field(default_factory=dict, max_length=100)
    day: dict[Name, Used] = Field(default_factory=dict, max_length=100)
    writes: Count = 0
    cost_usd: Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)] = 0.0
    step: Annotated[int, Field(ge=1, le=10_000)] = 1
    mode: Literal["normal", "read_only", "draft"] = "normal"
    proposal: Proposal | None = None


@dataclass(frozen=True, slots=True)
class Foretold:
    """`proposed`: the decision under the proposal, None without one. `schema_errors`: it would not be sent for these."""

    tenant: Tenant
    version: ToolVersion
    offered: bool
    decision: policy.Decision
    proposed: policy.Decision | None
    schema_errors: list[str]

    def as_json(self) -> JSON:
        return {
            "tenant": self.tenant.slug, "tool": self.version.tool_id, "tool_version": self.version.number, "offered": self.offered,
            **told(self.decision, self.tenant), "schema_errors": self.schema_errors,
            "proposed": told(self.proposed, self.tenant) if self.proposed else None,
        }  # fmt: skip


def told(decision: policy.Decision, tenant: Tenant) -> JSON:
    return {
        "decision": decision.verdict, "approvers": decision.approvers, "why": decision.why, "by": decision.by,
        "because": [asdict(source) for source in decision.because], "source": source_of(decision.by, tenant),
    }  # fmt: skip


def source_of(by: str, tenant: Tenant) -> JSON | None:
    """The row that decided, by its kind; None: a default, a mode, or a row that is only proposed."""
    kind, _, name = by.partition(":")
    mine = Q(tenant=None) | Q(tenant=tenant)
    if kind == "permission" and name.isdigit():
        row = Permission.objects.select_related("tenant").filter(mine, pk=int(name)).first()
        where = {"agent": row.agent, "tool": row.tool_id, "when": row.when} if row else {}
        return {"kind": "permission", "id": row.pk, "tenant": row.tenant.slug if row.tenant else None, **where} if row else None
    if kind == "rule":
        rule = Rule.objects.select_related("tenant").filter(mine, name=name).order_by("id").first()
        return {"kind": "rule", "name": name, "tenant": rule.tenant.slug if rule.tenant else None, "when": rule.when} if rule else None
    return None


def foretell(actor: Actor, sample: Sample) -> Foretold:
    """Refuses: not_found 404 for what the actor does not see, bad_user 422, and what saving the proposal would refuse."""
    tenant = proposals.scope_of(actor, sample.tenant) or actor.tenant
    if sample.proposal:
        proposals.checked(actor, sample.proposal)
    release = seen(Agent, actor, sample.agent, "agent").live
    tool = seen(Tool, actor, sample.tool, "tool")
    pinned = (release.tools if release else {}).get(sample.tool)
    version = ToolVersion.objects.filter(pk=pinned).first() if pinned else tool.current
    if version is None:
        raise NotFound("version of this tool")
    facts = facts_of(sample, tenant, version, release.number if release else 0, spec_tools(release.spec) if release else ())
    now, then = proposals.policies([tenant], sample.proposal)[tenant.slug]
    enabled = sample.tool in catalog.enabled_tools(tenant.slug)

    def decided(held_to: Policy) -> policy.Decision:
        return policy.decide(facts, held_to.rows, held_to.rules, offered=bool(pinned), enabled=enabled, mode=sample.mode)

    errors = list(schemas.compile(version.input_schema).errors(sample.args))
    return Foretold(tenant, version, bool(pinned), decided(now), decided(then) if sample.proposal else None, errors)


def spec_tools(spec: JSON) -> tuple[str, ...]:
    return tuple(ReleaseSpec.model_validate(spec).tools)


def seen(model: Any, actor: Actor, name: str, what: str) -> Any:
    mine = Q() if actor.platform_admin else Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug])
    found = model.objects.filter(mine, name=name).first()
    if found is None:
        raise NotFound(what)
    return found


def facts_of(sample: Sample, tenant: Tenant, version: ToolVersion, release: int, tools: tuple[str, ...]) -> policy.Facts:
    user = sample.user or {}
    if not isinstance(user.get("attributes") or {}, dict):
        raise Refused("bad_user", 'The user\'s attributes are an object, such as {"role": "admin"}.', 422, field="user")
    used, day = ({name: each.model_dump() for name, each in given.items()} for given in (sample.tools, sample.day))
    return policy.Facts(
        tool=sample.tool,
        effect=version.effect,
        labels=frozenset(version.labels),
        args=sample.args,
        run={
            "agent": sample.agent, "tenant": tenant.slug, "user": user, "release": release, "step": sample.step,
            "labels": sorted(set(sample.labels)), "writes": sample.writes, "cost_usd": sample.cost_usd,
            "tools": past.none_yet(tools) | used,
        },
        now=datetime.now(UTC).isoformat(),
        day={"tools": past.none_yet(tools) | day},
    )  # fmt: skip
