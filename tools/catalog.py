"""The registry: the only writer of tools, permissions and allowed addresses. Every change is audited and makes runs decide again.

Tools and addresses belong to the installation: platform admins change them. `actor` None is the command line.
"""

from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import Max, Q
from django.db.models.fields.json import KT

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import EgressAllow

from . import conditions, lint, memory
from .definitions import Effect, RetryPolicy, ToolDefinition
from .models import McpServer, Permission, Tool, ToolVersion
from .policy import PermissionRow
from .spec import HttpAdapter, McpAdapter, ToolSpec, private_host_port


@transaction.atomic
def put(actor: Actor | None, name: str, spec: ToolSpec) -> tuple[ToolVersion, bool]:
    """-> (the current version, whether anything changed). Runs of older releases keep the version that they pinned.

    Refuses: platform_admin_needed 403; bad_name, bad_schema, bad_condition, bad_compensation, egress_refused 422.
    """
    need_platform_admin(actor)
    spec = at_its_server(spec)
    check(name, spec)
    check_lint(name, spec)
    tool, _ = Tool.objects.get_or_create(name=name)
    tool = Tool.objects.select_for_update(no_key=True).get(name=name)
    before, digest, seen_by = tool.current, spec.sha256(name), sorted(set(spec.tenants))
    if before is not None and before.sha256 == digest and tool.tenants == seen_by:
        return before, False
    after = tool.versions.filter(sha256=digest).order_by("number").first() or add_version(tool, spec, digest)
    was = {"version": before.number, "sha256": before.sha256, "tenants": tool.tenants} if before else None
    origin = origin_of(tool, spec)
    tool.pending = tool.pending if origin == tool.origin else None
    tool.current, tool.tenants, tool.origin = after, seen_by, origin
    tool.save(update_fields=["current", "tenants", "origin", "pending"])
    now = {"version": after.number, "sha256": digest, "tenants": seen_by}
    audit.append(actor, "tool.updated" if was else "tool.created", "tool", name, was, now, tenant=None)
    controls.bump(None)
    return after, True


def at_its_server(spec: ToolSpec) -> ToolSpec:
    """A tool of an MCP server, with the server's address and credential in it: a version pins whom it speaks to."""
    adapter = spec.adapter
    if not isinstance(adapter, McpAdapter):
        return spec
    server = McpServer.objects.filter(name=adapter.server).first()
    if server is None:
        raise Refused("unknown_server", f"There is no MCP server {adapter.server}. List it under mcp_servers.", server=adapter.server)
    if adapter.url not in ("", server.url):
        raise Refused("wrong_url", f"The address of {server.name} is given under mcp_servers. Leave the url out here.", key="adapter.url")
    return spec.model_copy(
        update={"adapter": adapter.model_copy(update={"url": server.url}), "credential": spec.credential or server.credential}
    )


def origin_of(tool: Tool, spec: ToolSpec) -> dict[str, Any] | None:
    """What is pinned stays pinned while the tool stays the same one on the other side; a new one is pinned when it is first seen."""
    adapter, held = spec.adapter, tool.origin or {}
    if not isinstance(adapter, McpAdapter):
        return None if held.get("kind") == "mcp" else tool.origin
    if (held.get("kind"), held.get("server"), held.get("tool")) == ("mcp", adapter.server, adapter.tool):
        return held
    return {"kind": "mcp", "server": adapter.server, "tool": adapter.tool, "sha256": None, "definition": None}


def add_version(tool: Tool, spec: ToolSpec, digest: str) -> ToolVersion:
    last = tool.versions.aggregate(last=Max("number"))["last"] or 0
    return ToolVersion.objects.create(tool=tool, number=last + 1, sha256=digest, **spec.stored())


def check(name: str, spec: ToolSpec) -> None:
    """What the block alone cannot tell: a name that can be offered, conditions that can be evaluated, an address in reach."""
    if not name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum() or not name.isascii() or len(name) > 64:
        raise Refused("bad_name", "A tool's name has up to 64 letters, digits, '_', '-' and '.'.", name=name[:100])
    memory.check(name, spec)
    if spec.duplicate_when:
        conditions.check(spec.duplicate_when, frozenset({"status", "body"}))
    if isinstance(spec.adapter, HttpAdapter | McpAdapter):
        check_reachable(spec.adapter.url)
    if spec.preview and isinstance(spec.preview.adapter, HttpAdapter):
        check_reachable(spec.preview.adapter.url)
    if spec.compensate and spec.compensate.tool == name:
        raise Refused("bad_compensation", f"{name} cannot undo itself. Name the tool that undoes it.", key="compensate.tool")


def check_lint(name: str, spec: ToolSpec) -> None:
    """Refuses what the lint holds for dangerous, in versions and names that are new: what is registered stays usable."""
    found = lint.refusing(lint.findings(name, spec))
    named = Tool.objects.filter(name=name).exists()
    if not named and (twin := lint.twin(name, Tool.objects.values_list("name", flat=True))):
        found.append(twin)
    if found and not (named and is_registered(name, spec)):
        said = "; ".join(f"{each.path}: {each.message}" for each in found[:5])
        named_lookalike = all(each.code == "name_lookalike" for each in found)
        code = "bad_name" if named_lookalike else "bad_schema"
        raise Refused(code, f"{name} cannot be registered: {said}.", findings=[asdict(each) for each in found])


