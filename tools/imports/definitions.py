"""Tools that came from elsewhere: taken in, held to what was pinned, and what a person decides about them.

A definition that changed on the other side puts its tool off, in one transaction with the reason; only a person puts it on again.
"""

from collections.abc import Mapping
from typing import Any, Literal

from django.db import transaction

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import catalog
from tools.adapters.mcp import Listing
from tools.definitions import Effect
from tools.models import McpServer, Tool, ToolVersion
from tools.spec import McpAdapter, ToolSpec

from . import mcp, pins
from .drafts import Draft

JSON = dict[str, Any]


@transaction.atomic
def take_in(
    actor: Actor | None, server: McpServer, listing: Listing, wanted: list[Draft], *, dry_run: bool = False
) -> list[tuple[Draft, bool]]:
    """-> each draft, and whether it is a new tool here. Those that are here already stay as they are."""
    held = {name: origin for name, origin in Tool.objects.filter(name__in=[one.name for one in wanted]).values_list("name", "origin")}
    pinned = pinned_of(server, listing)
    done: list[tuple[Draft, bool]] = []
    for one in wanted:
        ours = (held.get(one.name) or {}).get("server") == server.name
        if one.name in held and not ours:
            one = Draft(one.name, one.remote, hints=one.hints, problem=f"another tool is called {one.name}: rename one of them")
        new = one.spec is not None and one.name not in held
        if new and not dry_run:
            add(actor, server, one, pinned[one.remote])
        done.append((one, new))
    if not dry_run and any(new for _, new in done):
        controls.bump(None)
    return done


def add(actor: Actor | None, server: McpServer, one: Draft, pinned: JSON) -> None:
    assert one.spec is not None
    catalog.check(one.name, one.spec)
    catalog.check_lint(one.name, one.spec)
    origin = {"kind": "mcp", "server": server.name, "tool": one.remote, "sha256": pins.digest(pinned), "definition": pinned}
    seen_by = sorted(set(one.spec.tenants))
    tool = Tool.objects.create(name=one.name, enabled=False, classified=False, origin=origin, tenants=seen_by)
    tool.current = catalog.add_version(tool, one.spec, one.spec.sha256(one.name))
    tool.save(update_fields=["current"])
    after = {"server": server.name, "tool": one.remote, "sha256": origin["sha256"]}
    audit.append(actor, "tool.imported", "tool", one.name, None, after, tenant=None)


def pinned_of(server: McpServer, listing: Listing) -> dict[str, JSON]:
    """Remote name -> the definition as it is pinned."""
    return {str(tool["name"]): pins.definition(server.url, listing.server, tool) for tool in listing.tools}


@transaction.atomic
def compare(server: McpServer, listing: Listing) -> tuple[str, ...]:
    """Hold every tool of this server to what the server says now. -> the names of those that went off."""
    now = pinned_of(server, listing)
    ours = Tool.objects.select_for_update(no_key=True).filter(origin__kind="mcp", origin__server=server.name).order_by("name")
    off = [tool.name for tool in ours if hold(tool, now.get(str((tool.origin or {}).get("tool"))))]
    if off:
        controls.bump(None)
    return tuple(off)


def hold(tool: Tool, now: JSON | None) -> bool:
    """-> whether the tool was on and went off, or waits for a person anew."""
    origin: JSON = tool.origin or {}
    digest = pins.digest(now) if now is not None else ""
    if origin.get("sha256") is None:
        return first_seen(tool, now, digest)
    if digest == origin["sha256"]:
        return back_as_it_was(tool)
    if tool.pending is not None and tool.pending["sha256"] == digest and not tool.enabled:
        return False  # known, and a person's to decide (or decided against)
    lines = pins.differences(origin.get("definition") or {}, now)
    Tool.objects.filter(name=tool.name).update(
        enabled=False, pending={"sha256": digest, "definition": now, "diff": lines, "rejected": False}
    )
    told = {"enabled": False, "sha256": digest, "paths": [line["path"] for line in lines][:20]}
    before = {"enabled": tool.enabled, "sha256": origin["sha256"]}
    audit.append(None, "tool.definition_changed", "tool", tool.name, before, told, "Its server describes it differently.", tenant=None)
    return True


def first_seen(tool: Tool, now: JSON | None, digest: str) -> bool:
    """A tool that a document named before its server was read: pinned now. One that the server does not offer stays unpinned."""
    if now is not None:
        Tool.objects.filter(name=tool.name).update(origin={**(tool.origin or {}), "sha256": digest, "definition": now})
        audit.append(None, "tool.pinned", "tool", tool.name, None, {"sha256": digest}, tenant=None)
    return False


def back_as_it_was(tool: Tool) -> bool:
    """The accepted definition again. The question is gone, the tool stays off: who moved once may move back and forth."""
    if tool.pending is not None:
        Tool.objects.filter(name=tool.name).update(pending=None)
        audit.append(None, "tool.definition_restored", "tool", tool.name, None, {"enabled": False}, tenant=None)
    return False


def locked(name: str) -> Tool:
    tool = Tool.objects.select_for_update(no_key=True, of=("self",)).select_related("current").filter(name=name).first()
    if tool is None or tool.current is None:
        raise NotFound("tool")
    return tool


