"""The list of incidents: what is open, how long people take, and a form that opens one by hand.

The filters live in the address. `?part=list` answers the list alone.
"""

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console.api import paging
from console.incidents import book, reading
from console.incidents.moves import Opening
from console.models import Detector, Incident, Runbook, Severity
from console.runbooks import shelf
from runs import switches
from runs.models import Agent, ModelDefinition
from tenants.actors import Actor
from tenants.errors import Refused
from tools.models import Tool

from .forms import INPUT, marked, refuse
from .session import signed_in

JSON = dict[str, Any]
TABS = {  # state -> (word, states)
    "live": ("Live", Incident.LIVE),
    "open": ("Open", ("open",)),
    "acknowledged": ("Acknowledged", ("acknowledged",)),
    "resolved": ("Resolved", ("resolved",)),
    "all": ("All", tuple(Incident.State.values)),
}
FILTERS = ("state", "severity", "owner", "detector", "runbook", "tool", "agent", "model")


# the list ---------------------------------------------------------------------------------------------------------------------


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(book.READ)
    query = {name: request.GET.get(name, "").strip()[:100] for name in FILTERS if request.GET.get(name, "").strip()}
    tab = query.get("state", "live") if query.get("state", "live") in TABS else "live"
    found, more = paging.page(filtered(actor, query).filter(state__in=TABS[tab][1]), request.GET, "inc")
    context = {
        "rows": [dressed(one) for one in found], "tab": tab, "query": query, "filtered": bool(set(query) - {"state"}),
        "top": address(query), "older_url": address(query, cursor=more) if more else "", "may_open": actor.can(book.WRITE),
    }  # fmt: skip
    if request.GET.get("part") == "list":
        return render(request, "pages/incidents/_list.html", context)
    context |= {"tabs": tabs(actor, query), "chips": chips(actor, query), "mean": reading.summary(actor, timezone.now())}
    return render(request, "pages/incidents.html", context)


def filtered(actor: Actor, query: dict[str, str]) -> "QuerySet[Incident]":
    rows = book.visible(actor)
    for name in ("severity", "detector", "runbook"):
        rows = rows.filter(**{name: query[name]}) if query.get(name) else rows
    for name in ("tool", "agent", "model"):
        rows = rows.filter(**{f"subject__{name}": query[name]}) if query.get(name) else rows
    owner = query.get("owner", "")
    if owner:
        rows = rows.filter(owner=None) if owner == "nobody" else rows.filter(owner__username=owner)
    return rows


def dressed(incident: Incident) -> JSON:
    until = incident.resolved_at or timezone.now()
    return {"it": incident, "about": about(incident), "age_s": (until - incident.opened_at).total_seconds()}


def about(incident: Incident) -> str:
    return ", ".join(str(value) for value in incident.subject.values() if value)


def address(query: dict[str, str], **more: str) -> str:
    values = QueryDict(mutable=True)
    values.update({name: value for name, value in {**query, **more}.items() if value})
    return reverse("incidents") + (f"?{values.urlencode()}" if values else "")


def tabs(actor: Actor, query: dict[str, str]) -> list[JSON]:
    counts = {str(state): filtered(actor, query).filter(state=state).count() for state in Incident.LIVE}
    numbers = {"live": sum(counts.values()), "open": counts["open"], "acknowledged": counts["acknowledged"]}
    urls = {name: address({**query, "state": "" if name == "live" else name}) for name in TABS}
    return [{"name": name, "word": word, "url": urls[name], "number": numbers.get(name)} for name, (word, _) in TABS.items()]


def chips(actor: Actor, query: dict[str, str]) -> list[JSON]:
    people = sorted({one for one in book.visible(actor).values_list("owner__username", flat=True).distinct() if one})
    detectors = Detector.objects.order_by("name").values_list("name", flat=True)
    return [
        chip(query, "severity", dict(Severity.choices)),
        chip(query, "owner", {"nobody": "Nobody", **{name: name for name in people}}),
        chip(query, "detector", {name: name for name in detectors}),
    ]


def chip(query: dict[str, str], name: str, known: dict[str, str]) -> JSON:
    chosen = query.get(name, "")
    options = [{"label": label, "url": address({**query, name: value}), "current": value == chosen} for value, label in known.items()]
    return {"name": name, "shown": known.get(chosen, chosen), "clear": address({**query, name: ""}), "options": options}


# by hand ----------------------------------------------------------------------------------------------------------------------


class OpenForm(forms.Form):
    """Prefilled from the address: `?title=&severity=&tool=&agent=&model=&runbook=&text=`, as the charts link to it. `chart`: the kind of
    detector whose figure of the subject is kept as its evidence."""

    title = forms.CharField(label="What is wrong", max_length=200, widget=forms.TextInput(INPUT))
    severity = forms.ChoiceField(choices=Severity.choices, initial=Severity.MAJOR, widget=forms.Select(INPUT))
    tool = forms.ChoiceField(required=False, widget=forms.Select(INPUT))
    agent = forms.ChoiceField(required=False, widget=forms.Select(INPUT))
    model = forms.ChoiceField(required=False, widget=forms.Select(INPUT))
    runbook = forms.ChoiceField(required=False, widget=forms.Select(INPUT))
    text = forms.CharField(
        label="What you see", required=False, max_length=4000, strip=True, widget=forms.Textarea({**INPUT, "rows": 3, "maxlength": 4000})
    )

    chart = forms.CharField(required=False, max_length=24, widget=forms.HiddenInput())

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = None if actor.platform_admin else actor.tenant
        names = {
            "tool": switches.seen(Tool, mine),
            "agent": switches.seen(Agent, mine),
            "model": ModelDefinition.objects.values_list("name", flat=True),
        }
        for name, found in names.items():
            self.fields[name].choices = [("", "–"), *((one, one) for one in found.order_by("name"))]  # type: ignore[attr-defined]
        self.fields["runbook"].choices = [("", "–"), *titled(shelf.visible(actor))]  # type: ignore[attr-defined]


def titled(runbooks: "QuerySet[Runbook]") -> list[tuple[str, str]]:
    return [(one.name, one.current.title) for one in runbooks if one.current]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def new(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need(book.WRITE)
    if request.method != "POST":
        return render(request, "pages/incident_new.html", {"form": OpenForm(initial=request.GET.dict(), actor=actor)})
    form = OpenForm(request.POST, actor=actor)
    if form.is_valid():
        said = form.cleaned_data
        subject = {name: said[name] for name in ("tool", "agent", "model") if said[name]}
        opening = Opening(
            actor.tenant.pk, said["title"], said["severity"], said["text"].replace("\r\n", "\n"), subject, runbook=said["runbook"]
        )
        try:
            return redirect("incident", str(book.by_hand(actor, opening, timezone.now(), said["chart"])))
        except Refused as refused:
            if refused.status != 422:
                raise
            refuse(form, refused.fields.get("field"), refused.message)
    return render(request, "pages/incident_new.html", {"form": marked(form)}, status=422)
