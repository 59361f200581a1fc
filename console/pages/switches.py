"""Kill switches as pages: what is on, the way to stop work with its numbers in front of the button, and the lift.

Every step is a plain GET or POST: the numbers are shown before anything is confirmed, and the server asks for the typed name.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from console.api import paging
from console.api.switches import find, measured, tenant_named, within
from console.switch_words import sentence, shown, subject
from runs import impact, stops, switches
from runs.models import Agent, Switch
from runs.stops import typed_name
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools.models import Tool

from .session import signed_in

Context = dict[str, Any]
INPUT = {"class": "input"}
SCOPES = (
    ("all", "Everything: every run in every tenant"),
    ("tenant", "One tenant"),
    ("agent", "One agent"),
    ("tool", "One tool: runs go on until they want it"),
    ("writes", "All writes: reads go on"),
)
THEN = (("pause", "Pause: runs wait, and go on when it is lifted"), ("stop", "Stop: runs end as stopped by switch"))


class ScopeForm(forms.Form):
    """What a switch would cover. Which names a scope needs is checked by `runs.stops.misplaced`; others are left out."""

    scope = forms.ChoiceField(label="What to stop", widget=forms.Select(INPUT))
    tenant = forms.ChoiceField(label="In", required=False, widget=forms.Select(INPUT))
    agent = forms.ChoiceField(required=False, widget=forms.Select(INPUT), help_text="For one agent.")
    tool = forms.ChoiceField(required=False, widget=forms.Select(INPUT), help_text="For one tool.")
    then = forms.ChoiceField(label="What becomes of runs", choices=THEN, initial="pause", widget=forms.Select(INPUT))
    drill = forms.BooleanField(
        label="Drill: change nothing, and show what it would have stopped", required=False, widget=forms.CheckboxInput()
    )

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = None if actor.platform_admin else actor.tenant
        tenants = [(t.slug, t.slug) for t in Tenant.objects.order_by("slug")] if mine is None else [(mine.slug, mine.slug)]
        choices = {
            "scope": [(name, words) for name, words in SCOPES if mine is None or name != "all"],
            "tenant": [("", "every tenant"), *tenants] if mine is None else tenants,
            "agent": [("", "–"), *((name, name) for name in switches.seen(Agent, mine).order_by("name"))],
            "tool": [("", "–"), *((name, name) for name in switches.seen(Tool, mine).order_by("name"))],
        }
        for name, given in choices.items():
            self.fields[name].choices = given  # type: ignore[attr-defined]

    def clean(self) -> Context:
        """Names that the scope does not use are left out, so that a forgotten choice stops nothing else."""
        said: Context = super().clean() or {}
        scope = said.get("scope", "")
        kept = {"tenant": scope != "all", "agent": scope == "agent", "tool": scope == "tool"}
        said |= {name: said.get(name) or "" if keep else "" for name, keep in kept.items()}
        wrong = stops.misplaced(scope, **{name: bool(said[name]) for name in kept}) if scope else ""
        if wrong:
            self.add_error(scope, f"Choose the {scope}.")
        return said


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    past, more = paging.page(switches.visible(actor).filter(lifted_at__isnull=False), request.GET, "swi")
    on = [shown(switch) for switch in switches.concerning(actor)]
    context = {"on": on, "past": [shown(switch) for switch in past], "more": more, "may": may_throw(actor)}
    return render(request, "pages/switches.html", context)


@require_safe
@signed_in
def bar(request: HttpRequest) -> HttpResponse:
    """The bar of every page alone: fetched again when a switch moves."""
    return render(request, "components/switch_bar.html")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def new(request: HttpRequest) -> HttpResponse:
    """GET asks what to stop; with an answer, shows its numbers and asks for reason and name. POST stops."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    switches.need(actor, "tenant", actor.tenant)
    said = request.POST if request.method == "POST" else request.GET
    form = ScopeForm(
        said if "scope" in said else None, actor=actor, initial={"tenant": actor.tenant.slug if not actor.platform_admin else ""}
    )
    if not form.is_bound:
        return render(request, "pages/switch_new.html", {"form": form})
    if not form.is_valid():
        return render(request, "pages/switch_new.html", {"form": form}, status=422)
    order = order_of(actor, form, said.get("reason", ""))
    if request.method != "POST":
        return render(request, "pages/switch_new.html", asked(actor, form, order))
    return throw(request, actor, form, order)


