"""Rules as pages: what they are and how often they held, and the form that shows what a change would change before it is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from console import metrics, policy_words, rule_hits
from console.verdicts import verdict
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry, Tenant
from tools import proposals, rules
from tools.models import Rule
from tools.proposals import RuleProposal

from . import proposing
from .matrix import EVERY
from .proposing import CODE, INPUT, PolicyForm
from .session import signed_in

JSON = dict[str, Any]
DECISIONS = (("ask", "Ask people first"), ("draft", "Draft only: keep it for a person"), ("deny", "Deny"))
ON = (("call", "A call, before it is sent"), ("answer", "The final answer, before anybody gets it"))
FIELDS = ("on", "decision", "when", "approvers", "enabled")


class RuleForm(PolicyForm):
    name = forms.RegexField(
        regex=rules.NAME, max_length=64, widget=forms.TextInput(INPUT | {"class": "input mono"}),
        error_messages={"invalid": "Up to 64 letters, digits, '_', '-' and '.', beginning with a letter."},
    )  # fmt: skip
    tenant = forms.ChoiceField(label="In", widget=forms.Select(INPUT))
    on = forms.ChoiceField(label="Held against", choices=ON, widget=forms.Select(INPUT))
    when = forms.CharField(
        label="Holds when", max_length=2000, widget=forms.Textarea(CODE | {"rows": 4}),
        help_text="CEL over args, call, run, day and now; of an answer: answer, run, day and now.",
    )  # fmt: skip
    decision = forms.ChoiceField(label="Then", choices=DECISIONS, widget=forms.Select(INPUT))
    enabled = forms.BooleanField(required=False, initial=True, label="On")

    def __init__(self, *args: Any, actor: Actor, held: Rule | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        slugs = list(Tenant.objects.order_by("slug").values_list("slug", flat=True)) if actor.platform_admin else [actor.tenant.slug]
        choices = [*((slug, slug) for slug in slugs), *([(EVERY, "every tenant")] if actor.platform_admin else [])]
        self.fields["tenant"].choices = choices  # type: ignore[attr-defined]
        if held is not None:  # what it is called and whose it is stays
            for name in ("name", "tenant"):
                self.fields[name].disabled = True


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    found = list(visible(actor).order_by("name", "id"))
    now = timezone.now()
    asks = any(rule.on == Rule.On.ANSWER for rule in found)
    hits = rule_hits.hits(metrics.scope_of(actor), now - timedelta(days=1), now - timedelta(days=7), answers=asks)
    context = {"rules": [row(actor, rule, hits) for rule in found], "may_add": may_add(actor)}
    return render(request, "pages/policy/rules.html", context)


def visible(actor: Actor) -> Any:
    seen = Q() if actor.platform_admin else Q(tenant=None) | Q(tenant=actor.tenant)
    return Rule.objects.select_related("tenant").filter(seen)


def may_add(actor: Actor) -> bool:
    return actor.can("config:write") and rules.may_edit(actor, Rule(tenant=actor.tenant))


def row(actor: Actor, rule: Rule, hits: dict[str, tuple[int, int]]) -> JSON:
    last = AuditEntry.objects.filter(tenant=rule.tenant, object_kind="rule", object_id=rule.name).order_by("-id").first()
    day, week = hits.get(rule.name, (0, 0))
    return {"rule": rule, "day": day, "week": week, "last": last, "query": rule.tenant.slug if rule.tenant else EVERY} | verdict(
        rule.decision, rule.approvers
    )


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, name: str = "") -> HttpResponse:
    """No name: a new one. `?tenant=` is its scope, `?revert=` a change to take back. POST `{act: show | save | remove, …}`."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    if not name and not may_add(actor):
        raise rules.not_yours()
    said = request.POST if request.method == "POST" else request.GET
    held = held_rule(actor, name, said.get("scope", "") or said.get("tenant", "")) if name else None
    if request.method == "POST":
        return change(request, actor, held)
    initial: JSON = values_of(held) if held else {"tenant": actor.tenant.slug}
    gone = False
    entry = entry_of(held, said.get("revert", ""))
    if entry is not None:
        back = policy_words.as_it_was(entry)
        gone = back.remove
        initial |= back.model_dump(include=set(FIELDS))
    form = RuleForm(initial=initial, actor=actor, held=held)
    return show(request, actor, held, form, gone=gone, reverts=entry is not None)


