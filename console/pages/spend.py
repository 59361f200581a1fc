"""What was spent and how far each ceiling is used; those who may set one from here. `?scope=&kind=` fills the form in."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from console import charts, metrics, spending
from console.api.ceilings import Wanted, change
from console.api.registry import seen_by
from console.spending import Spent, Standing
from console.templatetags.signalbox import micros
from runs.models import Agent
from tenants import ceilings
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Ceiling, Tenant
from tenants.quotas import scope_name

from .session import signed_in

JSON = dict[str, Any]
KINDS = (
    (Ceiling.Kind.COST_DAY, "Cost a day, USD"),
    (Ceiling.Kind.COST_MONTH, "Cost a month, USD"),
    (Ceiling.Kind.CONCURRENT, "Runs at once"),
    (Ceiling.Kind.PER_MINUTE, "Starts a minute"),
)
SHORT = {
    Ceiling.Kind.COST_DAY: "Cost today",
    Ceiling.Kind.COST_MONTH: "Cost this month",
    Ceiling.Kind.CONCURRENT: "Runs at once",
    Ceiling.Kind.PER_MINUTE: "Starts a minute",
}
INPUT = {"class": "input"}
HIGH = 0.8  # of a ceiling: from here on it is marked


@dataclass(frozen=True, slots=True)
class Line:
    """A ceiling as people read it. `forecast`: where its pace leads; `late`: that is over it."""

    standing: Standing
    name: str
    used: int
    limit: int
    used_text: str
    limit_text: str
    forecast: str = ""
    late: bool = False
    change_url: str = ""


class CeilingForm(forms.Form):
    """What can be checked without asking; `runs.ceilings.put` has the last word. `scope`: `tenant/agent`, both may be empty."""

    scope = forms.ChoiceField(label="For", widget=forms.Select(INPUT), required=False)
    kind = forms.ChoiceField(label="Ceiling", choices=KINDS, widget=forms.Select(INPUT))
    value = forms.CharField(
        label="Value", required=False, widget=forms.TextInput({**INPUT, "inputmode": "decimal"}), max_length=20,
        help_text="0 accepts nothing new. What runs already is never stopped.",
    )  # fmt: skip
    reason = forms.CharField(label="Reason", widget=forms.TextInput(INPUT), max_length=1000, help_text="Kept in the audit trail.")

    def __init__(self, *args: Any, scopes: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = scopes  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?part=ceilings` answers the ceilings alone. POST `act` set or remove."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("metrics:read")
    if request.method == "POST":
        return act(request, actor)
    now = timezone.now()
    if request.GET.get("part") == "ceilings":
        return render(request, "pages/spend/_ceilings.html", ceilings_of(actor, now))
    return show(request, actor, CeilingForm(scopes=scopes(actor), initial=request.GET.dict()) if may_set(actor) else None)


def show(request: HttpRequest, actor: Actor, form: CeilingForm | None, status: int = 200) -> HttpResponse:
    now = timezone.now()
    spent = spending.spent(metrics.scope_of(actor), now)
    context = ceilings_of(actor, now) | drawn(spent, actor, now) | {"form": form, "spent": spent, "days": spending.DAYS}
    return render(request, "pages/spend.html", context, status=status)


# setting ----------------------------------------------------------------------------------------------------------------------


def act(request: HttpRequest, actor: Actor) -> HttpResponse:
    """A refusal shows the page again with what was typed."""
    actor.need("config:write")
    form = CeilingForm(request.POST, scopes=scopes(actor))
    removes = request.POST.get("act") == "remove"
    if form.is_valid() and (removes or form.cleaned_data["value"]):
        try:
            change(actor, wanted(form, removes))
        except NotFound:
            form.add_error(None, "There is no such ceiling to remove.")
        except Refused as refused:
            form.add_error("value" if refused.code == "bad_ceiling" else None, refused.message)
        else:
            messages.success(request, "The ceiling is removed." if removes else "The ceiling is set. New runs are held to it from now on.")
            return redirect("spend")
    elif form.is_valid():
        form.add_error("value", "Say how much.")
    for name in form.errors:
        if name in form.fields:
            form.fields[name].widget.attrs |= {"aria-invalid": "true", "aria-describedby": f"{form[name].auto_id}_error"}
    return show(request, actor, form, 422)


def wanted(form: CeilingForm, removes: bool) -> Wanted:
    said = form.cleaned_data
    tenant, _, agent = said["scope"].partition("/")
    value = None if removes else said["value"].strip().lstrip("$")
    return Wanted.model_construct(tenant=tenant or None, agent=agent, kind=said["kind"], value=value, reason=said["reason"])


def may_set(actor: Actor) -> bool:
    return actor.can("config:write")


def scopes(actor: Actor) -> list[tuple[str, str]]:
    """(`tenant/agent`, words) of every place whose ceilings this person sets."""
    agents = list(Agent.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True))
    slugs: list[str] = [actor.tenant.slug]
    if actor.platform_admin:
        slugs = list(Tenant.objects.order_by("slug").values_list("slug", flat=True))
    pairs = [(slug, agent) for slug in (["", *slugs] if actor.platform_admin else slugs) for agent in ("", *agents)]
    return [(f"{slug}/{agent}", scope_name(slug or None, agent).capitalize()) for slug, agent in pairs]


# the ceilings -----------------------------------------------------------------------------------------------------------------


def ceilings_of(actor: Actor, now: Any) -> JSON:
    """Grouped by whose they are."""
    groups: dict[str, list[Line]] = {}
    for one in spending.standings(actor, now):
        groups.setdefault(one.scope, []).append(line(one, may_set(actor)))
    return {"groups": [{"title": title.capitalize(), "lines": lines} for title, lines in groups.items()], "may_set": may_set(actor)}


def line(one: Standing, changes: bool) -> Line:
    ceiling = one.ceiling
    shown = micros if one.is_cost else (lambda count: f"{count:,}")
    forecast, late = foretold(one)
    used = one.used or 0
    return Line(
        one,
        SHORT[Ceiling.Kind(ceiling.kind)],
        *((used, ceiling.value) if ceiling.value else (1, 1)),  # a ceiling of nothing is full
        used_text=shown(used) if one.used is not None else "up to",
        limit_text=shown(ceiling.value),
        forecast=forecast,
        late=late,
        change_url=change_url(ceiling) if changes else "",
    )


def foretold(one: Standing) -> tuple[str, bool]:
    """Where a straight line from the window's start leads."""
    if one.pace is None or one.ends_at is None:
        return ("Nothing spent in this window yet." if one.is_cost else ""), False
    by = "midnight UTC" if one.ceiling.kind == Ceiling.Kind.COST_DAY else f"{one.ends_at:%-d %B}, 00:00 UTC"
    words = f"At this pace {micros(one.pace.by_end_micro)} by {by}"
    if one.spent >= one.ceiling.value:
        return f"{words}; the ceiling is reached.", True
    if one.pace.over_at is None:
        return f"{words}.", False
    at = f"{one.pace.over_at:%H:%M}" if one.ceiling.kind == Ceiling.Kind.COST_DAY else f"{one.pace.over_at:%-d %B, %H:%M}"
    return f"{words}, over the ceiling at {at}.", True


def change_url(ceiling: Ceiling) -> str:
    scope = f"{ceiling.tenant.slug if ceiling.tenant else ''}/{ceiling.agent}"
    known = {"scope": scope, "kind": ceiling.kind, "value": ceilings.shown(ceiling.kind, ceiling.value)}
    return f"{reverse('spend')}?{urlencode(known)}#set"


# what was spent ---------------------------------------------------------------------------------------------------------------


def drawn(spent: Spent, actor: Actor, now: Any) -> JSON:
    if not spent.agents:
        return {"chart": None}
    ceiling = None if actor.platform_admin else Ceiling.objects.filter(tenant=actor.tenant, agent="", kind=Ceiling.Kind.COST_DAY).first()
    costly = max(spent.days, key=lambda day: day.cost_micro)
    words = (
        f"Cost by day, UTC. {micros(spent.cost_micro)} in {len(spent.days)} days, most on {costly.at:%-d %B}: {micros(costly.cost_micro)}."
    )
    figure = charts.spend(spent.days, ceiling.value if ceiling else None)
    return {"chart": charts.Chart("days", "Cost by day", figure, words, micros(spent.days[-1].cost_micro), "today", legend=True)}
