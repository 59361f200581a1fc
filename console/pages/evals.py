"""Evals: suites and their cases, cases made from runs, what production scored, and how each check counts."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from console import eval_records
from console.api import paging
from console.api.evals import scores_of
from runs.evals import suites
from runs.evals.cases import read
from runs.evals.checks import CHECKS, VERSION
from runs.evals.from_runs import from_run
from runs.evals.summary import Scored, summed
from runs.models import Case, Score, Suite
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode
from tenants.models import Tenant

from . import run_facts
from .forms import INPUT, marked, refuse
from .session import signed_in

JSON = dict[str, Any]
SHOWN = 50
LATEST = 500  # scores of production that the figures are made of
BLANK: JSON = {
    "input": {"text": ""}, "tools": {"how": "simulated", "given": []}, "expect": {"required": [], "forbidden": [], "max_steps": 6},
}  # fmt: skip
CODE = {"class": "input mono", "spellcheck": "false", "rows": 18}


class SuiteForm(forms.Form):
    name = forms.RegexField(
        regex=r"^[a-z][a-z0-9_.-]{0,63}$", max_length=64, widget=forms.TextInput({**INPUT, "autocomplete": "off"}),
        error_messages={"invalid": "Up to 64 small letters, digits, '_', '-' and '.', beginning with a letter."},
    )  # fmt: skip
    description = forms.CharField(required=False, max_length=2000, widget=forms.Textarea({**INPUT, "rows": 2}))
    tenants = forms.MultipleChoiceField(
        required=False, widget=forms.CheckboxSelectMultiple(), label="Seen by", help_text="None: every tenant sees it."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        slugs = Tenant.objects.order_by("slug").values_list("slug", flat=True)
        self.fields["tenants"].choices = [(slug, slug) for slug in slugs]  # type: ignore[attr-defined]


class CaseForm(forms.Form):
    """`case`: the whole case as JSON but for its key."""

    key = forms.CharField(max_length=100, widget=forms.TextInput({"class": "input mono", "autocomplete": "off"}))
    case = forms.CharField(
        label="Case", widget=forms.Textarea(CODE), help_text="JSON: input, tools, expect, note. What is not said is not judged."
    )


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """GET lists the suites and what production scored lately, POST makes a suite."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    form = SuiteForm(request.POST if request.method == "POST" else None) if may(actor) else None
    if request.method == "POST":
        made = saved_suite(actor, SuiteForm(request.POST) if form is None else form)
        if made is not None:
            messages.success(request, f"{made.name} is there. Add its first case, or make one from a run.")
            return redirect("suite", made.name)
    rows = suites.visible(actor).annotate(count=Count("cases", filter=Q(cases__until__isnull=True))).order_by("name")
    latest = list(scores_of(actor, {}).order_by("-id")[:LATEST])
    context = {"suites": rows, "form": form and marked(form), "scored": len(latest), "figures": figures(latest), "version": VERSION}
    return render(request, "pages/evals/suites.html", context, status=422 if form and form.errors else 200)


def figures(scores: list[Score]) -> list[JSON]:
    """One line for each check that measured something, with the runs to look at."""
    found = summed(Scored(encode("agt", score.run_id), score.measures or {}) for score in scores)["measures"]
    return [{"check": check, **found[check.name]} for check in CHECKS if check.name in found]


