"""Declarative configuration: make the installation look like a document, all or nothing, and say what changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from django.conf import settings
from django.db import connection, transaction

from runs import catalog as runs_catalog
from runs import releases
from runs.models import Agent, ModelDefinition
from tenants import audit, controls, credentials
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Credential, EgressAllow, Tenant
from tools import catalog, permissions, versions
from tools.imports import servers
from tools.lint import Finding, findings
from tools.models import McpServer, Permission, Tool
from tools.spec import destination

from . import apply_ceilings, apply_detectors, apply_groups, apply_rules, apply_runbooks, apply_suites, retention
from .document import AgentBlock, CredentialBlock, Document, PermissionBlock, TenantBlock, ToolBlock

Action = Literal["create", "update", "unchanged", "delete"]
SETTINGS = ("decision", "approvers", "loosen", "group")
ONE_AT_A_TIME = 0x5B0A_9917  # key of the advisory lock


@dataclass(frozen=True, slots=True)
class Change:
    """`kind`: tenant, egress, credential, model, mcp_server, tool, group, permission, rule, agent, release, runbook, detector, suite
    or ceiling.

    `fields`: what an update changes.

    `lint`: of a tool, changed or not; no part of what two changes are compared by.
    """

    kind: str
    name: str
    action: Action
    fields: tuple[str, ...] = ()
    lint: tuple[Finding, ...] = field(default=(), compare=False)


@dataclass(slots=True)
class Order:
    """One application. `secrets` answers `value_env`; surfaces that may not read the environment give none."""

    actor: Actor | None
    document: Document
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def plan(document: Document, secrets: Mapping[str, str] | None = None, *, prune: bool = False) -> list[Change]:
    """What `apply` would do, by doing it and taking it back."""
    return apply(None, document, dry_run=True, prune=prune, secrets=secrets)


@transaction.atomic
def apply(
    actor: Actor | None,
    document: Document,
    *,
    dry_run: bool = False,
    prune: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> list[Change]:
    """Bring the installation to the document in one transaction. Applying twice changes nothing the second time.

    The first release of an agent and every changed release block go live. A release that a person rolled back stays back
    until its block changes. `prune` deletes permissions, groups, rules, egress entries, credentials, unused models and ceilings that a
    given section leaves out; tools, agents and tenants have a history and are never deleted. Refuses as the parts do, with the `path`.
    """
    catalog.need_platform_admin(actor)
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s)", [ONE_AT_A_TIME])
    order = Order(actor, document, secrets or {})
    steps = (
        put_tenants, put_egress, put_credentials, put_models, put_mcp_servers, put_tools, put_agents, put_groups, put_permissions,
        put_rules, put_runbooks, put_detectors, put_suites, put_ceilings,
    )  # fmt: skip
    with versions.together(actor, "configuration applied"):
        changes = [change for step in steps for change in step(order)]
        if prune:
            changes += leave_out(order)
    if dry_run:
        transaction.set_rollback(True)
    return changes


@contextmanager
def at(path: str) -> Iterator[None]:
    """A refusal names the block it came from."""
    try:
        yield
    except Refused as refused:
        refused.fields.setdefault("path", path)
        refused.message = f"{path}: {refused.message}"
        refused.args = (refused.message,)
        raise


def put_tenants(order: Order) -> Iterator[Change]:
    for block in order.document.tenants:
        tenant = Tenant.objects.filter(slug=block.slug).first()
        if tenant is None:
            tenant = Tenant.objects.create(slug=block.slug, name=block.name)
            controls.ensure(tenant)
            audit.append(order.actor, "tenant.created", "tenant", block.slug, None, {"name": block.name}, tenant=None)
            yield Change("tenant", block.slug, "create")
        elif rename(order, tenant, block):
            yield Change("tenant", block.slug, "update", ("name",))
        else:
            yield Change("tenant", block.slug, "unchanged")
        if block.retention is not None:
            action = retention.put(order.actor, tenant, block.retention.history_days)
            yield Change("retention", block.slug, action, ("history_days",) if action == "update" else ())


def rename(order: Order, tenant: Tenant, block: TenantBlock) -> bool:
    if "name" not in block.model_fields_set or tenant.name == block.name:
        return False
    before, tenant.name = tenant.name, block.name
    tenant.save(update_fields=["name"])
    audit.append(order.actor, "tenant.updated", "tenant", tenant.slug, {"name": before}, {"name": block.name}, tenant=None)
    return True


def put_egress(order: Order) -> Iterator[Change]:
    for host_port in order.document.egress.allow:
        new = catalog.allow_egress(order.actor, host_port)
        yield Change("egress", host_port.lower(), "create" if new else "unchanged")


def put_credentials(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.credentials):
        with at(f"credentials[{index}]"):
            yield put_credential(order, block)


def put_credential(order: Order, block: CredentialBlock) -> Change:
    tenant, secret = tenant_of(block.tenant), secret_of(order, block)
    row = Credential.objects.filter(tenant=tenant, name=block.name).first()
    name = f"{block.tenant}/{block.name}"
    fields = different(row, tenant, block, secret) if row else ()
    if row and not fields:
        return Change("credential", name, "unchanged")
    before = {"version": row.version, "kind": row.kind} if row else None
    stored = credentials.store(tenant, block.name, block.kind, secret, block.header)
    after = {"version": stored.version, "kind": stored.kind}
    action = "credential.updated" if row else "credential.created"
    audit.append(order.actor, action, "credential", block.name, before, after, tenant=tenant)
    controls.bump(tenant)
    return Change("credential", name, "update" if row else "create", fields)


def secret_of(order: Order, block: CredentialBlock) -> str:
    if block.value is not None:
        return block.value.get_secret_value()
    if block.value_env is None or block.value_env not in order.secrets:
        raise Refused("no_value", f"There is no value for {block.value_env} here. Set that environment variable, or give a value.")
    return order.secrets[block.value_env]


def different(row: Credential, tenant: Tenant, block: CredentialBlock, secret: str) -> tuple[str, ...]:
    try:
        held = credentials.open(tenant.id, row.name, row.sealed)
    except credentials.Unreadable:
        held = None
    pairs = {"kind": (row.kind, block.kind), "header": (row.header, block.header), "value": (held, secret)}
    return tuple(name for name, (was, now) in pairs.items() if was != now)


def put_models(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.models):
        with at(f"models[{index}]"):
            new = not ModelDefinition.objects.filter(name=block.name).exists()
            _, fields = runs_catalog.put_model(order.actor, block.name, block)
            yield Change("model", block.name, "create", ()) if new else changed("model", block.name, fields)


def changed(kind: str, name: str, fields: tuple[str, ...]) -> Change:
    return Change(kind, name, "update" if fields else "unchanged", fields)


def put_mcp_servers(order: Order) -> Iterator[Change]:
    """Named here, read later: nothing is asked of a server inside this transaction."""
    for index, block in enumerate(order.document.mcp_servers):
        with at(f"mcp_servers[{index}]"):
            new = not McpServer.objects.filter(name=block.name).exists()
            given = {"url": block.url, "credential": block.credential, "tenants": block.tenants, "transport": block.transport}
            _, fields = servers.put(order.actor, block.name, **given)  # type: ignore[arg-type]
            yield Change("mcp_server", block.name, "create") if new else changed("mcp_server", block.name, fields)


def put_tools(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.tools):
        with at(f"tools[{index}]"):
            yield replace(put_tool(order, block), lint=findings(block.name, block))
    for index, block in enumerate(order.document.tools):
        with at(f"tools[{index}].compensate.tool"):
            check_undo(block)


def check_undo(block: ToolBlock) -> None:
    """What undoes a tool is there once all of the document is. Refuses unknown_tool 422."""
    if block.compensate and not Tool.objects.filter(name=block.compensate.tool).exists():
        raise Refused("unknown_tool", f"There is no tool {block.compensate.tool} to undo {block.name}. Define it too.")


def put_tool(order: Order, block: ToolBlock) -> Change:
    tool = Tool.objects.select_related("current").filter(name=block.name).first()
    before = tool.current if tool else None
    version, _ = catalog.put(order.actor, block.name, block)
    if tool is None or before is None:
        return Change("tool", block.name, "create")
    names = sorted(block.stored()) if version != before else []
    fields = [name for name in names if getattr(version, name) != getattr(before, name)]
    return changed("tool", block.name, (*fields, *(["tenants"] if tool.tenants != sorted(set(block.tenants)) else [])))


def put_agents(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.agents):
        with at(f"agents[{index}]"):
            agent, action = runs_catalog.put_agent(order.actor, block.name, block.tenants)
            yield Change("agent", block.name, action, ("tenants",) if action == "update" else ())
            if block.release is not None:
                yield put_release(order, agent, block)


def put_release(order: Order, agent: Agent, block: AgentBlock) -> Change:
    assert block.release is not None
    release, new = releases.make(order.actor, agent, block.release.model_dump(mode="json"))
    name = f"{agent.name} r{release.number}"
    if not new and releases.taken_back(release):
        return Change("release", name, "unchanged", ("rolled back by a person",))
    before = agent.live
    if not releases.promote(order.actor, release):
        return Change("release", name, "unchanged")
    if before is None:
        return Change("release", name, "create", ("live",))
    fields = [key for key in release.spec if release.spec[key] != before.spec.get(key)]
    if release.tools != before.tools and "tools" not in fields:
        fields.append("tool versions")
    return Change("release", name, "create" if new else "update", (*fields, "live"))


def put_permissions(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.permissions):
        with at(f"permissions[{index}]"):
            yield put_permission(order, block)


def put_permission(order: Order, block: PermissionBlock) -> Change:
    if block.agent and not Agent.objects.filter(name=block.agent).exists():
        raise Refused("unknown_agent", f"There is no agent {block.agent}.", agent=block.agent)
    tenant = tenant_of(block.tenant) if block.tenant else None
    place = {"agent": block.agent, "user_role": block.user_role, "when": block.when}
    before = Permission.objects.filter(tool_id=block.tool, tenant=tenant, **place).first()
    after, _ = permissions.set_permission(
        order.actor,
        block.tool,
        tenant,
        decision=block.decision,
        approvers=block.approvers,
        loosen=block.loosen,
        group=block.group,
        **place,
    )
    name = f"{block.tool} x {block.tenant or 'every tenant'} x {block.agent or 'every agent'}"
    if before is None:
        return Change("permission", name, "create")
    return changed("permission", name, tuple(key for key in SETTINGS if getattr(before, key) != getattr(after, key)))


def put_groups(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.groups):
        with at(f"groups[{index}]"):
            yield Change("group", *apply_groups.put(order.actor, order.document, block, tenant_of(block.tenant)))


def put_rules(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.rules):
        with at(f"rules[{index}]"):
            name, action, fields = apply_rules.put(order.actor, block, tenant_of(block.tenant) if block.tenant else None)
            yield Change("rule", name, action, fields)


def put_runbooks(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.runbooks):
        with at(f"runbooks[{index}]"):
            yield Change("runbook", block.name, *apply_runbooks.put(order.actor, block))


def put_detectors(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.detectors):
        with at(f"detectors[{index}]"):
            yield Change("detector", *apply_detectors.put(order.actor, block))


def put_suites(order: Order) -> Iterator[Change]:
    for index, block in enumerate(order.document.suites):
        with at(f"suites[{index}]"):
            yield Change("suite", *apply_suites.put(order.actor, block))


def put_ceilings(order: Order) -> Iterator[Change]:
    """Last: a new ceiling holds up whoever accepts a run until this transaction is over."""
    for place in apply_ceilings.places(order.document):
        with at(place.path):
            for name, action in apply_ceilings.put(order.actor, place):
                yield Change("ceiling", name, action, ("value",) if action == "update" else ())


def leave_out(order: Order) -> list[Change]:
    """Only sections that the document gives: a document about tools says nothing about permissions."""
    given, gone = order.document.model_fields_set, list[Change]()
    if "permissions" in given:
        gone += prune_permissions(order)
    gone += prune_named(order)
    if "egress" in given:
        allowed = {host_port.lower() for host_port in order.document.egress.allow}
        for host_port in EgressAllow.objects.exclude(host_port__in=allowed).values_list("host_port", flat=True):
            catalog.refuse_egress(order.actor, host_port)
            gone.append(Change("egress", host_port, "delete"))
    if "credentials" in given:
        gone += prune_credentials(order)
    if "models" in given:
        kept = {block.name for block in order.document.models}
        for name in ModelDefinition.objects.exclude(name__in=kept).order_by("name").values_list("name", flat=True):
            with at("models"):
                runs_catalog.delete_model(order.actor, name)
            gone.append(Change("model", name, "delete"))
    places = apply_ceilings.places(order.document)
    gone += [Change("ceiling", name, "delete") for place in places for name in apply_ceilings.prune(order.actor, place)]
    return gone


def prune_named(order: Order) -> Iterator[Change]:
    for section, kind, prune in (("groups", "group", apply_groups.prune), ("rules", "rule", apply_rules.prune)):
        if section in order.document.model_fields_set:
            for name in prune(order.actor, order.document):
                yield Change(kind, name, "delete")


def prune_permissions(order: Order) -> Iterator[Change]:
    kept = {(p.tool, p.tenant, p.agent, p.user_role, p.when) for p in order.document.permissions}
    for row in Permission.objects.select_related("tenant").order_by("id"):
        slug = row.tenant.slug if row.tenant else None
        if (row.tool_id, slug, row.agent, row.user_role, row.when) not in kept:
            name = f"{row.tool_id} x {slug or 'every tenant'} x {row.agent or 'every agent'}"
            permissions.delete(order.actor, row)
            yield Change("permission", name, "delete")


def prune_credentials(order: Order) -> Iterator[Change]:
    """Of the tenants that the document names."""
    slugs = {block.slug for block in order.document.tenants} | {block.tenant for block in order.document.credentials}
    kept = {(block.tenant, block.name) for block in order.document.credentials}
    for row in Credential.objects.select_related("tenant").filter(tenant__slug__in=slugs).order_by("id"):
        if (row.tenant.slug, row.name) not in kept:
            before = {"version": row.version, "kind": row.kind}
            audit.append(order.actor, "credential.deleted", "credential", row.name, before, None, tenant=row.tenant)
            controls.bump(row.tenant)
            row.delete()
            yield Change("credential", f"{row.tenant.slug}/{row.name}", "delete")


def tenant_of(slug: str) -> Tenant:
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise Refused("unknown_tenant", f"There is no tenant {slug}. List it under tenants.", tenant=slug)
    return tenant


def sandbox_variables() -> dict[str, str]:
    """What `${…}` may name in files: where the sandbox of this installation is."""
    host, port = destination(settings.SANDBOX_URL)
    return {"SANDBOX_URL": settings.SANDBOX_URL.rstrip("/"), "SANDBOX_HOSTPORT": f"{host}:{port}"}
