"""Settings > Preferences: how one person wants the console shown. And Settings > Notices: what tells them that somebody waits."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console import channels, preferences
from console.models import Preference
from tenants.actors import Actor
from tenants.errors import Refused

from .forms import INPUT, marked, refuse
from .session import signed_in

Context = dict[str, Any]
REFUSED_AT = {"bad_zone": "zone"}


def zones() -> list[Any]:
    """For a select: UTC and the browser's first, then all others by area."""
    areas: dict[str, list[tuple[str, str]]] = {area: [] for area in preferences.AREAS}
    for name in sorted(preferences.known_zones()):
        area, _, place = name.partition("/")
        areas[area].append((name, place.replace("_", " ").replace("/", ", ")))
    here = [(preferences.UTC, "UTC"), (preferences.LOCAL, "As the browser has it")]
    return [*here, *(("Other" if area == "Etc" else area, places) for area, places in areas.items() if places)]


class PreferencesForm(forms.Form):
    """What can be checked without asking; `console.preferences.save` has the last word."""

    zone = forms.CharField(
        label="Time zone", max_length=64, widget=forms.Select(INPUT), help_text="For every time, and for the axes of charts."
    )
    clock = forms.ChoiceField(label="Time format", choices=Preference.Clock.choices, widget=forms.RadioSelect())
    times = forms.ChoiceField(label="Recent times", choices=Preference.Times.choices, widget=forms.RadioSelect())
    theme = forms.ChoiceField(choices=Preference.Theme.choices, widget=forms.RadioSelect())
    density = forms.ChoiceField(choices=Preference.Density.choices, widget=forms.RadioSelect())
    single_keys = forms.BooleanField(label="Single-key shortcuts", required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["zone"].widget.choices = zones()


class NoticesForm(forms.Form):
    title_count = forms.BooleanField(required=False)
    desktop_notices = forms.BooleanField(required=False)


@require_safe
@signed_in
def first(request: HttpRequest) -> HttpResponse:
    return redirect("preferences")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """POST saves them, for every browser of this person."""
    choice: preferences.Choice = request.choice  # type: ignore[attr-defined]
    kept = {name: getattr(choice, name) for name in PreferencesForm.base_fields}
    form = PreferencesForm(request.POST) if request.method == "POST" else PreferencesForm(initial=kept)
    if request.method == "POST" and form.is_valid() and saved(request, form):
        messages.success(request, "Saved, for every browser you sign in with.")
        return redirect("preferences")
    context = {"form": marked(form), "now": timezone.now()}
    return render(request, "pages/settings/preferences.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def notices(request: HttpRequest) -> HttpResponse:
    """POST saves what tells this person; the channels, which tell the tenant, have pages of their own."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method == "POST":
        form = NoticesForm(request.POST)
        if form.is_valid() and saved(request, form):
            messages.success(request, "Saved.")
        return redirect("notices")
    context: Context = {"notices_page": True}
    if actor.can("config:read"):
        context["channels"] = channels.visible(actor)
    return render(request, "pages/settings/notices.html", context)


def saved(request: HttpRequest, form: forms.Form) -> bool:
    """False: it was refused, and the form says why."""
    try:
        preferences.save(request.actor.user, **form.cleaned_data)  # type: ignore[attr-defined]
    except Refused as refused:
        refuse(form, REFUSED_AT.get(refused.code), refused.message)
        return False
    return True
