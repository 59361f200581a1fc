"""A new release made from another one: its parts as fields, or its whole block as JSON; the difference is shown before it is published."""

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from pydantic import ValidationError

from console import release_records as rr
from console.api.registry import seen_by
from console.release_diff import Difference, difference
from runs import releases
from runs.models import ModelDefinition, Release
from runs.spec import Budget, Deadlines
from tenants.actors import Actor
from tenants.errors import Refused
from tools.canonical import loads_limited
from tools.catalog import need_platform_admin
from tools.models import Tool

from .forms import INPUT, marked
from .session import signed_in

JSON = dict[str, Any]
CODE = {"class": "input mono", "spellcheck": "false", "rows": 20}
ROLES = ("planner", "reformulation", "critique", "synthesis")
NUMBERS = {  # field -> block it belongs to
    **dict.fromkeys(("max_steps", "max_tool_calls", "max_writes", "max_input_tokens", "max_output_tokens", "max_cost_usd"), "budget"),
    **dict.fromkeys(("model_call_s", "tool_call_s", "step_s", "run_s"), "deadlines"),
}
LABELS = {
    "max_steps": "Most steps", "max_tool_calls": "Most tool calls", "max_writes": "Most writes", "max_input_tokens": "Most tokens in",
    "max_output_tokens": "Most tokens out", "max_cost_usd": "Most cost, in USD", "model_call_s": "Model call, in seconds",
    "tool_call_s": "Tool call, in seconds", "step_s": "Step, in seconds", "run_s": "Run, in seconds",
}  # fmt: skip


