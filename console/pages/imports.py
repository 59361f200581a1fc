"""Imported tools as a page: the servers, what waits for a person's word, what changed on the other side, and OpenAPI documents."""

from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from pydantic import TypeAdapter, ValidationError

from console.api.registry import seen_by
from tenants.actors import Actor
from tenants.errors import Refused
from tools import catalog
from tools.definitions import Effect
from tools.imports import apis, definitions, servers
from tools.imports.drafts import Draft
from tools.models import McpServer, Tool
from tools.spec import Label, ServerName, Slug

from .session import signed_in

JSON = dict[str, Any]
LISTED = 100
HINTS = {  # the server's claim -> what it says, when true and when false
    "readOnlyHint": ("says that it changes nothing", "says that it changes something"),
    "destructiveHint": ("says that it may destroy something", "says that it destroys nothing"),
    "idempotentHint": ("says that calling it twice does no more than once", "says that calling it twice does more than once"),
    "openWorldHint": ("says that it reaches out into the world", "says that it stays in its own house"),
}
EFFECTS = (("read", "Read: changes nothing"), ("write", "Write: changes something"), ("irreversible", "Irreversible: cannot be undone"))
WORDS: dict[str, TypeAdapter[Any]] = {"labels": TypeAdapter(tuple[Label, ...]), "tenants": TypeAdapter(tuple[Slug, ...])}
NAME: TypeAdapter[str] = TypeAdapter(ServerName)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """POST `{action, …}`; a refusal shows the page again with what was typed."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    if request.method != "POST":
        return show(request, actor)
    catalog.need_platform_admin(actor)
    act = ACTIONS.get(request.POST.get("action", ""))
    if act is None:
        raise Refused("unknown_action", "This page has no such button.", 422)
    try:
        answer = act(request, actor)
    except Refused as refused:
        return show(request, actor, refused.status, notice=refused, typed=request.POST)
    return answer or HttpResponse(status=303, headers={"Location": reverse("imports")})


def show(request: HttpRequest, actor: Actor, status: int = 200, **more: Any) -> HttpResponse:
    seen = Tool.objects.select_related("current").filter(seen_by(actor)).order_by("name")
    pending = [changed(tool) for tool in seen.filter(pending__isnull=False)[:LISTED]]
    context: JSON = {
        "changed": [each for each in pending if not each["rejected"]],
        "rejected": [each for each in pending if each["rejected"]],
        "waiting": [unclassified(tool) for tool in seen.filter(classified=False, pending__isnull=True)[:LISTED]],
        "servers": [server(one) for one in servers_of(actor)],
        "may": actor.platform_admin and actor.can("config:write"),
        "effects": EFFECTS,
        "typed": {},
    }
    return render(request, "pages/imports.html", context | more, status=status)


def servers_of(actor: Actor) -> list[McpServer]:
    mine = Q() if actor.platform_admin else Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug])
    return list(McpServer.objects.filter(mine).order_by("name")[:LISTED])


def server(one: McpServer) -> JSON:
    tools = Tool.objects.filter(origin__kind="mcp", origin__server=one.name)
    return {"server": one, "tools": tools.count(), "on": tools.filter(enabled=True).count()}


def changed(tool: Tool) -> JSON:
    pending: JSON = tool.pending or {}
    return {
        "tool": tool,
        "rejected": pending["rejected"],
        "gone": pending["definition"] is None,
        "sha256": pending["sha256"],
        "lines": pending["diff"],
    }


def unclassified(tool: Tool) -> JSON:
    version, origin = tool.current, tool.origin or {}
    said = ((origin.get("definition") or {}).get("tool") or {}).get("annotations") or {}
    claims = [HINTS[key][0 if value else 1] for key, value in said.items() if key in HINTS and isinstance(value, bool)]
    found = [each for each in catalog.findings(version) if each.severity != "info"] if version else []
    return {"tool": tool, "version": version, "claims": claims, "findings": found, "server": origin.get("server", "")}


# what the buttons do ----------------------------------------------------------------------------------------------------------


def add_server(request: HttpRequest, actor: Actor) -> None:
    name = checked(NAME, request.POST.get("name", "").strip(), "Name: a small letter, then small letters, digits, - and _, 32 at most.")
    given = {key: request.POST.get(key, "").strip() for key in ("url", "credential")}
    _, changed_fields = servers.put(actor, name, **given, tenants=listed(request, "tenants"))
    messages.success(request, f"{name} is listed. Read it to see its tools." if changed_fields else f"{name} was listed like this before.")


def read_server(request: HttpRequest, actor: Actor) -> None:
    seen = servers.refresh(request.POST.get("server", ""))
    if seen.error:
        messages.error(request, f"{seen.server} could not be read: {seen.error}.")
    elif seen.changed:
        messages.warning(request, f"{seen.server} describes {', '.join(seen.changed)} differently: switched off.")
    else:
        messages.success(request, f"{seen.server} offers {seen.offered} tools; those that are here are as they were.")


def import_server(request: HttpRequest, actor: Actor) -> None:
    done = servers.import_tools(actor, request.POST.get("server", ""), None)
    new, bad = [draft.name for draft, imported in done if imported], [draft for draft, _ in done if draft.problem]
    messages.success(request, f"{len(new)} new tools wait to be classified." if new else "Nothing new: all of its tools are here.")
    for draft in bad[:5]:
        messages.error(request, f"{draft.remote[:80]} was not imported: {draft.problem}.")


def switch_server(request: HttpRequest, actor: Actor) -> None:
    name, on = request.POST.get("server", ""), request.POST.get("on") == "1"
    servers.set_enabled(actor, name, on)
    messages.success(request, f"All tools of {name} are switched {'on again' if on else 'off'}.")


def classify(request: HttpRequest, actor: Actor) -> None:
    effect, name = request.POST.get("effect", ""), request.POST.get("tool", "")
    if effect not in [value for value, _ in EFFECTS]:
        raise Refused("no_effect", "Say what the tool does: read, write or irreversible.")
    definitions.classify(
        actor, name, effect=Effect(effect), idempotency="key" if request.POST.get("keyed") else "none",
        labels=listed(request, "labels"), reason=request.POST.get("reason", "").strip(),
    )  # fmt: skip
    messages.success(request, f"{name} is classified and switched on.")


def decide(request: HttpRequest, actor: Actor) -> None:
    name, said = request.POST.get("tool", ""), (request.POST.get("sha256", ""), request.POST.get("reason", "").strip())
    if request.POST.get("verdict") == "accept":
        version = definitions.accept(actor, name, *said)
        messages.success(request, f"{name} is accepted as version {version.number}.")
    else:
        definitions.reject(actor, name, *said)
        messages.success(request, f"{name} is rejected and stays off.")


def openapi(request: HttpRequest, actor: Actor) -> HttpResponse | None:
    """Shows the operations of a document to choose from, or imports those that were chosen."""
    chosen = request.POST.getlist("operation")
    done = apis.import_operations(
        actor,
        request.POST.get("document", "").encode(),
        checked(NAME, request.POST.get("name", "").strip(), "Name: a small letter, then small letters, digits, - and _, 32 at most."),
        chosen,
        base_url=request.POST.get("base_url", "").strip(),
        credential=request.POST.get("credential", "").strip(),
        tenants=listed(request, "tenants"),
    )
    if not chosen:
        return show(request, actor, typed=request.POST, operations=[operation(draft) for draft, _ in done])
    messages.success(request, f"Imported and switched on: {', '.join(draft.name for draft, _ in done)}.")
    return None


def operation(draft: Draft) -> JSON:
    return {
        "draft": draft,
        "effect": draft.spec.effect.value if draft.spec else "",
        "where": f"{draft.hints['method']} {draft.hints['path']}",
    }


def listed(request: HttpRequest, field: str) -> tuple[str, ...]:
    words = [word for word in request.POST.get(field, "").replace(",", " ").split() if word]
    found = checked(WORDS[field], words, f"{field.capitalize()}: small letters, digits, - and _, with spaces between.")
    return cast(tuple[str, ...], found)


def checked(kind: TypeAdapter[Any], value: Any, cure: str) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError:
        raise Refused("validation", cure) from None


ACTIONS: dict[str, Callable[[HttpRequest, Actor], HttpResponse | None]] = {
    "add-server": add_server,
    "read": read_server,
    "import": import_server,
    "switch": switch_server,
    "classify": classify,
    "decide": decide,
    "openapi": openapi,
}