@transaction.atomic
def classify(
    actor: Actor | None,
    name: str,
    *,
    effect: Effect,
    idempotency: Literal["key", "none"],
    labels: tuple[str, ...],
    reason: str,
) -> ToolVersion:
    """A person says what an imported tool does. The first time switches it on; later ones leave the switch alone.

    Refuses: platform_admin_needed 403; not_found 404; not_imported, definition_changed 409; no_reason, and as `catalog.put`, 422.
    """
    catalog.need_platform_admin(actor)
    need_reason(reason)
    tool = locked(name)
    if (tool.origin or {}).get("kind") != "mcp":
        raise Refused("not_imported", f"{name} is defined here: change its definition instead.", 409, tool=name)
    if tool.pending is not None:
        raise Refused(
            "definition_changed", f"The definition of {name} changed on the other side. Accept or reject it first.", 409, tool=name
        )
    assert tool.current is not None
    before = {"effect": tool.current.effect, "idempotency": tool.current.idempotency, "labels": tool.current.labels}
    spec = spec_of(tool, effect=effect, idempotency=idempotency, labels=labels)
    version = renew(tool, spec)
    after = {"effect": effect.value, "idempotency": idempotency, "labels": sorted(set(labels)), "version": version.number}
    first = not tool.classified
    Tool.objects.filter(name=name).update(classified=True, current=version, **({"enabled": True} if first else {}))
    audit.append(actor, "tool.classified", "tool", name, None if first else before, after, reason, tenant=None)
    controls.bump(None)
    return version


@transaction.atomic
def accept(actor: Actor | None, name: str, sha256: str, reason: str) -> ToolVersion:
    """Take the changed definition over, as a new version with the effect that the tool was classified with, and switch it on.

    `sha256`: of the definition that the person read. Refuses: platform_admin_needed 403; not_found 404; nothing_pending,
    stale_definition, tool_gone 409; no_reason, and as `catalog.put`, 422.
    """
    tool, pending = waiting(actor, name, sha256, reason)
    now = pending["definition"]
    if now is None:
        raise Refused("tool_gone", f"The server no longer offers {name}: there is nothing to accept.", 409, tool=name)
    assert tool.current is not None and tool.origin is not None
    version = renew(tool, taken_over(tool, now))
    Tool.objects.filter(name=name).update(
        current=version, pending=None, enabled=tool.classified, origin={**tool.origin, "sha256": sha256, "definition": now}
    )
    before = {"version": tool.current.number, "sha256": tool.origin["sha256"]}
    after = {"version": version.number, "sha256": sha256, "enabled": tool.classified}
    audit.append(actor, "tool.definition_accepted", "tool", name, before, after, reason, tenant=None)
    controls.bump(None)
    return version


@transaction.atomic
def reject(actor: Actor | None, name: str, sha256: str, reason: str) -> Tool:
    """The tool stays off and asks nobody again about this definition. Refuses as `accept`."""
    tool, pending = waiting(actor, name, sha256, reason)
    Tool.objects.filter(name=name).update(pending={**pending, "rejected": True}, enabled=False)
    audit.append(actor, "tool.definition_rejected", "tool", name, None, {"sha256": sha256, "enabled": False}, reason, tenant=None)
    controls.bump(None)
    tool.pending = {**pending, "rejected": True}
    return tool


def waiting(actor: Actor | None, name: str, sha256: str, reason: str) -> tuple[Tool, JSON]:
    catalog.need_platform_admin(actor)
    need_reason(reason)
    tool = locked(name)
    pending: JSON | None = tool.pending
    if pending is None:
        raise Refused("nothing_pending", f"The definition of {name} has not changed.", 409, tool=name)
    if pending["sha256"] != sha256:
        raise Refused("stale_definition", f"The definition of {name} changed again since you read it. Read it anew.", 409, tool=name)
    return tool, pending


def need_reason(reason: str) -> None:
    if not reason.strip():
        raise Refused("no_reason", "Say why: the reason is kept in the audit trail.", key="reason")


def spec_of(tool: Tool, **changes: Any) -> ToolSpec:
    version = tool.current
    fields = {field: getattr(version, field) for field in ToolSpec.model_fields if field != "tenants" and hasattr(version, field)}
    return ToolSpec.model_validate({**fields, "tenants": tool.tenants, **changes})


def taken_over(tool: Tool, now: Mapping[str, Any]) -> ToolSpec:
    """The new definition's words and schemas, unless a person's own stand here; what they said it does stays."""
    was: JSON = (tool.origin or {}).get("definition") or {}
    held = spec_of(tool)
    adapter = held.adapter
    assert isinstance(adapter, McpAdapter)
    url = str(now["server"]["url"])
    after = drafted(tool, now, url)
    if after.spec is None:
        raise Refused("bad_definition", f"{tool.name} cannot be taken over as it is now: {after.problem}.", tool=tool.name)
    before = drafted(tool, was, adapter.url).spec if was else None
    words = ("description", "input_schema", "output_schema")
    theirs = before is not None and all(getattr(held, each) == getattr(before, each) for each in words)
    changes = {each: getattr(after.spec, each) for each in words} if theirs else {}
    return held.model_copy(update={"adapter": adapter.model_copy(update={"url": url}), **changes})


def drafted(tool: Tool, definition: Mapping[str, Any], url: str) -> Draft:
    server = str((tool.origin or {}).get("server"))
    return mcp.draft(server, url, "", tool.tenants, definition["tool"])


def renew(tool: Tool, spec: ToolSpec) -> ToolVersion:
    catalog.check(tool.name, spec)
    catalog.check_lint(tool.name, spec)
    digest = spec.sha256(tool.name)
    return tool.versions.filter(sha256=digest).order_by("number").first() or catalog.add_version(tool, spec, digest)
