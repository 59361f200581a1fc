"""Settings > API keys: a person's own, and to admins everybody's. Making, rotating and revoking need a proof of the last minutes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console import api_keys
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import ApiKey

from .forms import INPUT, marked, refuse
from .security import proved_lately
from .session import signed_in

Context = dict[str, Any]
SHOWN = 200
SOON = timedelta(days=7)
WORDS = {1: "1 hour", 24: "1 day", 168: "7 days"}
STATES = {  # state -> tone, icon, word
    "live": ("ok", "circle-check", "Works"),
    "soon": ("wait", "timer", "Runs out"),
    "expired": ("idle", "clock", "Expired"),
    "revoked": ("idle", "ban", "Revoked"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A key as a list has it. `look`: tone, icon, word."""

    key: ApiKey
    state: str
    networks: tuple[str, ...]

    @property
    def look(self) -> tuple[str, str, str]:
        return STATES[self.state]

    @property
    def works(self) -> bool:
        return self.state in ("live", "soon")


class KeyForm(forms.Form):
    """What can be checked without asking; `console.api_keys.make` has the last word."""

    name = forms.CharField(max_length=100, widget=forms.TextInput({**INPUT, "autocomplete": "off"}), help_text="What will use it.")
    scopes = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple())
    days = forms.TypedChoiceField(
        label="Works for", coerce=int, choices=[(days, f"{days} days") for days in api_keys.LASTS], initial=api_keys.USUAL_DAYS,
        widget=forms.Select(INPUT),
    )  # fmt: skip
    networks = forms.CharField(
        label="Only from", required=False, max_length=2000, help_text="Networks such as 203.0.113.0/24, one a line. Empty: from anywhere.",
        widget=forms.Textarea({"class": "input mono", "rows": 3, "spellcheck": "false"}),
    )  # fmt: skip

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scopes"].choices = [(scope, scope) for scope in api_keys.grantable(actor)]  # type: ignore[attr-defined]
        self.fields["scopes"].error_messages["invalid_choice"] = "You do not hold the scope %(value)s, so no key of yours can."


def no_store(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The answer may hold a secret: no cache keeps it, the browser's own neither."""

    @wraps(view)
    def answered(*args: Any, **kwargs: Any) -> HttpResponse:
        answer = view(*args, **kwargs)
        answer["Cache-Control"] = "no-store"
        return answer

    return answered


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    now = timezone.now()
    lines = [line(key, now) for key in api_keys.visible(actor)[:SHOWN]]
    context = {"lines": sorted(lines, key=lambda one: not one.works), "may_make": api_keys.may_make(actor)}
    return render(request, "pages/settings/keys.html", context)


def line(key: ApiKey, now: datetime) -> Line:
    return Line(key, state_of(key, now), tuple(getattr(getattr(key, "allowlist", None), "networks", ())))


def state_of(key: ApiKey, now: datetime) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at and key.expires_at <= now:
        return "expired"
    return "soon" if key.expires_at and key.expires_at <= now + SOON else "live"


@no_store
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def new(request: HttpRequest) -> HttpResponse:
    """POST makes one and shows its secret in the answer, and nowhere again."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    api_keys.own(actor)
    return proved_lately(make)(request)


def make(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    form = KeyForm(request.POST if request.method == "POST" else None, actor=actor)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        try:
            key, text = api_keys.make(actor, said["name"], said["scopes"], said["days"], said["networks"].split())
            return secret(request, key, text)
        except Refused as refused:
            refuse(form, refused.fields.get("field"), refused.message)
    return render(request, "pages/settings/key_new.html", {"form": marked(form)}, status=422 if form.errors else 200)


def secret(request: HttpRequest, key: ApiKey, text: str, **more: Any) -> HttpResponse:
    return render(request, "pages/settings/key_made.html", {"key": key, "text": text} | more)


@no_store
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, key_id: str) -> HttpResponse:
    """POST `act`: revoke, or rotate with `hours`."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    key = api_keys.find(actor, key_id)
    if request.method != "POST":
        return show(request, actor, key)
    return proved_lately(lambda request: change(request, actor, key))(request)


def show(request: HttpRequest, actor: Actor, key: ApiKey, status: int = 200, **more: Any) -> HttpResponse:
    mine = key.member.user_id == actor.user.pk
    context: Context = {
        "one": line(key, timezone.now()),
        "mine": mine,
        "may_rotate": mine and api_keys.may_make(actor),
        "overlaps": [(hours, WORDS[hours]) for hours in api_keys.OVERLAPS],
    }
    return render(request, "pages/settings/key.html", context | more, status=status)


def change(request: HttpRequest, actor: Actor, key: ApiKey) -> HttpResponse:
    act = request.POST.get("act")
    if act == "rotate":
        return rotate(request, actor, key)
    if act != "revoke":
        raise NotFound("act")
    done = api_keys.revoke(actor, key)
    messages.success(request, f"{key.name} is revoked: it opens nothing any more." if done else f"{key.name} was revoked before.")
    return redirect("keys")


def rotate(request: HttpRequest, actor: Actor, key: ApiKey) -> HttpResponse:
    hours = request.POST.get("hours", "")
    try:
        for_h = int(hours) if hours.isdecimal() else 0
        made, text = api_keys.rotate(actor, key, for_h)
    except Refused as refused:
        return show(request, actor, key, refused.status, error=refused.message)
    return secret(request, made, text, old=key, old_works=WORDS[for_h])