def throw(request: HttpRequest, actor: Actor, form: ScopeForm, order: switches.Order) -> HttpResponse:
    context = asked(actor, form, order)
    if not order.drill and request.POST.get("typed", "").strip() != context["typed"]:
        return render(request, "pages/switch_new.html", context | {"typed_error": f"Type {context['typed']} to confirm."}, status=422)
    try:
        switch = switches.engage(actor, order)
    except NotFound:
        raise
    except Refused as refused:
        about = "reason_error" if refused.fields.get("field") == "reason" else "notice"
        return render(request, "pages/switch_new.html", context | {about: refused.message}, status=refused.status)
    messages.success(request, f"{sentence(switch)} since now.")
    return redirect("switch", str(switch))


def order_of(actor: Actor, form: ScopeForm, reason: str) -> switches.Order:
    said = form.cleaned_data
    tenant = tenant_named(actor, said["tenant"])
    reason = reason.replace("\r\n", "\n")
    return switches.Order(said["scope"], said["then"], reason, tenant, said["agent"], said["tool"], said["drill"])


def asked(actor: Actor, form: ScopeForm, order: switches.Order) -> Context:
    """The confirm step: what is about to be stopped, in words and numbers."""
    tenant, slug = order.tenant or within(actor), order.tenant.slug if order.tenant else ""
    numbers = impact.impact(order.scope, tenant=tenant.pk if tenant else None, agent=order.agent, tool=order.tool)
    what = subject(order.scope, slug, order.agent, order.tool)
    return {
        "form": form,
        "confirm": True,
        "order": order,
        "hidden": {name: form.cleaned_data[name] for name in ("scope", "tenant", "agent", "tool", "then")}
        | {"drill": "1" if order.drill else ""},
        "what": what,
        "numbers": numbers,
        "lists": lists(numbers.as_json()["last_hour"]),
        "typed": typed_name(order.scope, tenant=slug, agent=order.agent, tool=order.tool),
        "verb": f"{'Start drill for' if order.drill else order.then.capitalize()} {what[0].lower()}{what[1:]}",
    }


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, switch_id: str) -> HttpResponse:
    """GET shows it with its numbers and the form that lifts it; POST `{reason, per_second}` lifts."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    switch = find(actor, switch_id)
    if request.method != "POST":
        return show(request, actor, switch)
    reason, pace = request.POST.get("reason", ""), request.POST.get("per_second", "").strip()
    try:
        switches.lift(actor, switch.pk, reason.replace("\r\n", "\n"), pace_of(pace))
    except NotFound:
        raise
    except Refused as refused:
        field = refused.fields.get("field")
        about = f"{field}_error" if field in ("reason", "per_second") else "notice"
        return show(request, actor, find(actor, switch_id), refused.status, **{about: refused.message, "reason": reason, "pace": pace})
    messages.success(request, "The drill is over." if switch.drill else "Lifted: the runs it had paused go on.")
    return redirect("switch", str(switch))


def pace_of(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise Refused("per_second_invalid", "Runs per second is a number, such as 5.", 422, field="per_second") from None


def show(request: HttpRequest, actor: Actor, switch: Switch, status: int = 200, **more: Any) -> HttpResponse:
    numbers = measured(actor, switch)
    may = switches.may(actor, switch.scope, switch.tenant) and actor.can("runs:write")
    context = shown(switch) | {"may_lift": may, "numbers": numbers["impact"], "since": numbers["since_on"]}
    return render(request, "pages/switch.html", context | {"lists": lists(numbers["impact"]["last_hour"])} | more, status=status)


# words ------------------------------------------------------------------------------------------------------------------------


def may_throw(actor: Actor) -> bool:
    return switches.may(actor, "tenant", actor.tenant) and actor.can("runs:write")


def lists(last_hour: dict[str, dict[str, int]]) -> list[Context]:
    """Titles and rows of what ran in the last hour; those with nothing in them are left out."""
    titles = {"agent": "Runs by agent", "tenant": "Runs by tenant", "tool": "Calls by tool"}
    return [{"title": titles[name], "rows": rows.items()} for name, rows in last_hour.items() if rows]
