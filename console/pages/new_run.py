"""Starting a run by hand: the form of an order, and the same door as the API's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django import forms
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from runs import intake
from runs.models import Agent
from tenants.actors import Actor
from tenants.errors import Refused
from tools.canonical import clean, loads_limited

from .session import signed_in

MODES = (("normal", "Normal"), ("read_only", "Read only: no write is sent"), ("draft", "Draft: writes are proposed and not sent"))
TIGHTER = {"max_steps": "max_steps", "max_cost_usd": "max_cost_usd", "deadline_s": "run_s"}  # field -> name in `budget`
FIELD_OF = {"agent": "agent", "input": "text", "mode": "mode", **{key: name for name, key in TIGHTER.items()}}
FIELD_OF_CODE = {"not_found": "agent", "no_live_release": "agent", "input_too_large": "text"}
INPUT = {"class": "input"}


class OrderForm(forms.Form):
    """What can be checked without asking the runtime; `intake.submit` has the last word."""

    agent = forms.ChoiceField(widget=forms.Select(INPUT))
    text = forms.CharField(
        label="Input",
        widget=forms.Textarea({**INPUT, "rows": 6}),
        strip=False,
        help_text="What the agent is asked, as its user would say it.",
    )
    json_data = forms.CharField(
        label="Data",
        required=False,
        strip=False,
        widget=forms.Textarea({"class": "input mono", "rows": 4, "spellcheck": "false"}),
        help_text='JSON that goes to the agent with the input, such as {"account_id": "acct_1001"}.',
    )
    mode = forms.ChoiceField(choices=MODES, widget=forms.Select(INPUT), initial="normal")
    max_steps = forms.IntegerField(label="Most steps", required=False, min_value=1, widget=forms.NumberInput(INPUT))
    max_cost_usd = forms.DecimalField(
        label="Most cost in USD",
        required=False,
        min_value=0,
        max_digits=12,
        decimal_places=6,
        widget=forms.NumberInput({**INPUT, "step": "any"}),
    )
    deadline_s = forms.FloatField(
        label="Deadline in seconds", required=False, max_value=30 * 86400, widget=forms.NumberInput({**INPUT, "step": "any"})
    )
    key = forms.CharField(widget=forms.HiddenInput, max_length=64, required=False)

    def __init__(self, *args: Any, agents: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["agent"].choices = agents  # type: ignore[attr-defined]

    def clean_text(self) -> str:
        text: str = self.cleaned_data["text"].replace("\r\n", "\n")
        if not text.strip():
            raise forms.ValidationError("Say what the agent should do.")
        return text

    def clean_json_data(self) -> Any:
        raw = self.cleaned_data["json_data"].strip()
        if not raw:
            return None
        try:
            value = loads_limited(raw.encode())
        except ValueError as error:
            raise forms.ValidationError(f"This is not JSON: {error}")
        if clean(value)[1]:
            raise forms.ValidationError("It holds what cannot be stored: a NUL character, half a character, or a number beyond 64 bits.")
        return value

    def order(self) -> intake.Order:
        """Raises pydantic's ValidationError for what the form does not know, such as a NUL character in the data."""
        said = self.cleaned_data
        budget = {key: said[name] for name, key in TIGHTER.items() if said.get(name) is not None}
        question = {"text": said["text"], "data": said["json_data"]}
        return intake.Order.model_validate({"agent": said["agent"], "input": question, "mode": said["mode"], "budget": budget or None})


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:write")
    agents = agents_of(actor)
    if request.method != "POST":
        known = {name for name, _ in agents}
        wanted = request.GET.get("agent", "")
        form = OrderForm(agents=agents, initial={"key": uuid4().hex, "agent": wanted if wanted in known else None})
        return render(request, "pages/new_run.html", {"form": form, "agents": agents})
    form = OrderForm(request.POST, agents=agents)
    run_id = submitted(actor, form) if form.is_valid() else None
    if run_id:
        return redirect("run", run_id)
    mark_errors(form)
    return render(request, "pages/new_run.html", {"form": form, "agents": agents}, status=422)


def submitted(actor: Actor, form: OrderForm) -> str | None:
    """The run's id; None when the runtime refused, with the reason beside the field that it is about.

    The form's key makes a second submit of the same form find the first one's run.
    """
    try:
        accepted = intake.submit(actor, form.order(), idempotency_key=form.cleaned_data["key"] or None)
        return accepted.run.run_id
    except ValidationError as error:
        for problem in error.errors():
            form.add_error(field_of([str(part) for part in problem["loc"]]), problem["msg"].removeprefix("Value error, ").capitalize())
    except Refused as refused:
        form.add_error(FIELD_OF_CODE.get(refused.code), refused.message)
    return None


def field_of(place: list[str]) -> str | None:
    """Where in an order -> the field that it came from."""
    if "data" in place:
        return "json_data"
    return next((FIELD_OF[part] for part in reversed(place) if part in FIELD_OF), None)


def mark_errors(form: OrderForm) -> None:
    """A field in error says so and names the list of its errors, for those who do not see the colour."""
    for name in form.errors:
        if name in form.fields:
            bound = form[name]
            described = f"{bound.auto_id}_error" + (f" {bound.auto_id}_helptext" if bound.help_text else "")
            form.fields[name].widget.attrs |= {"aria-invalid": "true", "aria-describedby": described}


def agents_of(actor: Actor) -> list[tuple[str, str]]:
    """(name, label) of the agents that this tenant sees and that have a live release."""
    seen = Agent.objects.filter(Q(tenants=[]) | Q(tenants__contains=[actor.tenant.slug]), live__isnull=False)
    return [(name, f"{name} · r{number}") for name, number in seen.order_by("name").values_list("name", "live__number")]
