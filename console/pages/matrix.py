"""The permission matrix: tools x agents for one tenant or for every one, and the form of a cell beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from console import matrix, policy_words
from console.api.registry import seen_by
from console.verdicts import VERDICTS
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry, Tenant
from tools import catalog, permissions, proposals
from tools.models import Permission, Tool
from tools.policy import PermissionRow
from tools.proposals import PermissionProposal

from . import proposing, what_if
from .proposing import CODE, INPUT, PolicyForm
from .session import signed_in

JSON = dict[str, Any]
ROW = ("decision", "approvers", "when", "user_role", "loosen", "group")
EVERY = "-"  # the tenant switch's word for every tenant
DECISIONS = (("allow", "Allow"), ("ask", "Ask people first"), ("draft", "Draft only: keep it for a person"), ("deny", "Deny"))


class CellForm(PolicyForm):
    decision = forms.ChoiceField(choices=DECISIONS, widget=forms.Select(INPUT))
    when = forms.CharField(
        label="Condition", required=False, max_length=2000, widget=forms.Textarea(CODE),
        help_text="CEL over args, call, run and now, such as args.priority == 'urgent'. Empty: always.",
    )  # fmt: skip
    user_role = forms.CharField(required=False, max_length=64, widget=forms.TextInput(INPUT), help_text="Of the user the run acts for.")
    loosen = forms.BooleanField(required=False, label="Loosen: may be weaker than the default of the effect (admins)")
    group = forms.CharField(required=False, max_length=64, widget=forms.TextInput(INPUT), help_text="Approvers who alone may decide.")
    field_order = ("decision", "approvers", "when", "user_role", "loosen", "days")


@dataclass(frozen=True, slots=True)
class Place:
    """A cell: `slug` None is every tenant, `agent` "" every agent."""

    tool: Tool
    agent: str
    slug: str | None
    scope: Tenant | None

    @property
    def query(self) -> str:
        return urlencode({"tenant": self.slug or EVERY, "tool": self.tool.name, "agent": self.agent})


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?tenant=&tool=&agent=` opens the form of a cell, `&row=` one of its other rows, `&revert=` takes a change back; `&part=form`
    answers the form alone. POST `{act: show | save | remove, …}`."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    said = request.POST if request.method == "POST" else request.GET
    slug = {"": actor.tenant.slug, EVERY: None}.get(said.get("tenant", ""), said.get("tenant", ""))
    scope = proposals.scope_of(actor, slug)
    place = place_of(actor, said.get("tool", ""), said.get("agent", ""), scope) if said.get("tool") else None
    if place is None:
        return show(request, actor, scope, {})
    if request.method == "POST":
        return change(request, actor, place)
    return show(request, actor, scope, side(request, actor, place), place)


def place_of(actor: Actor, tool: str, agent: str, scope: Tenant | None) -> Place:
    found = Tool.objects.select_related("current").filter(seen_by(actor), name=tool).first()
    if found is None or (agent and not Agent.objects.filter(seen_by(actor), name=agent).exists()):
        raise NotFound("cell")
    return Place(found, agent, scope.slug if scope else None, scope)


def show(
    request: HttpRequest, actor: Actor, scope: Tenant | None, form: JSON, place: Place | None = None, status: int = 200
) -> HttpResponse:
    if place and request.GET.get("part") == "form":
        return render(request, "pages/policy/_cell.html", form, status=status)
    columns, rows = table(actor, scope, place)
    tenants = list(Tenant.objects.order_by("slug")) if actor.platform_admin else [actor.tenant]
    switch = [{"slug": each.slug, "label": each.slug, "on": each == scope} for each in tenants]
    context = {
        "columns": columns, "rows": rows, "switch": [*switch, {"slug": EVERY, "label": "every tenant", "on": scope is None}],
        "scope": scope, "verdicts": VERDICTS,
    }  # fmt: skip
    return render(request, "pages/policy/matrix.html", context | form, status=status)


def table(actor: Actor, scope: Tenant | None, place: Place | None) -> tuple[list[str], list[JSON]]:
    """-> (the agents, the rows of cells)."""
    slug = scope.slug if scope else None
    agents = list(Agent.objects.select_related("live").filter(seen_by(actor)).order_by("name"))
    listed = {agent.name: frozenset(agent.live.tools) if agent.live else frozenset() for agent in agents}
    columns = ["", *listed]
    held = catalog.load_permissions(slug) if slug else everyones()
    rows = []
    for tool in Tool.objects.select_related("current").filter(seen_by(actor), current__isnull=False).order_by("name"):
        cells = []
        for agent in columns:
            made = matrix.cell(kind_of(tool), agent, slug, held, listed=not agent or tool.name in listed[agent])
            cells.append(shown(Place(tool, agent, slug, scope), made, place))
        rows.append({"tool": tool, "cells": cells})
    return columns, rows


def everyones() -> list[PermissionRow]:
    return [row for row in catalog.load_permissions("") if row.tenant is None]


def kind_of(tool: Tool) -> matrix.Kind:
    assert tool.current is not None
    return matrix.Kind(tool.name, tool.current.effect, frozenset(tool.current.labels))


def shown(at: Place, made: matrix.Cell, chosen: Place | None) -> JSON:
    icon, _, tone = VERDICTS[made.decision]
    word = matrix.short(made.decision, made.approvers)
    if not made.listed:
        icon, tone, word = "circle-dashed", "idle", "Not listed"
    return {
        "cell": made, "icon": icon, "tone": tone, "word": word, "agent": at.agent, "query": at.query, "about": " ".join(made.lines),
        "chosen": chosen is not None and (chosen.tool.name, chosen.agent) == (at.tool.name, at.agent),
    }  # fmt: skip


# the form of a cell -----------------------------------------------------------------------------------------------------------


def side(request: HttpRequest, actor: Actor, place: Place) -> JSON:
    """The form as it is first shown: of the place's own row, of another row of it, or with what a change is taken back to."""
    said, row = request.GET, None
    if said.get("row", "").isdigit():
        row = rows_of(place).filter(pk=int(said["row"])).first()
    elif said.get("row") != "new":
        row = rows_of(place).filter(when="", user_role="").first()
    initial = values_of(row) if row else {"decision": "ask", "approvers": 1}
    gone = False
    if entry := entry_of(place, said.get("revert", "")):
        back = policy_words.as_it_was(entry)
        assert isinstance(back, PermissionProposal)
        initial, gone = back.model_dump(include=set(ROW)), back.remove
        row = proposals.held_row(back, place.scope)
    return context_of(actor, place, CellForm(initial=initial), row) | {"reverts": bool(entry), "gone": gone}