def saved_suite(actor: Actor, form: SuiteForm) -> Suite | None:
    """None: it was refused, and the form says why. Refuses what the form cannot say: 403."""
    if not form.is_valid():
        return None
    said = form.cleaned_data
    try:
        if suites.visible(actor).filter(name=said["name"]).exists():
            raise Refused("name_taken", f"There is a suite {said['name']} already.", 409)
        return suites.put_suite(actor, said["name"], said["description"], tuple(said["tenants"]))[0]
    except Refused as refused:
        if refused.status == 403:
            raise
        refuse(form, "name", refused.message)
        return None


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def suite(request: HttpRequest, name: str) -> HttpResponse:
    """GET shows its cases (`q`, `cursor`), POST `act`: import, export is a link of its own."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    found = suites.find(actor, name)
    if request.method == "POST":
        return imported(request, actor, found)
    return show_suite(request, actor, found)


def show_suite(request: HttpRequest, actor: Actor, found: Suite, status: int = 200, **more: Any) -> HttpResponse:
    words = request.GET.get("q", "").strip()[:100].replace("\0", "")
    rows = suites.current(found)
    rows = rows.filter(Q(key__icontains=words) | Q(spec__input__text__icontains=words)) if words else rows
    cases, older = paging.page(rows, request.GET, "cas")
    query = f"q={words}&" if words else ""
    context = {
        "suite": found, "cases": cases, "words": words, "count": suites.current(found).count(), "digest": suites.digest(found)[:12],
        "older_url": f"?{query}cursor={older}" if older else "", "may": may(actor),
        "seen_by": eval_records.suite_record(actor, found)["tenants"],
    }  # fmt: skip
    return render(request, "pages/evals/suite.html", context | more, status=status)


def imported(request: HttpRequest, actor: Actor, found: Suite) -> HttpResponse:
    """Of a file or of a text; a refusal shows its lines beside the form."""
    file = request.FILES.get("file")
    raw = file.read() if file else request.POST.get("lines", "").encode()
    try:
        done = suites.import_jsonl(actor, found, raw, prune=request.POST.get("prune") == "1")
    except Refused as refused:
        if refused.status == 403:
            raise
        text = raw.decode(errors="replace") if not file else ""
        return show_suite(request, actor, found, refused.status, import_error=refused, lines=text)
    told = ", ".join(f"{number} {word}" for word, number in done.as_json().items() if number) or "nothing"
    messages.success(request, f"Imported: {told}.")
    return redirect("suite", found.name)


@require_safe
@signed_in
def export(request: HttpRequest, name: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    return eval_records.export(actor, suites.find(actor, name))  # type: ignore[return-value]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def case(request: HttpRequest, name: str, key: str = "") -> HttpResponse:
    """No key: a new one. `?version=` shows an earlier one. POST `act`: save or remove."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    found = suites.find(actor, name)
    version = paging.number(request.GET.get("version"), "version", 0, 0, 1_000_000) or None
    held = suites.find_case(found, key, version) if key else None
    if request.method != "POST":
        return show_case(request, actor, found, held, CaseForm(initial=as_form(held)))
    actor.need("config:write")
    if held is not None and request.POST.get("act") == "remove":
        suites.remove_case(actor, found, held.key, request.POST.get("reason", "")[:1000])
        messages.success(request, f"{held.key} is taken out. Evaluations that had it keep it.")
        return redirect("suite", found.name)
    form = CaseForm(request.POST)
    if held is not None:
        form.fields["key"].required = False
    if form.is_valid() and (saved := saved_case(actor, found, held, form)):
        messages.success(request, f"{saved} is saved.")
        return redirect("case", found.name, saved)
    return show_case(request, actor, found, held, form, 422)


def as_form(held: Case | None) -> JSON:
    spec = BLANK if held is None else {name: part for name, part in held.spec.items() if name != "key"}
    return {"key": held.key if held else "", "case": json.dumps(spec, indent=2, ensure_ascii=False)}


def saved_case(actor: Actor, found: Suite, held: Case | None, form: CaseForm) -> str | None:
    key = held.key if held else form.cleaned_data["key"]
    try:
        said = suites.of_line(form.cleaned_data["case"].encode())
        if not isinstance(said, dict):
            raise Refused("bad_case", "Write a JSON object, such as {}.")
        if held is None and suites.current(found).filter(key=key).exists():
            raise Refused("key_taken", f"There is a case {key} already.", 409, errors=[{"path": "key", "message": "There is one already."}])
        suites.put_cases(actor, found, [read(said | {"key": key})])
    except Refused as refused:
        if refused.status == 403:
            raise
        for each in refused.fields.get("errors") or [{"path": "", "message": refused.message}]:
            path = each["path"]
            where = "key" if path == "key" else "case"
            refuse(form, where, f"{path}: {each['message']}" if path and where == "case" else each["message"])
        return None
    return key


