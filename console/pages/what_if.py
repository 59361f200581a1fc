"""What would happen to a call: the panel on the page of a tool and beside the matrix, and its answer. Nothing is sent or kept."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from console import metrics, preview
from console.api.gateway import loads
from console.api.registry import seen_by
from console.verdicts import verdict
from runs.models import Agent, Call
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools.examples import example
from tools.models import Tool

from .session import signed_in

LATELY = timedelta(days=7)  # how old the run of a call that is taken for an example may be
JSON = dict[str, Any]
OBJECTS = ("args", "user", "tools", "day")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest, name: str) -> HttpResponse:
    """POST decides; with htmx the answer is the part below the form alone."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    tool = Tool.objects.select_related("current").filter(seen_by(actor), name=name).first()
    if tool is None or tool.current is None:
        raise NotFound("tool")
    said = request.POST if request.method == "POST" else request.GET
    form = blank(actor, tool, said.get("agent", ""), said.get("tenant", "") or actor.tenant.slug)
    if request.method != "POST":
        return render(request, "pages/policy/what_if.html", {"what_if": form, "tool": tool})
    form |= {field: request.POST[field] for field in (*OBJECTS, "labels", "mode", "proposal") if field in request.POST}
    try:
        answer, status = answered(actor, tool, form), 200
    except Refused as refused:
        answer, status = {"problem": refused.message}, refused.status
    template = "pages/policy/_what_if_answer.html" if request.headers.get("HX-Request") else "pages/policy/what_if.html"
    return render(request, template, {"what_if": form, "tool": tool, "answer": answer}, status=status)


def blank(actor: Actor, tool: Tool, agent: str, slug: str) -> JSON:
    """The form with the arguments of a recent call in them, or of an example."""
    found = Agent.objects.filter(seen_by(actor)).order_by("name").values_list("name", "live__tools")
    agents, listing = [name for name, _ in found], [name for name, tools in found if tool.name in (tools or {})]
    args, source = sample_args(actor, tool)
    return {
        "action": reverse("what-if", args=[tool.name]),
        "agents": agents,
        "agent": agent or next(iter([*listing, *agents]), ""),
        "tenants": list(Tenant.objects.order_by("slug").values_list("slug", flat=True)) if actor.platform_admin else [],
        "tenant": slug,
        "args": json.dumps(args, indent=2, ensure_ascii=False),
        "args_source": source,
        "user": "",
        "labels": "",
        "tools": "",
        "day": "",
        "mode": "normal",
    }


def sample_args(actor: Actor, tool: Tool) -> tuple[Any, str]:
    """Of the last call that was sent, of a tenant that the actor sees."""
    scope = metrics.scope_of(actor)
    rows = Call.objects.filter(name=tool.name, ord__gt=0, attempt__gt=0, run_id__gte=metrics.first_id(timezone.now() - LATELY))
    found = rows.filter(Q() if scope is None else Q(tenant_id=scope)).order_by("-run_id", "-step", "-ord").first()
    if found is not None and found.args is not None:
        return json.loads(bytes(found.args)), "as in the last call"
    assert tool.current is not None
    return example(tool.current.input_schema), "an example of the schema"


def answered(actor: Actor, tool: Tool, form: JSON) -> JSON:
    """Refuses bad_sample 422, and as `preview.foretell` does."""
    values = {name: read(form, name) for name in OBJECTS}
    labels = [word for word in form["labels"].replace(",", " ").split() if word]
    sample = {"tool": tool.name, "agent": form["agent"], "tenant": form["tenant"], "mode": form["mode"], "labels": labels}
    sample |= {name: value for name, value in values.items() if value is not None}
    if form.get("proposal"):
        sample["proposal"] = loads(form["proposal"].encode())
    try:
        made = preview.foretell(actor, preview.Sample.model_validate(sample))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused("bad_sample", f"{'.'.join(map(str, first['loc'])).capitalize()}: {first['msg']}.", 422) from None
    told = made.as_json()
    proposed = told["proposed"]
    return {
        "now": shown(told), "proposed": shown(proposed) if proposed else None, "schema_errors": told["schema_errors"],
        "offered": told["offered"], "tool_version": told["tool_version"],
    }  # fmt: skip


def read(form: JSON, name: str) -> Any:
    if not form[name].strip():
        return None
    try:
        value = loads(form[name].encode())
    except Refused as refused:
        raise Refused("bad_sample", f"{name.capitalize()}: {refused.message}", 422) from None
    if not isinstance(value, dict):
        raise Refused("bad_sample", f"{name.capitalize()}: write a JSON object, such as {{}}.", 422)
    return value


def shown(told: JSON) -> JSON:
    """A decision with its look and the way to the row that made it."""
    source = told["source"]
    return told | verdict(told["decision"], told["approvers"]) | {"url": url_of(source) if source else ""}


def url_of(source: JSON) -> str:
    if source["kind"] == "rule":
        return f"{reverse('rule', args=[source['name']])}?{urlencode({'tenant': source['tenant'] or '-'})}"
    where = {"tenant": source["tenant"] or "-", "tool": source["tool"], "agent": source["agent"], "row": source["id"]}
    return f"{reverse('matrix')}?{urlencode(where)}"
