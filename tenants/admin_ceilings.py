"""Ceilings in the admin: people see and change those of their tenants; the installation's are for platform admins."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from . import ceilings
from .by_tenant import SEEN_TENANTS, ByTenant
from .errors import Refused
from .models import Ceiling
from .quotas import scope_name

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm


class CeilingForm(Form):
    """`request` is set by the page on a subclass, one for each request."""

    request: HttpRequest
    amount = forms.CharField(help_text="USD for costs, else a number of runs. 0 accepts nothing; what runs is never stopped.")

    class Meta:
        model = Ceiling
        fields = ("tenant", "agent", "kind")
        help_texts = {"tenant": "Empty: the whole installation (platform admins only).", "agent": "Empty: every agent."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["amount"] = ceilings.shown(self.instance.kind, self.instance.value)

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        user: Any = self.request.user
        if data.get("tenant", self.instance.tenant) is None and not user.is_platform_admin:
            self.add_error("tenant", "Choose a tenant: ceilings of the installation are set by platform admins.")
        try:
            self.instance.value = ceilings.read(data.get("kind") or self.instance.kind, data.get("amount", ""))
        except Refused as refused:
            self.add_error("amount", refused.message)
        return data


@admin.register(Ceiling)
class CeilingPage(ByTenant):
    may_delete = True
    form = CeilingForm
    fixed = ("tenant", "agent", "kind")
    fields = ("tenant", "agent", "kind", "amount")
    audited = ("tenant", "agent", "kind", "value")
    list_display = ("place", "kind", "amount")
    list_filter = (SEEN_TENANTS, "kind")
    list_select_related = ("tenant",)
    ordering = ("tenant__slug", "agent", "kind")

    @admin.display(ordering="tenant__slug")
    def place(self, obj: Ceiling) -> str:
        return scope_name(obj.tenant.slug if obj.tenant else None, obj.agent)

    @admin.display(ordering="value")
    def amount(self, obj: Ceiling) -> str | int:
        return ceilings.shown(obj.kind, obj.value)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type("CeilingFormOfRequest", (form,), {"request": request})

    def write(self, request: HttpRequest, obj: Ceiling, form: Any, change: bool) -> None:
        obj.bucket = obj.bucket_at = None
        obj.save()

    def touched(self, obj: Ceiling) -> None:
        ceilings.lock(obj)  # held until the commit: nobody accepts a run without seeing the change
