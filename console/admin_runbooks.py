"""Runbooks in the admin: platform admins write new versions; what an incident pinned stays as it was."""

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from tenants.by_tenant import ByTenant
from tenants.errors import Refused
from tools.acting import acting

from .models import Runbook
from .runbooks import markup, reading, shelf

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm


class RunbookForm(Form):
    source = forms.CharField(
        label="Text",
        max_length=markup.MAX_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 40, "cols": 120, "spellcheck": "true"}),
        help_text="Markdown: a title, ## sections, and lists whose items are the steps.",
    )
    reason = forms.CharField(max_length=1000, required=False, help_text="Why: kept with the change.")

    class Meta:
        model = Runbook
        fields = ("name", "tenants")
        help_texts = {"tenants": "Empty: every tenant sees it."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.current is not None:
            self.initial["source"] = self.instance.current.source

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if not re.fullmatch(reading.NAME, name):
            raise forms.ValidationError("A name has small letters, digits and dashes, 64 at most.")
        return name

    def clean_source(self) -> str:
        source = str(self.cleaned_data["source"])
        try:
            shelf.checked(source)
        except Refused as refused:
            raise forms.ValidationError(refused.message)
        return source


@admin.register(Runbook)
class RunbookPage(ByTenant):
    tenant_path = None
    change_role = None
    fixed = ("name",)
    form = RunbookForm
    fields = ("name", "source", "tenants", "reason")
    list_display = ("name", "title", "current", "created_at")
    list_select_related = ("current",)
    search_fields = ("name",)
    ordering = ("name",)

    @admin.display()
    def title(self, obj: Runbook) -> str:
        return obj.current.title if obj.current else ""

    def save_model(self, request: HttpRequest, obj: Runbook, form: Any, change: bool) -> None:
        """The shelf writes and audits; the form's own object is not saved."""
        said = form.cleaned_data
        shelf.put(acting(request, None), obj.name, said["source"], tuple(said.get("tenants") or ()), said.get("reason", ""))
