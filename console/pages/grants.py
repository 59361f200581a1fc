"""Standing grants as pages: what is granted in advance, what each was used for, giving one and taking it back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from approvals.models import StandingGrant
from console.api import paging
from runs import standing_grants, switches
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.roles import Role
from tools.models import Tool

from .forms import INPUT, marked, refuse
from .session import signed_in

Context = dict[str, Any]
USES = 100
LASTS = (("1", "1 hour"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days"), ("2160", "90 days"))
STATES = {  # state -> tone, icon, word
    "open": ("ok", "circle-check", "Open"),
    "revoked": ("idle", "ban", "Revoked"),
    "expired": ("idle", "clock", "Expired"),
    "used_up": ("idle", "circle-check", "Used up"),
}


class GrantForm(forms.Form):
    """What can be checked without asking; `runs.standing_grants.give` has the last word."""

    agent = forms.ChoiceField(widget=forms.Select(INPUT))
    tool = forms.ChoiceField(widget=forms.Select(INPUT), help_text="Tools that cannot be undone are never granted.")
    when = forms.CharField(
        label="Only when", required=False, max_length=2000, widget=forms.TextInput({**INPUT, "spellcheck": "false", "class": "input mono"}),
        help_text="CEL over args, such as args.amount < 20. Empty: any arguments.",
    )  # fmt: skip
    most = forms.IntegerField(label="Calls at most", min_value=1, initial=10, widget=forms.NumberInput(INPUT))
    hours = forms.ChoiceField(label="For", choices=LASTS, initial="24", widget=forms.Select(INPUT))
    reason = forms.CharField(max_length=2000, widget=forms.TextInput(INPUT), help_text="Shown on each call that uses it.")

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        irreversible = Tool.objects.filter(current__effect="irreversible").values("name")
        for name, kind in (("agent", Agent), ("tool", Tool)):
            rows = switches.seen(kind, actor.tenant).exclude(name__in=irreversible) if kind is Tool else switches.seen(kind, actor.tenant)
            self.fields[name].choices = [(one, one) for one in rows.order_by("name")]  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET lists them, POST gives one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("approvals:read")
    form = GrantForm(request.POST if request.method == "POST" else None, actor=actor) if may(actor) else None
    if request.method == "POST":
        if form is None:
            raise Refused("not_yours", "Standing grants are given by approvers of the tenant.", 403)
        if form.is_valid() and give(request, actor, form):
            return redirect("grants")
    found, more = paging.page(standing_grants.visible(actor), request.GET, "grt")
    context = {"form": form and marked(form), "grants": [shown(one) for one in found], "more": more, "tenant_slug": actor.tenant.slug}
    return render(request, "pages/grants.html", context, status=422 if form and form.errors else 200)


def give(request: HttpRequest, actor: Actor, form: GrantForm) -> bool:
    said = form.cleaned_data
    try:
        standing_grants.give(
            actor, tenant=actor.tenant, agent=said["agent"], tool=said["tool"], most=said["most"], when=said["when"],
            reason=said["reason"], expires_at=timezone.now() + timedelta(hours=int(said["hours"])),
        )  # fmt: skip
    except Refused as refused:
        refuse(form, refused.fields.get("field"), refused.message)
        return False
    messages.success(request, f"Granted: {said['tool']} of {said['agent']}, {said['most']} times at most.")
    return True


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, grant_id: str) -> HttpResponse:
    """GET shows it with what used it, POST `{reason}` takes it back."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("approvals:read")
    grant = standing_grants.find(actor, grant_id)
    more: Context = {}
    if request.method == "POST":
        try:
            standing_grants.revoke(actor, grant, request.POST.get("reason", ""))
        except NotFound:
            raise
        except Refused as refused:
            more = {"error": refused.message, "status": refused.status}
        else:
            messages.success(request, "Taken back. Calls that it approved and that were not sent yet are not sent.")
            return redirect("grant", grant_id)
    uses = grant.uses.order_by("-id").defer("args", "proposed", "evidence")[:USES]
    lines = [{"approval": use, "run_id": encode("agt", use.run_id)} for use in uses]
    context = shown(grant) | {"uses": lines, "may": may(actor)} | more
    return render(request, "pages/grant.html", context, status=more.get("status", 200))


def shown(grant: StandingGrant) -> Context:
    tone, icon, word = STATES[standing_grants.state(grant)]
    return {
        "grant": grant, "grant_id": str(grant), "state": standing_grants.state(grant), "tone": tone, "icon": icon, "word": word,
        "left": grant.most - grant.used, "width": f"{100 * grant.used / grant.most:.0f}%",
    }  # fmt: skip


def may(actor: Actor) -> bool:
    return actor.can("approvals:decide") and actor.has_role(Role.APPROVER)