def show_case(request: HttpRequest, actor: Actor, found: Suite, held: Case | None, form: CaseForm, status: int = 200) -> HttpResponse:
    versions = list(Case.objects.filter(suite=found, key=held.key).select_related("added_by").order_by("-version")[:SHOWN]) if held else []
    context = {
        "suite": found, "case": held, "form": marked(form), "may": may(actor) and (held is None or held.until is None),
        "versions": versions, "run_id": encode("agt", held.run_id) if held and held.run_id else "", "checks": CHECKS,
    }  # fmt: skip
    return render(request, "pages/evals/case.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def make(request: HttpRequest, run_id: str) -> HttpResponse:
    """Makes a case from a run. Behind a button of the run's page."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:write")
    run = run_facts.find(actor, run_id)
    choices = suites.visible(actor).filter(tenants=[run.tenant.slug]).order_by("name")
    context: JSON = {"run": run, "suites": choices, "title": run_facts.title_of(run.asked.text)}
    if request.method != "POST":
        return render(request, "pages/evals/make.html", context)
    try:
        chosen = suites.find(actor, request.POST.get("suite", ""))
        key = from_run(actor, run, chosen, request.POST.get("key", "").strip())
    except Refused as refused:
        return render(request, "pages/evals/make.html", context | {"problem": refused.message}, status=refused.status)
    messages.success(request, "The case expects what the run did. Correct that before you rely on it.")
    return redirect("case", chosen.name, key)


@require_safe
@signed_in
def scores(request: HttpRequest) -> HttpResponse:
    """Scored runs, newest first; `?check=` one of them, worst first, each with the steps that it points at."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    chosen = next((check for check in CHECKS if check.name == request.GET.get("check")), None)
    if chosen is None:
        found, older = paging.page(scores_of(actor, request.GET), request.GET, "scr")
    else:
        latest = [row for row in scores_of(actor, request.GET).order_by("-id")[:LATEST] if chosen.name in (row.measures or {})]
        found = sorted(latest, key=lambda row: (row.measures or {})[chosen.name]["value"], reverse=chosen.better == "low")[:SHOWN]
        older = None
    lines = [line(row, (chosen,) if chosen else CHECKS) for row in found]
    context = {
        "lines": lines,
        "check": chosen,
        "checks": CHECKS,
        "older_url": f"?cursor={older}" if older else "",
        "run": request.GET.get("run_id"),
    }
    return render(request, "pages/evals/scores.html", context)


def line(score: Score, checks: Any) -> JSON:
    measures = score.measures or {}
    run_id = encode("agt", score.run_id)
    told = [
        {"check": check, **measures[check.name], "places": [place(run_id, at) for at in measures[check.name]["at"][:8]]}
        for check in checks
        if check.name in measures
    ]
    return {"score": score, "run_id": run_id, "measures": told}


def place(run_id: str, at: str) -> JSON:
    """A link to the step or call in the run's page."""
    return {"at": at, "url": f"{reverse('run', args=[run_id])}?sel={at}"}


@require_safe
@signed_in
def checks(request: HttpRequest) -> HttpResponse:
    rows = [{"check": check, "parts": parts(check.counted)} for check in CHECKS]
    return render(request, "pages/evals/checks.html", {"checks": rows, "version": VERSION})


def parts(text: str) -> list[JSON]:
    """What stands between backticks is code."""
    return [{"text": part, "code": bool(number % 2)} for number, part in enumerate(text.split("`"))]


def may(actor: Actor) -> bool:
    return actor.platform_admin and actor.can("config:write")
