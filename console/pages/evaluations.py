"""Evaluations: a suite against a release. Starting one, how far it is, and what it came to, each run's path beside what was expected."""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from console import release_records as rr
from console.alignment import align
from console.api import paging
from console.api.evals import evaluations_of
from runs.evals import evaluations, suites
from runs.evals.checks import CHECKS
from runs.models import Call, Evaluation, Release, Score
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.models import Tenant

from .forms import INPUT, marked, refuse
from .releases import eval_look
from .session import signed_in

JSON = dict[str, Any]
SHOWN = 50
Z = 1.96  # of a normal distribution, for 95% on both sides


class StartForm(forms.Form):
    suite = forms.ChoiceField(widget=forms.Select(INPUT))
    tenant = forms.ChoiceField(label="As tenant", widget=forms.Select(INPUT), help_text="Its runs read with this tenant's credentials.")
    repetitions = forms.IntegerField(
        label="Runs of each case", min_value=1, max_value=evaluations.MOST_REPETITIONS, initial=1, widget=forms.NumberInput(INPUT)
    )
    max_cost_usd = forms.DecimalField(
        label="May cost in all, in USD", min_value=Decimal("0.000001"), max_value=100_000, max_digits=11, decimal_places=6,
        widget=forms.NumberInput({**INPUT, "step": "any"}),
    )  # fmt: skip
    reason = forms.CharField(required=False, max_length=1000, widget=forms.TextInput(INPUT))

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = suites.visible(actor).order_by("name").values_list("name", flat=True)
        tenants = [t for t in Tenant.objects.filter(active=True).order_by("slug") if actor.sees(t.pk)]
        self.fields["suite"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        self.fields["tenant"].choices = [(t.slug, t.slug) for t in tenants]  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """The newest evaluations. `?release=rel_…` also asks what to run against it, and POST starts that."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    asked = request.GET.get("release", "")
    release = rr.find(actor, asked) if asked else None
    form = None
    if release is not None and actor.platform_admin and actor.can("config:write"):
        form = StartForm(request.POST or None, actor=actor, initial={"tenant": actor.tenant.slug})
    if request.method == "POST":
        actor.need("config:write")
        if release is None or form is None:
            raise NotFound("release")
        if form.is_valid() and (made := started(actor, release, form)) is not None:
            messages.success(request, "It is queued: its runs start within a minute.")
            return redirect("evaluation", str(made))
    rows = evaluations_of(actor).filter(release=release) if release else evaluations_of(actor)
    found, older = paging.page(rows, request.GET, "evl")
    kept = f"release={release.release_id}&" if release else ""
    context = {
        "rows": [{"made": one, "id": str(one), "look": eval_look(one)} for one in found], "release": release,
        "form": form and marked(form), "older_url": f"?{kept}cursor={older}" if older else "",
    }  # fmt: skip
    return render(request, "pages/evals/evaluations.html", context, status=422 if form is not None and form.errors else 200)


def started(actor: Actor, release: Release, form: StartForm) -> Evaluation | None:
    """None: it was refused, and the form says why."""
    said = form.cleaned_data
    try:
        tenant = Tenant.objects.get(slug=said["tenant"])
        ceiling = int(said["max_cost_usd"] * 1_000_000)
        wanted = {"repetitions": said["repetitions"], "ceiling_micro": ceiling, "reason": said["reason"]}
        return evaluations.start(actor, suites.find(actor, said["suite"]), release, tenant, **wanted)
    except Refused as refused:
        if refused.status == 403:
            raise
        about = {"empty_suite": "suite", "not_for_tenant": "tenant"}.get(refused.code, refused.fields.get("field"))
        refuse(form, about, refused.message)
        return None


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def one(request: HttpRequest, evaluation_id: str) -> HttpResponse:
    """GET shows it, POST cancels it."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    made = evaluations.find(actor, evaluation_id)
    if request.method == "POST":
        actor.need("config:write")
        if evaluations.cancel(actor, made, request.POST.get("reason", "")[:1000]):
            messages.success(request, "Cancelled. What its runs cost is spent.")
        else:
            messages.error(request, "It is over already.")
        return redirect("evaluation", str(made))
    told = made.result or {}
    scores = list(Score.objects.filter(evaluation=made, measures__isnull=False).select_related("case").order_by("case_id", "repetition"))
    worst = sorted(scores, key=lambda row: not row.failing)[:SHOWN]
    actual = called([row.run_id for row in worst])
    context = {
        "made": made, "id": str(made), "look": eval_look(made), "open": made.state in Evaluation.OPEN, "told": told,
        "measures": measured(scores), "rate": rate(scores), "spent": evaluations.spent_of(made), "message": told.get("message", ""),
        "rows": [shown(row, actual.get(row.run_id, [])) for row in worst], "left_out": len(scores) - len(worst),
        "may": actor.platform_admin and actor.can("config:write"),
    }  # fmt: skip
    return render(request, "pages/evals/evaluation.html", context)


# figures with their intervals -------------------------------------------------------------------------------------------------


def rate(scores: Sequence[Score]) -> JSON | None:
    """The share of runs that passed, with the interval that holds the true one 95 times in a hundred (Wilson)."""
    n = len(scores)
    if not n:
        return None
    passed = sum(not row.failing for row in scores)
    low, high = wilson(passed, n)
    return {"passed": passed, "n": n, "value": passed / n, "low": low, "high": high}


def wilson(hits: int, n: int) -> tuple[float, float]:
    share, width = hits / n, Z * Z / n
    middle, spread = share + width / 2, Z * math.sqrt((share * (1 - share) + width / 4) / n)
    return max(0.0, (middle - spread) / (1 + width)), min(1.0, (middle + spread) / (1 + width))


def measured(scores: Sequence[Score]) -> list[JSON]:
    """The mean of each check, with an interval of 95% where there are two runs or more."""
    return [row for check in CHECKS if (row := mean(check, [value for value in values(scores, check.name)])) is not None]


def values(scores: Sequence[Score], name: str) -> Iterator[float]:
    for row in scores:
        value = (row.measures or {}).get(name, {}).get("value")
        if value is not None:
            yield float(value)


def mean(check: Any, found: list[float]) -> JSON | None:
    if not found:
        return None
    n, middle = len(found), sum(found) / len(found)
    half = Z * math.sqrt(sum((value - middle) ** 2 for value in found) / (n - 1) / n) if n > 1 else None
    low, high = (None, None) if half is None else (middle - half, middle + half)
    return {"check": check, "value": middle, "n": n, "low": low, "high": high}


# paths ------------------------------------------------------------------------------------------------------------------------


def called(run_ids: list[Any]) -> dict[Any, list[tuple[str, str]]]:
    """Run -> its tool calls in order, as (place, tool)."""
    found: dict[Any, list[tuple[str, str]]] = {run: [] for run in run_ids}
    rows = Call.objects.filter(run_id__in=run_ids, ord__gt=0).order_by("run_id", "step", "ord")
    for run, step, ord_, name in rows.values_list("run_id", "step", "ord", "name"):
        found[run].append((f"{step}.{ord_}", name))
    return found


def shown(row: Score, actual: list[tuple[str, str]]) -> JSON:
    """What the case expects and what the run called, aligned. Tools that the case forbids are marked."""
    expect = (row.case.spec.get("expect") or {}) if row.case else {}
    wanted = expected(expect)
    forbidden = set(expect.get("forbidden") or ())
    lines = [
        {
            "wanted": "" if at.left is None else wanted[at.left], "place": "" if at.right is None else actual[at.right][0],
            "tool": "" if at.right is None else actual[at.right][1], "same": at.same,
            "forbidden": at.right is not None and actual[at.right][1] in forbidden,
        }
        for at in align(wanted, [tool for _, tool in actual])
    ]  # fmt: skip
    return {"score": row, "run_id": encode("agt", row.run_id), "case": row.case, "lines": lines, "failing": row.failing}


def expected(expect: JSON) -> list[str]:
    """The tools that are required or whose write is expected, so that the first of each pair of `order` stands before the second."""
    names = list(dict.fromkeys([*(expect.get("required") or ()), *(each["tool"] for each in expect.get("writes") or ())]))
    for _ in names:
        for first, second in expect.get("order") or ():
            if first in names and second in names and names.index(first) > names.index(second):
                names.remove(first)
                names.insert(names.index(second), first)
    return names