def held_rule(actor: Actor, name: str, slug: str) -> Rule:
    scope = proposals.scope_of(actor, None if slug in ("", EVERY) else slug)
    found = visible(actor).filter(name=name, tenant=scope).first()
    if not isinstance(found, Rule):
        raise NotFound("rule")
    return found


def values_of(rule: Rule) -> JSON:
    return {"name": rule.name, "tenant": rule.tenant.slug if rule.tenant else EVERY} | {name: getattr(rule, name) for name in FIELDS}


def entry_of(held: Rule | None, number: str) -> AuditEntry | None:
    if held is None or not number.isdigit():
        return None
    return AuditEntry.objects.filter(tenant=held.tenant, object_kind="rule", object_id=held.name, pk=int(number)).first()


def show(request: HttpRequest, actor: Actor, held: Rule | None, form: RuleForm, status: int = 200, **more: Any) -> HttpResponse:
    may = actor.can("config:write") and (held is None or rules.may_edit(actor, held))
    history = policy_words.rule_history(held.name, held.tenant) if held else []
    query = (held.tenant.slug if held.tenant else EVERY) if held else ""
    context = {"rule": held, "form": form, "may": may, "history": history, "query": query, "facts": FACTS}
    return render(request, "pages/policy/rule.html", context | more, status=status)


def change(request: HttpRequest, actor: Actor, held: Rule | None) -> HttpResponse:
    if held is not None and not rules.may_edit(actor, held):
        raise rules.not_yours()
    initial = values_of(held) if held else {}
    form = RuleForm(request.POST, initial=initial, actor=actor, held=held)
    if not form.is_valid():
        return show(request, actor, held, form, 422)
    proposal = proposal_of(form, remove=request.POST.get("act") == "remove" or request.POST.get("gone") == "1")
    if not proposing.checked(actor, form, proposal) or clashes(form, held, proposal):
        return show(request, actor, held, form, 422)
    step = proposing.second_step(request, actor, proposal, policy_words.rule_was(held), form.cleaned_data["days"])
    more: JSON = {"step": step, "gone": proposal.remove}
    if request.POST.get("act") != "save" or not proposing.shown_before(request, proposal):
        return show(request, actor, held, form, **more)
    try:
        write(actor, proposal, held, proposing.say_why(request))
    except Refused as refused:
        field = "reason_error" if refused.fields.get("field") == "reason" else "notice"
        return show(request, actor, held, form, refused.status, **more, **{field: refused.message})
    messages.success(request, f"Rule {proposal.name} is {'gone' if proposal.remove else 'saved'}. Runs are held to it at their next call.")
    return redirect("rules")


def clashes(form: RuleForm, held: Rule | None, proposal: RuleProposal) -> bool:
    if held is None and Rule.objects.filter(name=proposal.name, tenant__slug=proposal.tenant).exists():
        form.add_error("name", f"There is a rule {proposal.name} already: change that one, or take another name.")
    return bool(form.errors)


def proposal_of(form: RuleForm, *, remove: bool) -> RuleProposal:
    said = form.cleaned_data
    slug = None if said["tenant"] == EVERY else said["tenant"]
    return RuleProposal(name=said["name"], tenant=slug, remove=remove, **{name: said[name] for name in FIELDS})


def write(actor: Actor, proposal: RuleProposal, held: Rule | None, reason: str) -> None:
    actor.need("config:write")
    scope = proposals.scope_of(actor, proposal.tenant)
    if proposal.remove:
        if held is None:
            raise NotFound("rule")
        return rules.delete(actor, held, reason)
    fields = proposal.model_dump(include=set(FIELDS))
    rules.set_rule(actor, proposal.name, scope, **fields, reason=reason)
    return None


FACTS = (  # (what a condition may ask, what it is)
    ("args.amount", "An argument of the call."),
    ("call.tool, call.effect, call.labels", "The tool, what it does (read, write, irreversible), its labels."),
    ("run.labels", "Labels of every tool whose answer the run has taken in."),
    ("run.tools['name'].count, .sum('field')", "Calls of a tool in this run that were applied, and the sum of an argument."),
    ("day.tools['name'].count, .sum('field')", "The same over the writes of the tenant since midnight UTC."),
    ("run.agent, run.tenant, run.user.role, run.step, run.writes, run.cost_usd", "Where the run stands and for whom it acts."),
    ("answer.text, answer.length", "Of rules that are held against answers."),
)
