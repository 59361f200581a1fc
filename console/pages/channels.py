"""Channels as pages: where the tenant is told of what happens, a test message, and what came of each."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from console import channels, deliveries, notices
from console.channels import ChannelSpec
from console.models import Channel, Delivery
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Credential

from .forms import INPUT, marked, refuse
from .run_callbacks import line
from .session import signed_in

Context = dict[str, Any]
SENT = 50
NONE = ("", "–")
REFUSED_AT = {"egress_refused": "url", "bad_channel": "name"}


def words(event: str) -> str:
    """`approval.break_glass` -> `Approval: break glass`."""
    about, _, what = event.partition(".")
    return f"{about.capitalize()}: {what.replace('_', ' ')}"


class ChannelForm(forms.Form):
    """What a channel is, as `console.channels.ChannelSpec` takes it."""

    name = forms.CharField(max_length=64, widget=forms.TextInput({**INPUT, "autocomplete": "off"}))
    kind = forms.ChoiceField(choices=Channel.Kind.choices, widget=forms.Select(INPUT))
    url = forms.CharField(
        label="Address", required=False, max_length=2000, widget=forms.TextInput({**INPUT, "inputmode": "url"}), help_text="Of a webhook.",
    )  # fmt: skip
    url_secret = forms.ChoiceField(
        label="Credential that holds the address", required=False, widget=forms.Select(INPUT),
        help_text="For Slack and Teams, and for webhooks whose address is a secret.",
    )  # fmt: skip
    secret_name = forms.ChoiceField(
        label="Credential that signs", required=False, widget=forms.Select(INPUT), help_text="Webhooks are always signed."
    )
    addresses = forms.CharField(
        label="Addresses of e-mail", required=False, widget=forms.Textarea({**INPUT, "rows": 2}), help_text="One a line. Only for e-mail."
    )
    events = forms.MultipleChoiceField(choices=[(event, words(event)) for event in notices.EVENTS], widget=forms.CheckboxSelectMultiple())
    template = forms.CharField(
        required=False, widget=forms.Textarea({"class": "input mono", "rows": 3, "spellcheck": "false"}),
        help_text="JSON that is posted instead, with {title}, {tool}, {agent}, {link} and others in its texts.",
    )  # fmt: skip
    enabled = forms.BooleanField(required=False, initial=True)

    def __init__(self, *args: Any, actor: Actor, channel: Channel | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = Credential.objects.filter(tenant=actor.tenant).order_by("name").values_list("name", flat=True)
        for field in ("url_secret", "secret_name"):
            self.fields[field].choices = [NONE, *((name, name) for name in names)]  # type: ignore[attr-defined]
        if channel is not None:
            del self.fields["name"]

    def clean_template(self) -> Any:
        text = self.cleaned_data["template"].strip()
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError):
            raise forms.ValidationError("This is not JSON.") from None

    def clean(self) -> Context:
        said: Context = super().clean() or {}
        if self.errors:
            return said
        given = {field: said[field] for field in ChannelSpec.model_fields} | {"addresses": said["addresses"].split()}
        try:
            said["spec"] = ChannelSpec.model_validate(given)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_input=False, include_context=False):
                message = each["msg"].removeprefix("Value error, ")
                refuse(self, each["loc"][0] if each["loc"] else None, f"{message[:1].upper()}{message[1:]}.")
        return said


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET lists them, POST makes one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    form = ChannelForm(request.POST if request.method == "POST" else None, actor=actor) if may(actor) else None
    if request.method == "POST":
        actor.need("config:write")
        if form and form.is_valid() and (made := saved(actor, form, form.cleaned_data["name"])):
            messages.success(request, "The channel is there. Send it a test message.")
            return redirect("channel", made.name)
    waiting = Count("deliveries", filter=Q(deliveries__state=Delivery.State.PENDING))
    failed = Count("deliveries", filter=Q(deliveries__state=Delivery.State.FAILED))
    rows = channels.visible(actor).annotate(waiting=waiting, failed=failed)
    context = {"channels": rows, "form": form and marked(form)}
    return render(request, "pages/channels.html", context, status=422 if form and form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, name: str) -> HttpResponse:
    """GET shows it with what was sent, POST `act`: save, test, delete, or redeliver with `delivery`."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    channel = channels.find(actor, name)
    if request.method != "POST":
        return show(request, actor, channel, ChannelForm(actor=actor, channel=channel, initial=values_of(channel)))
    act = request.POST.get("act", "")
    if act == "save":
        return save(request, actor, channel)
    if act == "delete":
        channels.delete(actor, channel, request.POST.get("reason", ""))
        messages.success(request, f"{channel.name} is gone. What it was to be sent is sent to nobody.")
        return redirect("channels")
    if act == "redeliver":
        deliveries.redeliver(actor, request.POST.get("delivery", ""))
        messages.success(request, "It is being sent again.")
    else:
        channels.test(actor, channel)
        messages.success(request, "A test message is on its way. What came of it is in the list.")
    return redirect("channel", channel.name)


def save(request: HttpRequest, actor: Actor, channel: Channel) -> HttpResponse:
    actor.need("config:write")
    form = ChannelForm(request.POST, actor=actor, channel=channel)
    if form.is_valid() and saved(actor, form, channel.name):
        messages.success(request, "The channel is changed.")
        return redirect("channel", channel.name)
    return show(request, actor, channel, form, 422)


def saved(actor: Actor, form: ChannelForm, name: str) -> Channel | None:
    """None: it was refused, and the form says why."""
    if "name" in form.fields and channels.visible(actor).filter(name=name).exists():
        refuse(form, "name", "There is a channel of this name already.")
        return None
    try:
        return channels.put(actor, actor.tenant, name, form.cleaned_data["spec"])[0]
    except NotFound:
        raise
    except Refused as refused:
        refuse(form, REFUSED_AT.get(refused.code), refused.message)
        return None


def show(request: HttpRequest, actor: Actor, channel: Channel, form: ChannelForm, status: int = 200) -> HttpResponse:
    sent = [line(row) for row in channel.deliveries.order_by("-id")[:SENT]]
    context = {
        "channel": channel, "form": marked(form) if may(actor) else None, "sent": sent, "waits": any(each.waits for each in sent),
        "may_redeliver": actor.can("runs:write"), "events": [words(event) for event in channel.events], "path": request.path,
    }  # fmt: skip
    template = "pages/channels/_sent.html" if request.GET.get("part") == "sent" else "pages/channel.html"
    return render(request, template, context, status=status)


def values_of(channel: Channel) -> Context:
    template = "" if channel.template is None else json.dumps(channel.template, indent=2, ensure_ascii=False)
    return channels.as_json(channel) | {"addresses": "\n".join(channel.addresses), "template": template}


def may(actor: Actor) -> bool:
    return actor.can("config:write")