class DraftForm(forms.Form):
    """What people change most. Everything else stays as it is in the release that it is made from."""

    instructions = forms.CharField(strip=False, max_length=100_000, widget=forms.Textarea({**INPUT, "rows": 12}))
    tools = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple())
    planner = forms.ChoiceField(label="Planner", widget=forms.Select(INPUT))
    reformulation = forms.ChoiceField(label="Reformulation", required=False, widget=forms.Select(INPUT))
    critique = forms.ChoiceField(label="Critique", required=False, widget=forms.Select(INPUT))
    synthesis = forms.ChoiceField(label="Synthesis", required=False, widget=forms.Select(INPUT))

    def __init__(self, *args: Any, tools: list[str], models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["tools"].choices = [(name, name) for name in tools]  # type: ignore[attr-defined]
        for role in ROLES:
            none = [] if role == "planner" else [("", "none of its own")]
            self.fields[role].choices = [*none, *((name, name) for name in models)]  # type: ignore[attr-defined]
        for name in NUMBERS:
            number = forms.NumberInput({**INPUT, "step": "any"})
            self.fields[name] = forms.DecimalField(label=LABELS[name], min_value=0, max_digits=15, decimal_places=6, widget=number)

    def block(self, base: JSON) -> JSON:
        said, made = self.cleaned_data, json.loads(json.dumps(base))
        made |= {"instructions": said["instructions"].replace("\r\n", "\n"), "tools": ordered(base.get("tools") or [], said["tools"])}
        for role in ROLES:
            kept = (made["models"].get(role) or {}) | {"model": said[role]}
            made["models"][role] = kept if said[role] else None
        for name, part in NUMBERS.items():
            value = said[name].normalize()
            made[part][name] = format(value, "f") if name == "max_cost_usd" else int(value) if value == int(value) else float(value)
        return dict(made)


class BlockForm(forms.Form):
    block = forms.CharField(label="Release block", strip=False, widget=forms.Textarea(CODE), help_text="JSON, as in a configuration.")

    def clean_block(self) -> JSON:
        try:
            value = loads_limited(self.cleaned_data["block"].encode())
        except ValueError as error:
            raise forms.ValidationError(f"This is not JSON: {error}")
        if not isinstance(value, dict):
            raise forms.ValidationError("Write a JSON object.")
        return value


def ordered(before: list[str], chosen: list[str]) -> list[str]:
    """The tools that stay, in their order, and the new ones after them."""
    return [name for name in before if name in chosen] + [name for name in chosen if name not in before]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest, release_id: str) -> HttpResponse:
    """`?as=json` shows the whole block. POST `act`: show (the difference), or publish. Publishing takes nothing live."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:write")
    need_platform_admin(actor)
    base = rr.find(actor, release_id)
    whole = (request.POST if request.method == "POST" else request.GET).get("as") == "json"
    if request.method != "POST":
        return render(request, "pages/releases/draft.html", context(base, form_of(actor, base, whole), whole))
    form = form_of(actor, base, whole, request.POST)
    found = judged(actor, base, form, whole, publish=request.POST.get("act") == "publish") if form.is_valid() else None
    if isinstance(found, Release):
        same = found.pk == base.pk or found.number <= base.number
        messages.success(request, f"{found} is {'there already' if same else 'published'}. It is not live: try it, then promote it.")
        return redirect("release", found.release_id)
    more = {"diff": found, "checked": found is not None}
    return render(request, "pages/releases/draft.html", context(base, form, whole) | more, status=422 if form.errors else 200)


def context(base: Release, form: forms.Form, whole: bool) -> JSON:
    numbers = [form[name] for name in NUMBERS] if not whole else []
    roles = [form[name] for name in ROLES] if not whole else []
    return {"release": base, "form": marked(form), "whole": whole, "numbers": numbers, "roles": roles}


def form_of(actor: Actor, base: Release, whole: bool, data: Any = None) -> forms.Form:
    if whole:
        return BlockForm(data, initial={"block": json.dumps(base.spec, indent=2, ensure_ascii=False)})
    rows = Tool.objects.filter(seen_by(actor), current__isnull=False).order_by("name").values_list("name", flat=True)
    tools = list(dict.fromkeys([*rows, *(base.spec.get("tools") or [])]))
    models = list(ModelDefinition.objects.order_by("name").values_list("name", flat=True))
    return DraftForm(data, tools=tools, models=models, initial=initial(base.spec))


def initial(spec: JSON) -> JSON:
    defaults = {"budget": Budget().model_dump(), "deadlines": Deadlines().model_dump()}
    numbers = {name: (spec.get(part) or {}).get(name, defaults[part][name]) for name, part in NUMBERS.items()}
    roles = {role: ((spec.get("models") or {}).get(role) or {}).get("model", "") for role in ROLES}
    return {"instructions": spec.get("instructions", ""), "tools": spec.get("tools") or [], **numbers, **roles}


def judged(actor: Actor, base: Release, form: forms.Form, whole: bool, *, publish: bool) -> Release | Difference | None:
    """The release if it is published, else the difference that it would make; None: it was refused, and the form says why.

    The difference is taken of a release that is made and taken back in one transaction, so that it is checked as publishing checks it.
    """
    block = form.cleaned_data["block"] if isinstance(form, BlockForm) else form.block(base.spec)  # type: ignore[attr-defined]
    try:
        with transaction.atomic():
            made = releases.create(actor, base.agent_id, block)
            if publish:
                return made
            found = difference(rr.content(base), rr.content(made))
            transaction.set_rollback(True)
            return found
    except ValidationError as error:
        for each in error.errors():
            place = ".".join(str(part) for part in each["loc"])
            form.add_error(field_of(form, each["loc"]), f"{place}: {each['msg']}" if place else each["msg"])
    except Refused as refused:
        if refused.status == 403:
            raise
        form.add_error(field_of(form, ()), refused.message)
    return None


def field_of(form: forms.Form, place: tuple[int | str, ...]) -> str | None:
    """The field that a part of the block was written in; None: on the whole form."""
    if isinstance(form, BlockForm):
        return "block"
    return next((str(part) for part in reversed(place) if part in form.fields), None) or next(
        (str(part) for part in place if part in form.fields), None
    )
