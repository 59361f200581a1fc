"""The registry: the only writer of tools, permissions and allowed addresses. Every change is audited and makes runs decide again.

Tools and addresses belong to the installation: platform admins change them. `actor` None is the command line.
"""

from typing import Any

from django.db import transaction
from django.db.models import Max, Q

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import EgressAllow

from . import conditions, schemas
from .definitions import Effect, RetryPolicy, ToolDefinition
from .models import Permission, Tool, ToolVersion
from .policy import PermissionRow
from .spec import HttpAdapter, ToolSpec, private_host_port


@transaction.atomic
def put(actor: Actor | None, name: str, spec: ToolSpec) -> tuple[ToolVersion, bool]:
    """-> (the current version, whether anything changed). Runs of older releases keep the version that they pinned.

    Refuses: platform_admin_needed 403; bad_name, bad_schema, bad_condition, egress_refused 422.
    """
    need_platform_admin(actor)
    check(name, spec)
    tool, _ = Tool.objects.get_or_create(name=name)
    tool = Tool.objects.select_for_update(no_key=True).get(name=name)
    before, digest, seen_by = tool.current, spec.sha256(name), sorted(set(spec.tenants))
    if before is not None and before.sha256 == digest and tool.tenants == seen_by:
        return before, False
    after = tool.versions.filter(sha256=digest).order_by("number").first() or add_version(tool, spec, digest)
    was = {"version": before.number, "sha256": before.sha256, "tenants": tool.tenants} if before else None
    tool.current, tool.tenants = after, seen_by
    tool.save(update_fields=["current", "tenants"])
    now = {"version": after.number, "sha256": digest, "tenants": seen_by}
    audit.append(actor, "tool.updated" if was else "tool.created", "tool", name, was, now, tenant=None)
    controls.bump(None)
    return after, True


def add_version(tool: Tool, spec: ToolSpec, digest: str) -> ToolVersion:
    last = tool.versions.aggregate(last=Max("number"))["last"] or 0
    return ToolVersion.objects.create(tool=tool, number=last + 1, sha256=digest, **spec.stored())


def check(name: str, spec: ToolSpec) -> None:
    """What the block alone cannot tell: schemas that compile and pass the lint, an address that may be reached."""
    if not name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum() or not name.isascii() or len(name) > 64:
        raise Refused("bad_name", "A tool's name has up to 64 letters, digits, '_', '-' and '.'.", name=name[:100])
    errors = [f for f in schemas.lint(spec.input_schema, spec.effect) if f.severity == "error"]
    if errors:
        found = [{"code": f.code, "path": f"/input_schema{f.path}", "message": f.message} for f in errors]
        said = "; ".join(f"{f['path']}: {f['message']}" for f in found)
        raise Refused("bad_schema", f"The input schema of {name} cannot be used: {said}.", findings=found)
    check_output(name, spec.output_schema)
    if spec.duplicate_when:
        conditions.check(spec.duplicate_when, frozenset({"status", "body"}))
    if isinstance(spec.adapter, HttpAdapter):
        check_reachable(spec.adapter.url)


def check_output(name: str, schema: dict[str, Any] | None) -> None:
    if schema is None:
        return
    try:
        schemas.compile(schema)
    except schemas.SchemaError as error:
        found = [{"code": "does_not_compile", "path": f"/output_schema{error.path}", "message": error.message}]
        raise Refused("bad_schema", f"The output schema of {name} cannot be used: {error}.", findings=found)


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
    changed = Tool.objects.filter(name=name, enabled=not enabled).update(enabled=enabled)
    if changed:
        action = "tool.enabled" if enabled else "tool.disabled"
        audit.append(actor, action, "tool", name, {"enabled": not enabled}, {"enabled": enabled}, reason, tenant=None)
        controls.bump(None)
    elif not Tool.objects.filter(name=name).exists():
        raise NotFound("tool")
    return bool(changed)


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
        effect_key=version.effect_key,
        effect_window_s=version.effect_window_s,
        idempotency_window_s=version.idempotency_window_s,
    )


def enabled_tools(tenant_slug: str) -> frozenset[str]:
    """The tools that are on and that this tenant sees."""
    seen = Q(tenants=[]) | Q(tenants__contains=[tenant_slug])
    return frozenset(Tool.objects.filter(seen, enabled=True).values_list("name", flat=True))


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
        )
        for row in rows
    ]


def need_platform_admin(actor: Actor | None) -> None:
    if actor is not None:
        actor.need("config:write")
        if not actor.platform_admin:
            raise Refused("platform_admin_needed", "This belongs to the installation: a platform admin changes it.", 403)
