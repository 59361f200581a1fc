"""The two steps of every change of the policy on a page: what it would change in words and numbers, then the reason and the change."""

from __future__ import annotations

import hashlib
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from console import backtests, policy_words
from console.models import PolicyBacktest
from tenants.actors import Actor
from tenants.errors import Refused
from tools import proposals
from tools.proposals import Proposal, RuleProposal

from .session import signed_in

JSON = dict[str, Any]
DAYS = ((1, "24 hours"), (7, "7 days"), (14, "14 days"), (30, "30 days"))
INPUT = {"class": "input"}
CODE = {"class": "input mono", "rows": 3, "spellcheck": "false"}


class PolicyForm(forms.Form):
    """What permissions and rules have in common. `reason` is asked for in the second step."""

    approvers = forms.IntegerField(min_value=1, max_value=9, initial=1, help_text="People who must agree, when it asks.",
                                   widget=forms.NumberInput(INPUT))  # fmt: skip
    days = forms.TypedChoiceField(label="Back-test over", choices=DAYS, coerce=int, initial=7, widget=forms.Select(INPUT))


def shown_before(request: HttpRequest, proposal: Proposal) -> bool:
    """Whether the second step was about exactly this."""
    return request.POST.get("shown") == seal(proposal)


def seal(proposal: Proposal) -> str:
    return hashlib.sha256(proposal.model_dump_json().encode()).hexdigest()[:20]


def checked(actor: Actor, form: forms.Form, proposal: Proposal) -> bool:
    """False: the form says what is wrong with it."""
    try:
        proposals.checked(actor, proposal)
    except Refused as refused:
        form.add_error("when" if refused.code == "bad_condition" else None, refused.message)
        return False
    return True


def second_step(request: HttpRequest, actor: Actor, proposal: Proposal, was: str, days: int) -> JSON:
    """What the page shows before it asks for the reason. One back-test for one proposal, however often the page is shown."""
    words = {"sentence": policy_words.sentence(proposal, was), "seal": seal(proposal), "proposal": proposal.model_dump_json()}
    reason = {"reason": request.POST.get("reason", "")}
    if isinstance(proposal, RuleProposal) and proposal.on == "answer":
        return words | reason | {"not_tested": "Rules over answers are not held against the past."}
    return words | reason | {"backtest": panel(earlier(request, actor, proposal, days) or backtests.start(actor, proposal, days))}


def earlier(request: HttpRequest, actor: Actor, proposal: Proposal, days: int) -> PolicyBacktest | None:
    if not request.POST.get("backtest"):
        return None
    try:
        made = backtests.find(actor, request.POST["backtest"])
    except Refused:
        return None
    return made if (made.proposal, made.days) == (proposal.model_dump(mode="json"), days) else None


def panel(made: PolicyBacktest) -> JSON:
    """For pages/policy/_backtest.html."""
    return {
        "made": made,
        "open": made.state in PolicyBacktest.OPEN,
        "words": policy_words.found(made) if made.state == PolicyBacktest.State.DONE else None,
        "percent": min(100, round(made.done * 100 / made.total)) if made.total else 0,
        "no_jobs": made.state == PolicyBacktest.State.QUEUED and not backtests.jobs_run(),
    }


def say_why(request: HttpRequest) -> str:
    """The reason. Refuses reason_missing 422."""
    reason = request.POST.get("reason", "").replace("\r\n", "\n").strip()
    if not reason:
        raise Refused("reason_missing", "Say why: the reason is kept with the change.", 422, field="reason")
    return reason


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def backtest(request: HttpRequest, backtest_id: str) -> HttpResponse:
    """GET `?part=1` answers the panel alone. POST cancels."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    made = backtests.find(actor, backtest_id)
    if request.method == "POST":
        backtests.cancel(actor, made)
        return redirect("backtest", str(made))
    proposal = backtests.PROPOSAL.validate_python(made.proposal)
    template = "pages/policy/_backtest.html" if request.GET.get("part") else "pages/policy/backtest.html"
    return render(request, template, {"backtest": panel(made), "sentence": policy_words.subject(proposal)})
