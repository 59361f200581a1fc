"""What a person does with a release: shadow, canary, promote, roll back; and with a rollout. Each asks first, with its numbers."""

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from console import release_records as rr
from console.api.releases import turned
from console.release_figures import lines
from runs import releases, stages
from runs.models import Agent, Release, Rollout
from runs.rollouts import ENOUGH
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.catalog import need_platform_admin

from .forms import INPUT, marked, refuse
from .releases import under_way
from .session import signed_in

JSON = dict[str, Any]
REASON = forms.Textarea({**INPUT, "rows": 2})
READS = (
    ("both", "Send a read only where the first run has no result for it"),
    ("recorded", "Never send a read"),
    ("live", "Send every read"),
)
KEYS = (("user", "User: each keeps the same release"), ("session", "Session"), ("tenant", "Tenant"))


class Reasoned(forms.Form):
    reason = forms.CharField(required=False, max_length=2000, widget=REASON, help_text="Kept with your name.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order_fields([*(name for name in self.fields if name != "reason"), "reason"])


class ShadowForm(Reasoned):
    share = forms.FloatField(label="Share of runs, in percent", min_value=0, max_value=100, initial=10, widget=forms.NumberInput(INPUT))
    reads = forms.ChoiceField(label="Reads of the shadow", choices=READS, widget=forms.Select(INPUT))
    max_cost_usd = forms.DecimalField(
        label="May cost in all, in USD", required=False, min_value=Decimal("0.000001"), max_value=100_000, max_digits=11,
        decimal_places=6, widget=forms.NumberInput({**INPUT, "step": "any"}), help_text="It ends when that is used up.",
    )  # fmt: skip


class CanaryForm(Reasoned):
    steps = forms.RegexField(
        regex=r"^\s*\d{1,3}(\.\d+)?([\s,]+\d{1,3}(\.\d+)?){0,9}\s*$", label="Shares, in percent", initial="5 25 50", max_length=80,
        widget=forms.TextInput({**INPUT, "autocomplete": "off"}), help_text="It goes to the next one when the watch finds it no worse.",
        error_messages={"invalid": "Up to ten numbers from 0 to 100, growing, such as 5 25 50."},
    )  # fmt: skip
    key = forms.ChoiceField(label="Shared out by", choices=KEYS, widget=forms.Select(INPUT))
    enough = forms.IntegerField(
        label="Runs at a share before it may go on", min_value=2, max_value=20_000, initial=ENOUGH, widget=forms.NumberInput(INPUT)
    )


class PromoteForm(Reasoned):
    pass


class RollbackForm(Reasoned):
    in_flight = forms.ChoiceField(label="Runs in flight", widget=forms.RadioSelect(), initial="finish")

    def __init__(self, *args: Any, in_flight: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        runs = f"{in_flight:,} run{'' if in_flight == 1 else 's'}"
        self.fields["in_flight"].choices = (  # type: ignore[attr-defined]
            ("finish", f"Finish: {runs} go on to their end as they are"),
            ("move", f"Move: {runs} go on with the other release from their next step"),
            ("stop", f"Stop: {runs} are cancelled; a call on its way ends first"),
        )


VERBS: dict[str, tuple[type[Reasoned], str, str, str]] = {  # verb -> form, title, button, icon
    "shadow": (ShadowForm, "Shadow real runs on {it}?", "Start shadow", "eye"),
    "canary": (CanaryForm, "Give {it} to a share of new runs?", "Start canary", "trending-up"),
    "promote": (PromoteForm, "Take {it} live?", "Promote", "rocket"),
    "rollback": (RollbackForm, "Roll {it} back?", "Roll back", "undo-2"),
}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def do(request: HttpRequest, release_id: str, act: str) -> HttpResponse:
    """GET says what it does, POST does it. `?override=1`: promote in spite of what speaks against it."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:write")
    need_platform_admin(actor)
    release = rr.find(actor, release_id)
    if act not in VERBS:
        raise NotFound("action")
    override = (request.POST if request.method == "POST" else request.GET).get("override") == "1"
    form = form_of(actor, release, act, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            return done(request, actor, release, act, form, override)
        except Refused as refused:
            if refused.status == 403:
                raise
            refuse(form, refused.fields.get("field"), refused.message)
    return render(request, "pages/releases/do.html", asked(release, act, form, override), status=422 if form.errors else 200)


def form_of(actor: Actor, release: Release, act: str, data: Any) -> Reasoned:
    if act == "rollback":
        return RollbackForm(data, in_flight=rr.runs_of(actor, release).filter(ended_at=None).count())
    return VERBS[act][0](data)


def asked(release: Release, act: str, form: Reasoned, override: bool) -> JSON:
    agent = Agent.objects.select_related("live").get(pk=release.agent_id)
    objection = stages.objection_to(release) if act == "promote" else ""
    _, title, button, icon = VERBS[act]
    return {
        "release": release, "act": act, "form": marked(form), "title": title.format(it=f"{release}"), "button": button, "icon": icon,
        "says": words(release, agent, act), "objection": objection, "override": override and bool(objection),
        "asked_by": releases.overruled_by(release) if objection else "",
    }  # fmt: skip


def words(release: Release, agent: Agent, act: str) -> str:
    live = f"r{agent.live.number}" if agent.live else "no release"
    trial = stages.open_ones(agent.name).filter(candidate=release, kind=Rollout.Kind.CANARY).exists()
    return {
        "shadow": f"A share of the runs of {live} that have ended is run once more on r{release.number}. Their writes are kept and never "
        "sent; their model calls cost as usual.",
        "canary": f"A share of new runs gets r{release.number} instead of {live}, and changes things. The watch rolls it back by itself "
        "when a guard is shown to be worse than its limit.",
        "promote": f"New runs of {agent.name} get r{release.number} instead of {live}. Runs in flight end with what they began with.",
        "rollback": f"New runs get {live if trial else 'the release that was live before'} again. What its runs wrote stays; you can undo "
        "chosen writes afterwards.",
    }[act]


def done(request: HttpRequest, actor: Actor, release: Release, act: str, form: Reasoned, override: bool) -> HttpResponse:
    said = form.cleaned_data
    reason = said["reason"].replace("\r\n", "\n")
    if act == "rollback":
        return taken_back(request, actor, release, said["in_flight"], reason)
    if act == "promote":
        stages.promote(actor, release, reason, override=override)
        messages.success(request, f"{release} is live: new runs get it.")
        return redirect("release", release.release_id)
    if act == "shadow":
        cost = said["max_cost_usd"]
        most = None if cost is None else int(cost * 1_000_000)
        stages.shadow(actor, release, share=said["share"] / 100, reads=said["reads"], max_cost_micro=most, reason=reason)
    else:
        shares = tuple(float(each) / 100 for each in said["steps"].replace(",", " ").split())
        stages.canary(actor, release, steps=shares, key=said["key"], enough=said["enough"], reason=reason)
    messages.success(request, f"The {act} of {release} has begun.")
    return redirect("release", release.release_id)


def taken_back(request: HttpRequest, actor: Actor, release: Release, in_flight: stages.InFlight, reason: str) -> HttpResponse:
    """Then the list of what it wrote, with the way to undo it."""
    if in_flight == "stop":
        actor.need("runs:write")
    to = stages.roll_back(actor, release, in_flight=in_flight, reason=reason)
    stopped = stages.stop_in_flight(actor, release) if in_flight == "stop" else []
    more = f" {len(stopped)} run{'' if len(stopped) == 1 else 's'} asked to stop." if in_flight == "stop" else ""
    messages.success(request, f"Rolled back: new runs get r{to.number}.{more} Below is what {release} wrote.")
    return redirect("release-writes", release.release_id)


# rollouts ---------------------------------------------------------------------------------------------------------------------


class ShareForm(forms.Form):
    share = forms.FloatField(label="Share, in percent", min_value=0, max_value=100, widget=forms.NumberInput({**INPUT, "step": "any"}))
    reason = forms.CharField(required=False, max_length=2000, widget=forms.TextInput(INPUT))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def rollout(request: HttpRequest, rollout_id: str) -> HttpResponse:
    """GET shows it, POST `act`: share, hold, resume or end."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    found = rr.find_rollout(actor, rollout_id)
    form = ShareForm(initial={"share": round(found.share * 100, 2)})
    if request.method == "POST":
        actor.need("config:write")
        form = ShareForm(request.POST)
        if not (request.POST.get("act") == "share" and not form.is_valid()):
            return move(request, actor, found, form)
    figures = rr.verdict_of(actor, found)
    context = {
        "one": under_way(actor, found), "rollout": found, "form": marked(form), "lines": lines(figures),
        "open": found.state in Rollout.OPEN, "may": actor.platform_admin and actor.can("config:write"),
    }  # fmt: skip
    return render(request, "pages/releases/rollout.html", context, status=422 if form.errors else 200)


def move(request: HttpRequest, actor: Actor, found: Rollout, form: ShareForm) -> HttpResponse:
    act = request.POST.get("act", "")
    if act not in ("share", "hold", "resume", "end"):
        raise NotFound("action")
    share = form.cleaned_data["share"] / 100 if act == "share" else 0.0
    if turned(actor, found, act, share, request.POST.get("reason", "")[:2000]):
        said = {"share": "Its share is changed.", "hold": "It is held.", "resume": "It goes on.", "end": "It has ended."}
        messages.success(request, said[act])
    else:
        messages.error(request, "It is so already, or somebody ended it.")
    return redirect("rollout", str(found))
