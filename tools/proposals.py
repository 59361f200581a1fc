"""A change of the policy that somebody thinks about: checked as if it were saved, and the policy as it would be then."""

from collections.abc import Iterable
from typing import Annotated, Literal

from django.db.models import Q
from pydantic import BaseModel, ConfigDict, Field

from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant

from . import catalog, permissions, rules
from .models import Permission, Rule
from .policy import PermissionRow, RuleRow
from .replay import PastCall, PastRun, Policy

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=64)]
Slug = Annotated[str, Field(max_length=63)]
Approvers = Annotated[int, Field(ge=1, le=9)]


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    tenant: Slug | None = None  # None: every tenant
    approvers: Approvers = 1
    remove: bool = False  # as if it were not there


class RuleProposal(Base):
    """The rule of this name in its scope, new or changed."""

    kind: Literal["rule"] = "rule"
    name: Name
    decision: Literal["ask", "draft", "deny"] = "ask"
    when: Text = ""
    on: Literal["call", "answer"] = "call"
    enabled: bool = True


class PermissionProposal(Base):
    """The row of this place (tool, tenant, agent, user role, condition); `id`: a row that moves here from another place."""

    kind: Literal["permission"] = "permission"
    id: int | None = None
    tool: Name
    agent: Name = ""
    user_role: Name = ""
    decision: Literal["allow", "ask", "draft", "deny"] = "ask"
    when: Text = ""
    loosen: bool = False
    group: Name = ""


Proposal = Annotated[RuleProposal | PermissionProposal, Field(discriminator="kind")]


def checked(actor: Actor | None, proposal: Proposal) -> Tenant | None:
    """-> its scope. Refuses what saving it would refuse: not_yours 403, not_found 404, bad_… 422."""
    scope = scope_of(actor, proposal.tenant)
    if isinstance(proposal, RuleProposal):
        rule = made_rule(proposal, scope)
        if not rules.may_edit(actor, rule):
            raise rules.not_yours()
        if not proposal.remove:
            rules.check(rule)
        return scope
    row = made_permission(proposal, scope)
    held = held_row(proposal, scope)
    if not all(permissions.may_edit(actor, each) for each in (row, held) if each is not None):
        raise permissions.not_yours()
    permissions.check(row)
    return scope


def scope_of(actor: Actor | None, slug: str | None) -> Tenant | None:
    """Another tenant is as unknown as one that is not there."""
    if slug is None:
        return None
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None or (actor is not None and not actor.sees(tenant.pk)):
        raise NotFound("tenant")
    return tenant


def made_rule(proposal: RuleProposal, scope: Tenant | None) -> Rule:
    fields = proposal.model_dump(include={"name", "decision", "when", "on", "approvers", "enabled"})
    return Rule(tenant=scope, **fields)


def made_permission(proposal: PermissionProposal, scope: Tenant | None) -> Permission:
    fields = proposal.model_dump(include={"agent", "user_role", "decision", "approvers", "when", "loosen", "group"})
    return Permission(tool_id=proposal.tool, tenant=scope, **fields)


def held_row(proposal: PermissionProposal, scope: Tenant | None) -> Permission | None:
    """The row that the proposal would change."""
    rows = Permission.objects.select_related("tenant")
    if proposal.id is not None:
        found = rows.filter(pk=proposal.id).first()
        if found is None:
            raise NotFound("permission")
        return found
    place = {"agent": proposal.agent, "user_role": proposal.user_role, "when": proposal.when}
    return rows.filter(tool_id=proposal.tool, tenant=scope, **place).first()


def policies(tenants: Iterable[Tenant], proposal: Proposal | None) -> dict[str, tuple[Policy, Policy]]:
    """For each tenant the policy that its runs are held to, and the one under the proposal."""
    found = {}
    for tenant in tenants:
        rows = tuple(catalog.load_permissions(tenant.slug))
        stored = list(Rule.objects.select_related("tenant").filter(Q(tenant=None) | Q(tenant=tenant)).order_by("id"))
        now = Policy(rows, as_rows(stored))
        found[tenant.slug] = now, changed(now, stored, tenant, proposal) if proposal else now
    return found


def changed(now: Policy, stored: list[Rule], tenant: Tenant, proposal: Proposal) -> Policy:
    if proposal.tenant not in (None, tenant.slug):
        return now
    scope = tenant if proposal.tenant else None
    if isinstance(proposal, RuleProposal):
        rest = [rule for rule in stored if (rule.name, rule.tenant) != (proposal.name, scope)]
        return Policy(now.rows, as_rows(rest if proposal.remove else [*rest, made_rule(proposal, scope)]))
    held = held_row(proposal, scope)
    rest_rows = tuple(row for row in now.rows if held is None or row.id != held.pk)
    new = PermissionRow(
        proposal.tool, proposal.tenant, proposal.agent, proposal.user_role, proposal.decision, proposal.approvers, proposal.when,
        proposal.loosen, held.pk if held else "proposed", proposal.group,
    )  # fmt: skip
    return Policy(rest_rows if proposal.remove else (*rest_rows, new), now.rules)


def as_rows(stored: Iterable[Rule]) -> tuple[RuleRow, ...]:
    """Those that are held to."""
    return tuple(RuleRow(rule.name, rule.on, rule.decision, rule.approvers, rule.when) for rule in stored if rule.enabled)


def concerns(proposal: Proposal, run: PastRun, call: PastCall) -> bool:
    """Whether the proposal can change what is decided about the call."""
    if proposal.tenant not in (None, run.tenant):
        return False
    if isinstance(proposal, RuleProposal):
        return proposal.on == "call"
    return proposal.id is not None or (call.tool == proposal.tool and proposal.agent in ("", run.agent))


def check_calls_only(proposal: Proposal) -> None:
    if isinstance(proposal, RuleProposal) and proposal.on == "answer":
        raise Refused("not_supported", "Rules over answers are not held against the past: only calls are kept with all that they met.", 422)