def is_registered(name: str, spec: ToolSpec) -> bool:
    try:
        return ToolVersion.objects.filter(tool=name, sha256=spec.sha256(name)).exists()
    except ValueError:  # nested too deeply to have a digest, so it never was
        return False


def findings(version: ToolVersion) -> tuple[lint.Finding, ...]:
    """What the lint says of a version, of one that would be refused today too."""
    fields = {name: getattr(version, name) for name in ("description", "input_schema", "output_schema", "labels")}
    return lint.findings(version.tool_id, ToolSpec.model_construct(effect=Effect(version.effect), **fields))


def check_reachable(url: str) -> None:
    """Refuses an address that is not public unless it is listed. Names are judged when they are called."""
    host_port = private_host_port(url)
    if host_port is not None and not EgressAllow.objects.filter(host_port=host_port).exists():
        raise Refused(
            "egress_refused",
            f"{host_port} is not a public address. A platform admin can list it under egress: allow.",
            host_port=host_port,
        )


@transaction.atomic
def set_enabled(actor: Actor | None, name: str, enabled: bool, reason: str = "") -> bool:
    """Switch a tool on or off, for running runs too. -> whether it changed."""
    need_platform_admin(actor)
    if enabled:
        check_known(name)
    changed = Tool.objects.filter(name=name, enabled=not enabled).update(enabled=enabled)
    if changed:
        action = "tool.enabled" if enabled else "tool.disabled"
        audit.append(actor, action, "tool", name, {"enabled": not enabled}, {"enabled": enabled}, reason, tenant=None)
        controls.bump(None)
    elif not Tool.objects.filter(name=name).exists():
        raise NotFound("tool")
    return bool(changed)


def check_known(name: str) -> None:
    """A tool goes on when a person knows what it is: not before it is classified, nor while its definition has changed."""
    tool = Tool.objects.select_for_update(no_key=True).filter(name=name).first()
    if tool is not None and not tool.classified:
        raise Refused("not_classified", f"Nobody has said yet what {name} does. Classify it first.", 409, tool=name)
    if tool is not None and tool.pending is not None:
        raise Refused("definition_changed", f"The definition of {name} changed on the other side. Accept it first.", 409, tool=name)


@transaction.atomic
def allow_egress(actor: Actor | None, host_port: str) -> bool:
    """List a host:port that is not public. -> whether it is new."""
    need_platform_admin(actor)
    _, new = EgressAllow.objects.get_or_create(host_port=host_port.strip().lower())
    if new:
        audit.append(actor, "egress.allowed", "egress", host_port, None, {"host_port": host_port}, tenant=None)
        controls.bump(None)
    return new


@transaction.atomic
def refuse_egress(actor: Actor | None, host_port: str) -> bool:
    """Take a host:port off the list. -> whether it was there."""
    need_platform_admin(actor)
    gone, _ = EgressAllow.objects.filter(host_port=host_port).delete()
    if gone:
        audit.append(actor, "egress.refused", "egress", host_port, {"host_port": host_port}, None, tenant=None)
        controls.bump(None)
    return bool(gone)


def definition(version: ToolVersion) -> ToolDefinition:
    return ToolDefinition(
        version_id=version.id,
        name=version.tool_id,
        description=version.description,
        effect=Effect(version.effect),
        idempotency="key" if version.idempotency == "key" else "none",
        adapter=version.adapter,
        input_schema=version.input_schema,
        output_schema=version.output_schema,
        timeout_s=version.timeout_s,
        retry=RetryPolicy.from_json(version.retry),
        labels=frozenset(version.labels),
        duplicate_when=version.duplicate_when or None,
        verify=version.verify,
        preview=version.preview,
        effect_key=version.effect_key,
        effect_window_s=version.effect_window_s,
        idempotency_window_s=version.idempotency_window_s,
    )


def enabled_tools(tenant_slug: str) -> frozenset[str]:
    """The tools that are on, whose servers are on, and that this tenant sees."""
    seen = Q(tenants=[]) | Q(tenants__contains=[tenant_slug])
    found = Tool.objects.filter(seen, enabled=True, classified=True, pending__isnull=True).annotate(server=KT("origin__server"))
    off = set(McpServer.objects.filter(enabled=False).values_list("name", flat=True))
    return frozenset(name for name, server in found.values_list("name", "server") if server not in off)


def load_permissions(tenant_slug: str) -> list[PermissionRow]:
    """The rows that can matter to runs of this tenant: its own, and those of every tenant."""
    rows = Permission.objects.filter(Q(tenant=None) | Q(tenant__slug=tenant_slug)).select_related("tenant").order_by("id")
    return [
        PermissionRow(
            row.tool_id,
            row.tenant.slug if row.tenant else None,
            row.agent,
            row.user_role,
            row.decision,
            row.approvers,
            row.when,
            row.loosen,
            row.id,
            row.group,
        )
        for row in rows
    ]


def need_platform_admin(actor: Actor | None) -> None:
    if actor is not None:
        actor.need("config:write")
        if not actor.platform_admin:
            raise Refused("platform_admin_needed", "This belongs to the installation: a platform admin changes it.", 403)
