"""Detectors in the admin: platform admins set them; what each would have opened is beside it over the API."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.by_tenant import ByTenant
from tenants.errors import Refused
from tools.acting import acting

from .incidents import settings
from .models import Detector

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm
FIELDS = ("kind", "enabled", "severity", "runbook", "tenants", "parameters")


class DetectorForm(Form):
    reason = forms.CharField(max_length=1000, required=False, help_text="Why: kept with the change.")

    class Meta:
        model = Detector
        fields = ("name", *FIELDS)
        help_texts = {
            "tenants": "Empty: it looks at every tenant.",
            "parameters": "What is left out is as its kind says. threshold and k are compared as docs/configuration.md has it.",
        }

    def clean(self) -> dict[str, Any]:
        """As the one who writes it reads it; a refusal is shown on the form."""
        said = super().clean() or {}
        try:
            name = settings.checked(said.get("name") or self.instance.name)
            held = {field: said.get(field) or self.empty(field) for field in FIELDS if field in said}
            self.wanted = settings.named(name, settings.read(held), Detector.objects.filter(name=name).first())
            settings.values(self.wanted)
        except Refused as refused:
            raise forms.ValidationError(refused.message) from None
        return said

    @staticmethod
    def empty(name: str) -> Any:
        return {"enabled": False, "tenants": [], "parameters": {}}.get(name, "")


@admin.register(Detector)
class DetectorPage(ByTenant):
    tenant_path = None
    change_role = None
    fixed = ("name", "kind")
    form = DetectorForm
    fields = ("name", *FIELDS, "reason")
    list_display = ("name", "kind", "enabled", "severity", "runbook", "parameters")
    list_filter = ("enabled", "severity", "kind")
    search_fields = ("name",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        settings.ensure()
        return super().get_queryset(request)

    def save_model(self, request: HttpRequest, obj: Detector, form: Any, change: bool) -> None:
        """The settings write and audit; the form's own object is not saved."""
        settings.put(acting(request, None), obj.name, form.wanted, form.cleaned_data.get("reason", ""))