def rows_of(place: Place) -> Any:
    return Permission.objects.select_related("tenant").filter(tool=place.tool, agent=place.agent, tenant=place.scope)


def values_of(row: Permission) -> JSON:
    return {name: getattr(row, name) for name in ROW}


def entry_of(place: Place, number: str) -> AuditEntry | None:
    if not number.isdigit():
        return None
    kept = Q(after__tool=place.tool.name, after__agent=place.agent) | Q(before__tool=place.tool.name, before__agent=place.agent)
    return AuditEntry.objects.filter(kept, tenant=place.scope, object_kind="permission", pk=int(number)).first()


def context_of(actor: Actor, place: Place, form: CellForm, row: Permission | None) -> JSON:
    assert place.tool.current is not None
    held = catalog.load_permissions(place.slug) if place.slug else everyones()
    agent = Agent.objects.select_related("live").filter(name=place.agent).first() if place.agent else None
    listed = not place.agent or bool(agent and agent.live and place.tool.name in agent.live.tools)
    made = matrix.cell(kind_of(place.tool), place.agent, place.slug, held, listed=listed)
    least = Permission(tool=place.tool, tenant=place.scope)
    return {
        "place": place, "form": form, "row": row, "cell": made, "may": permissions.may_edit(actor, least) and may_write(actor),
        "others": [{"row": each, "words": matrix.words(each.decision, each.approvers)} for each in rows_of(place).order_by("id")],
        "history": policy_words.permission_history(place.tool.name, place.agent, place.scope),
        "what_if": what_if.blank(actor, place.tool, place.agent, place.slug or actor.tenant.slug),
    }  # fmt: skip


def may_write(actor: Actor) -> bool:
    return actor.scopes is None or "config:write" in actor.scopes


def change(request: HttpRequest, actor: Actor, place: Place) -> HttpResponse:
    """The first step shows, the second changes; a refusal shows the page again with what was typed."""
    said, number = request.POST, request.POST.get("row", "")
    row = rows_of(place).filter(pk=int(number)).first() if number.isdigit() else None
    form = CellForm(said)
    context = context_of(actor, place, form, row)
    if not form.is_valid():
        return show(request, actor, place.scope, context, place, 422)
    proposal = proposal_of(place, form, row, remove=said.get("act") == "remove" or said.get("gone") == "1")
    if not proposing.checked(actor, form, proposal):
        return show(request, actor, place.scope, context, place, 422)
    was = policy_words.permission_was(row or proposals.held_row(proposal, place.scope), context["cell"])
    step = {"step": proposing.second_step(request, actor, proposal, was, form.cleaned_data["days"]), "gone": proposal.remove}
    if said.get("act") != "save" or not proposing.shown_before(request, proposal):
        return show(request, actor, place.scope, context | step, place)
    try:
        write(actor, place, proposal, proposing.say_why(request))
    except Refused as refused:
        field = "reason_error" if refused.fields.get("field") == "reason" else "notice"
        return show(request, actor, place.scope, context | step | {field: refused.message}, place, refused.status)
    messages.success(request, "Saved. Runs that go on are held to it at their next call.")
    return HttpResponse(status=303, headers={"Location": f"{reverse('matrix')}?{place.query}#cell-form"})


def proposal_of(place: Place, form: CellForm, row: Permission | None, *, remove: bool) -> PermissionProposal:
    said = form.cleaned_data
    fields = {name: said[name] for name in ROW}
    if remove and row is not None:
        fields = values_of(row)
    return PermissionProposal(
        id=row.pk if row else None, tool=place.tool.name, tenant=place.slug, agent=place.agent, remove=remove, **fields
    )  # fmt: skip


def write(actor: Actor, place: Place, proposal: PermissionProposal, reason: str) -> None:
    row = proposals.held_row(proposal, place.scope)
    if proposal.remove:
        if row is None:
            raise NotFound("permission")
        return permissions.delete(actor, row, reason)
    row = row or Permission(tool=place.tool, tenant=place.scope, agent=place.agent)
    for name in ROW:
        setattr(row, name, getattr(proposal, name))
    permissions.save(actor, row, reason)
    return None
