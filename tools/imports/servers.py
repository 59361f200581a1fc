"""MCP servers of the installation: named, switched, and read again. The only writer of `McpServer`."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from tenants import audit, controls, credentials
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Credential as Sealed
from tenants.models import EgressAllow
from tools import catalog
from tools.definitions import Credential
from tools.models import McpServer
from tools.redaction import Redactor
from tools.spec import destination

from . import definitions, mcp

log = logging.getLogger(__name__)
JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One reading of a server. `error` empty: it answered; `changed`: tools of ours that went off because of it."""

    server: str
    error: str = ""
    changed: tuple[str, ...] = ()
    offered: int = 0


@transaction.atomic
def put(
    actor: Actor | None,
    name: str,
    *,
    url: str,
    credential: str = "",
    tenants: tuple[str, ...] = (),
    transport: str = "streamable_http",
) -> tuple[McpServer, tuple[str, ...]]:
    """-> (the server, the fields that changed; all of them for a new one). Tools keep the address that they were accepted with:
    at another one they are other tools, which the next reading says.

    Refuses: platform_admin_needed 403; not_supported, bad_url, egress_refused 422.
    """
    catalog.need_platform_admin(actor)
    if transport != McpServer.Transport.STREAMABLE_HTTP:
        raise Refused("not_supported", f"transport: {transport} is known but not supported: serve it over HTTP.", key="transport")
    try:
        destination(url)
    except ValueError as error:
        raise Refused("bad_url", f"The url of {name} cannot be used: {error}.", key="url") from None
    catalog.check_reachable(url)
    wanted: JSON = {"url": url, "credential": credential, "tenants": sorted(set(tenants)), "transport": transport}
    server = McpServer.objects.select_for_update(no_key=True).filter(name=name).first()
    before = {field: getattr(server, field) for field in wanted} if server else None
    changed = tuple(field for field in wanted if before is None or before[field] != wanted[field])
    if not changed:
        assert server is not None
        return server, ()
    server, _ = McpServer.objects.update_or_create(name=name, defaults=wanted)
    audit.append(actor, "mcp_server.updated" if before else "mcp_server.created", "mcp_server", name, before, wanted, tenant=None)
    controls.bump(None)
    return server, changed


@transaction.atomic
def set_enabled(actor: Actor | None, name: str, enabled: bool, reason: str = "") -> bool:
    """Switch all tools of a server on or off together, for running runs too. -> whether it changed."""
    catalog.need_platform_admin(actor)
    changed = McpServer.objects.filter(name=name, enabled=not enabled).update(enabled=enabled)
    if changed:
        action = "mcp_server.enabled" if enabled else "mcp_server.disabled"
        audit.append(actor, action, "mcp_server", name, {"enabled": not enabled}, {"enabled": enabled}, reason, tenant=None)
        controls.bump(None)
    elif not McpServer.objects.filter(name=name).exists():
        raise NotFound("MCP server")
    return bool(changed)


def import_tools(actor: Actor | None, name: str, chosen: list[str] | None, *, dry_run: bool = False) -> list[tuple[mcp.Draft, bool]]:
    """Take in what a server offers (of `chosen`, by their names there; None: all). -> each draft, and whether it is new here.

    Every one is a write without a key, off, and waits to be classified. Network, so never inside a
    transaction. Refuses: platform_admin_needed 403; not_found 404; no_credential, unknown_tool 422; server_unreachable 502.
    """
    catalog.need_platform_admin(actor)
    server, listing = read(name)
    definitions.compare(server, listing)
    found = mcp.drafts(server.name, server.url, server.credential, server.tenants, listing)
    remote = {one.remote for one in found}
    if missing := [each for each in chosen or () if each not in remote]:
        raise Refused("unknown_tool", f"{name} offers no tool called {missing[0][:100]}.", tool=missing[0][:100])
    wanted = [one for one in found if chosen is None or one.remote in chosen]
    return definitions.take_in(actor, server, listing, wanted, dry_run=dry_run)


def refresh(name: str) -> Seen:
    """Read a server again and hold our tools to what it says now. A server that is away changes nothing but its own row."""
    try:
        server, listing = read(name)
    except Refused as refused:
        if refused.status == 404:
            raise
        return Seen(name, error=str(refused.fields.get("why", refused.message)))
    return Seen(name, changed=definitions.compare(server, listing), offered=len(listing.tools))


def read(name: str) -> tuple[McpServer, mcp.Listing]:
    server = McpServer.objects.filter(name=name).first()
    if server is None:
        raise NotFound("MCP server")
    allow = frozenset(EgressAllow.objects.values_list("host_port", flat=True))
    try:
        credential = credential_of(server)
    except Refused as refused:
        McpServer.objects.filter(name=name).update(last_error=refused.message[:500])
        raise
    redactor = Redactor([credential] if credential else [])  # a server may quote the key that it was read with
    try:
        listing = mcp.listing(server.url, allow, credential)
    except mcp.McpFailure as failure:
        why, _ = redactor.said(str(failure))
        McpServer.objects.filter(name=name).update(last_error=why[:500])
        message = f"{name} could not be read: {why}. Check its address, its credential and the egress list."
        raise Refused("server_unreachable", message, 502, why=why[:500]) from None
    listing = replace(listing, tools=tuple(redactor.value(tool)[0] for tool in listing.tools))
    McpServer.objects.filter(name=name).update(last_error="", last_seen_at=Now(), protocol_version=listing.protocol_version[:32])
    return server, listing


def credential_of(server: McpServer) -> Credential | None:
    """To read a listing there is no run, so no tenant: the first tenant that sees the server and has the credential lends it."""
    if not server.credential:
        return None
    rows = Sealed.objects.filter(name=server.credential).order_by("tenant__created_at", "tenant_id")
    row = (rows.filter(tenant__slug__in=server.tenants) if server.tenants else rows).first()
    if row is None:
        raise Refused(
            "no_credential", f"No tenant that sees {server.name} has a credential {server.credential}.", credential=server.credential
        )
    kind: Any = row.kind
    return Credential(row.name, kind, credentials.opened(row).secret, row.header or None)
