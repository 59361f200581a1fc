"""Forking a run from one of its steps: what came before stays, something is changed, and the rest is taken anew."""

import json
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from console.api import paging
from runs import forks
from runs.models import Call, Release, Run
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.canonical import loads_limited

from . import run_facts
from .forms import INPUT, marked, refuse
from .session import signed_in

JSON = dict[str, Any]
WRITES = (
    ("recorded", "Recorded: no write is sent; each is kept as what it would have done"),
    ("live", "Live: writes are sent, under the permissions and approvals of now"),
)
READS = (
    ("both", "Recorded where the first run made the same call, else sent"),
    ("recorded", "Recorded only: a read that the first run did not make fails"),
    ("live", "Always sent anew"),
)
RELEASES = 50
CALLS = 200
FIELD_OF = {"input": "input", "release": "release", "result": "result", "reads": "reads", "writes": "writes"}


class ForkForm(forms.Form):
    step = forms.IntegerField(label="From step", min_value=1, max_value=1000, widget=forms.NumberInput(INPUT))
    input = forms.CharField(label="Input", strip=False, required=False, widget=forms.Textarea({**INPUT, "rows": 4}))
    release = forms.ChoiceField(required=False, widget=forms.Select(INPUT))
    call = forms.ChoiceField(label="Change the result of", required=False, widget=forms.Select(INPUT))
    result = forms.CharField(
        label="What it came to instead", required=False, widget=forms.Textarea({"class": "input mono", "rows": 5, "spellcheck": "false"}),
        help_text='JSON, such as {"ok": true, "data": {}}.',
    )  # fmt: skip
    reads = forms.ChoiceField(choices=READS, initial="both", widget=forms.Select(INPUT))
    writes = forms.ChoiceField(choices=WRITES, initial="recorded", widget=forms.RadioSelect())

    def __init__(self, *args: Any, releases: list[tuple[str, str]], calls: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["release"].choices = [("", "The same as the first run"), *releases]  # type: ignore[attr-defined]
        self.fields["call"].choices = [("", "None"), *calls]  # type: ignore[attr-defined]

    def clean_result(self) -> JSON | None:
        raw = self.cleaned_data["result"].strip()
        if not raw:
            return None
        try:
            value = loads_limited(raw.encode())
        except ValueError as error:
            raise forms.ValidationError(f"This is not JSON: {error}")
        if not isinstance(value, dict):
            raise forms.ValidationError("Write a JSON object.")
        return value

    def clean(self) -> JSON:
        said = super().clean() or {}
        if said.get("call") and "result" in said and said["result"] is None:
            self.add_error("result", "Say what the call came to instead.")
        if said.get("result") is not None and not said.get("call"):
            self.add_error("call", "Choose the call whose result this is.")
        return said

    def changes(self, before: str) -> forks.Changes:
        """What is left as it was is no change. Raises pydantic's ValidationError."""
        said = self.cleaned_data
        text = said["input"].replace("\r\n", "\n")
        made: JSON = {"reads": said["reads"], "writes": said["writes"]}
        if text.strip() and text != before:
            made["input"] = text
        if said["release"]:
            made["release"] = said["release"]
        if said["call"]:
            step, ord_ = said["call"].split(".")
            made["result"] = {"step": int(step), "ord": int(ord_), "result": said["result"]}
        return forks.Changes.model_validate(made)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    """`?step=3`: the first step that is taken anew; `?call=2.1`: whose result is to be another one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:write")
    run = run_facts.find(actor, run_id)
    step = paging.number(request.GET.get("step"), "step", 1, 1, 1000)
    data = request.POST if request.method == "POST" else None
    form = form_of(run, step, data, request.GET.get("call", ""))
    if data is not None and form.is_valid() and (made := forked(actor, run, form)) is not None:
        messages.success(request, "Forked. The steps before are those of the first run; compare both when it has ended.")
        return redirect("run", made.run_id)
    context = {"run": run, "form": marked(form), "title": run_facts.title_of(run.asked.text)}
    return render(request, "pages/run/fork.html", context, status=422 if form.errors else 200)


def form_of(run: Run, step: int, data: Any, call: str = "") -> ForkForm:
    rows = Release.objects.filter(agent_id=run.agent_id).order_by("-number").only("id", "number", "agent_id")[:RELEASES]
    answered = Call.objects.filter(run_id=run.id, ord__gt=0, result__isnull=False)
    answered = answered if data is not None else answered.filter(step__lt=step)
    places = answered.order_by("step", "ord").values_list("step", "ord", "name")[:CALLS]
    calls = [(f"{step}.{ord_}", f"{step}.{ord_} {name}") for step, ord_, name in places]
    initial: JSON = {"step": step, "input": run.asked.text}
    if call in dict(calls):
        initial |= {"call": call, "result": result_of(run, call)}
    return ForkForm(data, releases=[(row.release_id, f"r{row.number}") for row in rows], calls=calls, initial=initial)


def forked(actor: Actor, run: Run, form: ForkForm) -> Run | None:
    """None: it was refused, and the form says why."""
    try:
        return forks.fork(actor, run.id, form.cleaned_data["step"], form.changes(run.asked.text))
    except ValidationError as error:
        for each in error.errors():
            refuse(form, FIELD_OF.get(str(each["loc"][0] if each["loc"] else "")), each["msg"])
    except NotFound:
        refuse(form, "release", "The agent has no such release.")
    except Refused as refused:
        if refused.status == 403:
            raise
        about = {"fork_step_missing": "step", "call_missing": "call"}.get(refused.code, cast("str", refused.fields.get("field")))
        refuse(form, about, refused.message)
    return None


def result_of(run: Run, place: str) -> str:
    """What a call came to, to be changed."""
    step, _, ord_ = place.partition(".")
    found = Call.objects.filter(run_id=run.id, step=int(step), ord=int(ord_)).values_list("result", flat=True).first()
    return json.dumps(found, indent=2, ensure_ascii=False)
