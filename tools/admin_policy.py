"""Rules and versions of the policy in the admin: admins change those of their tenants; those of every tenant are a platform admin's."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from tenants.by_tenant import SEEN_TENANTS, ByTenant, ReadOnly
from tenants.errors import Refused

from . import conditions, rules, versions
from .acting import acting
from .models import PolicyVersion, Rule

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm


class RuleForm(Form):
    """`request` is set by the page on a subclass, one for each request. `reason` is kept in the audit trail."""

    request: HttpRequest
    reason = forms.CharField(max_length=1000, required=False, help_text="Why: kept with the change.")

    class Meta:
        model = Rule
        fields = ("name", "tenant", "on", "decision", "approvers", "when", "enabled")
        help_texts = {
            "tenant": "Empty: every tenant (platform admins only).",
            "on": "A call, before it is sent; or the final answer, before anybody gets it.",
            "when": "CEL over args, call, run, day and now; of an answer: answer, run, day and now.",
        }
        widgets = {"when": forms.Textarea(attrs={"rows": 4, "spellcheck": "false"})}

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        held, on = self.instance, data.get("on")
        wanted = Rule(name=data.get("name", held.name), tenant=data.get("tenant", held.tenant))
        if not self.may_edit(wanted):
            self.add_error(None, rules.not_yours().message)
        if data.get("when") and on:
            self.hold("when", lambda: conditions.check(data["when"], rules.NAMES[Rule.On(on)]))
        if not self.errors:
            fields = {name: data.get(name, getattr(held, name)) for name in ("on", "decision", "approvers", "when", "enabled")}
            self.hold(None, lambda: rules.check(Rule(name=wanted.name, tenant=wanted.tenant, **fields)))
        return data

    def may_edit(self, wanted: Rule) -> bool:
        try:
            return rules.may_edit(acting(self.request, wanted.tenant), wanted)
        except PermissionDenied:
            return False

    def hold(self, field: str | None, check: Any) -> None:
        try:
            check()
        except Refused as refused:
            self.add_error(field, refused.message)


@admin.register(Rule)
class RulePage(ByTenant):
    may_delete = True
    fixed = ("name", "tenant")
    form = RuleForm
    list_display = ("name", "tenant", "on", "decision", "approvers", "when", "enabled", "updated_at")
    list_filter = (SEEN_TENANTS, "on", "decision", "enabled")
    list_select_related = ("tenant",)
    search_fields = ("name", "when")
    ordering = ("name",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type("RuleFormOfRequest", (form,), {"request": request})

    def editable(self, request: HttpRequest, obj: Any) -> bool:
        try:
            return obj is None or rules.may_edit(acting(request, obj.tenant), obj)
        except PermissionDenied:
            return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and self.editable(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self.editable(request, obj)

    def save_model(self, request: HttpRequest, obj: Rule, form: Any, change: bool) -> None:
        rules.save(acting(request, obj.tenant), obj, form.cleaned_data.get("reason", ""))

    def delete_model(self, request: HttpRequest, obj: Rule) -> None:
        rules.delete(acting(request, obj.tenant), obj)


class WhyForm(ActionForm):
    reason = forms.CharField(max_length=1000, required=False, label="Reason (to restore)")


@admin.register(PolicyVersion)
class PolicyVersionPage(ReadOnly):
    """All permissions and rules of one scope after one change. Going back to one makes a new one."""

    list_display = ("number", "tenant", "changed_by", "reason", "at")
    list_filter = (SEEN_TENANTS,)
    list_select_related = ("tenant",)
    ordering = ("-at", "-number")
    actions = ("restore",)
    action_form = WhyForm

    @admin.action(description="Restore: make the policy what it was in this version", permissions=["view"])
    def restore(self, request: HttpRequest, queryset: QuerySet[PolicyVersion]) -> None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            messages.error(request, "Choose one version.")
            return
        version = chosen[0]
        try:
            made = versions.roll_back(acting(request, version.tenant), version.tenant, version.number, request.POST.get("reason", ""))
        except Refused as refused:
            messages.error(request, refused.message)
            return
        messages.success(request, f"Version {made.number} is like version {version.number}.")
