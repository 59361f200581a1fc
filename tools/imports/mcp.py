"""What an MCP server offers, read over the network, and each of its tools as a draft.

The protocol's hints (`readOnlyHint`, `idempotentHint`) are claims of the server: they are shown to the person who classifies
the tool and decide nothing. Every tool comes as a write without a key.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tools.adapters.mcp import Listing, McpFailure, list_tools
from tools.definitions import CallContext, Credential
from tools.egress import Egress

from .drafts import Draft, input_of, output_of, spec_of, text_of
from .words import BadName, our_name

__all__ = ["Draft", "Listing", "McpFailure", "draft", "drafts", "listing"]

JSON = dict[str, Any]
LIST_S = 10.0


def listing(url: str, allow: frozenset[str], credential: Credential | None) -> Listing:
    """Ask the server. A loop of its own: called from jobs and from views, never inside a transaction. Raises McpFailure."""

    async def ask() -> Listing:
        way_out = Egress()
        try:
            return await list_tools(way_out, url, CallContext("import", 0, None, LIST_S, allow, credential))
        finally:
            await way_out.aclose()

    found = asyncio.run(ask())
    twice = [name for name, times in Counter(tool["name"] for tool in found.tools).items() if times > 1]
    if twice:
        raise McpFailure(f"the server offers {twice[0][:80]} twice")
    return found


def draft(server: str, url: str, credential: str, tenants: list[str], tool: Mapping[str, Any]) -> Draft:
    remote = str(tool["name"])
    hints = {key: value for key, value in (tool.get("annotations") or {}).items() if key != "title"}
    try:
        name = our_name(server, remote)
    except BadName as bad:
        return Draft("", remote, hints=hints, problem=str(bad))
    description, notes = text_of(str(tool.get("description") or tool.get("title") or ""), f"{remote} of {server}")
    accepts, more = input_of(tool.get("inputSchema"))
    output, most = output_of(tool.get("outputSchema"))
    spec, problem, said = spec_of(name, {
        "adapter": {"kind": "mcp", "server": server, "tool": remote, "url": url}, "description": description, "effect": "write",
        "input_schema": accepts, "output_schema": output, "credential": credential, "tenants": tenants,
    })  # fmt: skip
    return Draft(name, remote, spec, hints, (*notes, *more, *most, *said), problem)


def drafts(server: str, url: str, credential: str, tenants: list[str], found: Listing) -> list[Draft]:
    """In the order of the server. Of two that would get the same name, the second cannot be imported."""
    made: list[Draft] = []
    names: set[str] = set()
    for tool in found.tools:
        one = draft(server, url, credential, tenants, tool)
        if one.name and one.name in names:
            one = Draft(one.name, one.remote, hints=one.hints, problem=f"another tool of this server is called {one.name} here too")
        names.add(one.name)
        made.append(one)
    return made
