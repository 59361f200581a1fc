"""The admin of this room: tools to look at and switch, and the permissions that operators edit for their tenants."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.shortcuts import redirect
from django.utils.html import format_html_join

from tenants.by_tenant import SEEN_TENANTS, ByTenant, ReadOnly, tenants_where
from tenants.errors import Refused
from tenants.models import User
from tenants.roles import Role

from . import admin_policy, catalog, conditions, lint, lookalikes, permissions
from .acting import acting
from .definitions import Effect
from .imports import definitions
from .models import McpServer, Permission, Tool, ToolVersion

__all__ = ["admin_policy"]  # registers its pages by being imported

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
    Inline = admin.TabularInline[Any, Any]
else:
    Form, Inline = forms.ModelForm, admin.TabularInline


class VersionInline(Inline):
    model = ToolVersion
    fields = ("number", "effect", "idempotency", "says", "timeout_s", "labels", "lint", "sha256", "created_at")
    readonly_fields = fields
    ordering = ("-number",)
    extra = 0
    can_delete = False

    @admin.display(description="description")
    def says(self, version: ToolVersion) -> str:
        return lookalikes.spelled(version.description)

    @admin.display
    def lint(self, version: ToolVersion) -> str:
        counts = lint.counts(catalog.findings(version))
        return ", ".join(f"{number} {severity}" for severity, number in counts.items() if number) or "nothing"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User) and request.user.is_platform_admin


@admin.register(Tool)
class ToolPage(ReadOnly):
    """A tool changes through the configuration document and the API; here it is looked at, switched, and classified when imported."""

    tenant_path = None
    list_display = ("name", "enabled", "classified", "effect", "version", "tenants")
    list_filter = ("enabled", "classified", "current__effect")
    list_select_related = ("current",)
    search_fields = ("name",)
    ordering = ("name",)
    inlines = (VersionInline,)
    readonly_fields = ("lint",)
    actions = ("enable", "disable", "is_read", "is_write", "is_irreversible")

    @admin.display(ordering="current__effect")
    def effect(self, tool: Tool) -> str:
        return tool.current.effect if tool.current else ""

    @admin.display
    def version(self, tool: Tool) -> int | None:
        return tool.current.number if tool.current else None

    @admin.display(description="Lint of the current version")
    def lint(self, tool: Tool) -> str:
        found = catalog.findings(tool.current) if tool.current else ()
        lines = ((each.severity.capitalize(), each.message, each.path, each.code) for each in found)
        return format_html_join("", "<div><strong>{}</strong>: {} <code>{}</code> ({})</div>", lines) or "Nothing is too loose."

    @admin.action(description="Switch on", permissions=["view"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.switch(request, queryset, True)

    @admin.action(description="Switch off: every call is refused, also of running runs", permissions=["view"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.switch(request, queryset, False)

    def switch(self, request: HttpRequest, queryset: QuerySet[Tool], enabled: bool) -> None:
        try:
            with transaction.atomic():
                done = [tool.name for tool in queryset if catalog.set_enabled(acting(request, None), tool.name, enabled)]
        except Refused as refused:
            messages.error(request, f"Nothing was switched. {refused.message}")
        else:
            messages.success(request, f"Switched {'on' if enabled else 'off'}: {', '.join(done) or 'nothing new'}.")

    @admin.action(description="Classify imported tools: read, changes nothing", permissions=["view"])
    def is_read(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.classify(request, queryset, Effect.READ)

    @admin.action(description="Classify imported tools: write, changes something", permissions=["view"])
    def is_write(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.classify(request, queryset, Effect.WRITE)

    @admin.action(description="Classify imported tools: irreversible, cannot be undone", permissions=["view"])
    def is_irreversible(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.classify(request, queryset, Effect.IRREVERSIBLE)

    def classify(self, request: HttpRequest, queryset: QuerySet[Tool], effect: Effect) -> None:
        """All of them or none. Labels and keys are said on the imports page and over the API."""
        names = list(queryset.values_list("name", flat=True))
        try:
            with transaction.atomic():
                for tool in queryset.select_related("current"):
                    labels = tuple(tool.current.labels) if tool.current else ()
                    reason = "classified in the admin"
                    definitions.classify(acting(request, None), tool.name, effect=effect, idempotency="none", labels=labels, reason=reason)
        except Refused as refused:
            messages.error(request, f"Nothing was classified. {refused.message}")
        else:
            messages.success(request, f"Classified as {effect.value}: {', '.join(names)}.")


@admin.register(McpServer)
class McpServerPage(ReadOnly):
    """Servers change through the configuration document and the imports page."""

    tenant_path = None
    list_display = ("name", "url", "enabled", "protocol_version", "last_seen_at", "last_error")
    search_fields = ("name", "url")
    ordering = ("name",)


class PermissionForm(Form):
    """`request` is set by the page on a subclass, one for each request. `reason` is kept in the audit trail."""

    request: HttpRequest
    reason = forms.CharField(max_length=1000, required=False, help_text="Why: kept with the change.")

    class Meta:
        model = Permission
        fields = ("tool", "tenant", "agent", "user_role", "decision", "approvers", "group", "when", "loosen")
        help_texts = {
            "tenant": "Empty: every tenant (platform admins only).",
            "agent": "Empty: every agent.",
            "user_role": "Role of the user that the run acts for. Empty: every user.",
            "group": "A group of the tenant's approvers that decides what is asked. Empty: everybody with the role.",
            "when": "CEL over args, call, run and now, for example args.priority == 'urgent'. Empty: always.",
            "loosen": "The row replaces the default of the tool's effect and may be weaker than it (admins only).",
        }
        widgets = {"when": forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})}

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        wanted = Permission(tenant=data.get("tenant", self.instance.tenant), loosen=data.get("loosen", self.instance.loosen))
        try:
            mine = permissions.may_edit(acting(self.request, wanted.tenant), wanted)
        except PermissionDenied:
            mine = False
        if not mine:
            self.add_error(None, permissions.not_yours().message)
        if data.get("when"):
            try:
                conditions.check(data["when"])
            except Refused as refused:
                self.add_error("when", refused.message)
        return data


@admin.register(Permission)
class PermissionPage(ByTenant):
    """Operators see and edit the rows of their own tenants; rows of every tenant are for platform admins."""

    view_role = Role.OPERATOR
    change_role = Role.OPERATOR
    may_delete = True
    fixed = ("tool", "tenant")
    form = PermissionForm
    list_display = ("tool", "tenant", "agent", "user_role", "decision", "approvers", "when", "loosen", "updated_at")
    list_filter = (SEEN_TENANTS, "decision", "loosen")
    list_select_related = ("tool", "tenant")
    search_fields = ("tool__name", "agent")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type("PermissionFormOfRequest", (form,), {"request": request})

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        user: Any = request.user
        if db_field.name == "tool" and not user.is_platform_admin:
            slugs = list(tenants_where(user, Role.OPERATOR).values_list("slug", flat=True))
            kwargs["queryset"] = Tool.objects.filter(Q(tenants=[]) | Q(tenants__overlap=slugs))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def editable(self, request: HttpRequest, obj: Any) -> bool:
        try:
            return obj is None or permissions.may_edit(acting(request, obj.tenant), obj)
        except PermissionDenied:
            return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and self.editable(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self.editable(request, obj)

    def changeform_view(self, request: HttpRequest, object_id: Any = None, form_url: str = "", extra_context: Any = None) -> Any:
        """What only the writer knows, such as whether a group is there, is a sentence above the form: nothing was saved."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Refused as refused:
            messages.error(request, refused.message)
            return redirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Permission, form: Any, change: bool) -> None:
        permissions.save(acting(request, obj.tenant), obj, form.cleaned_data.get("reason", ""))

    def delete_model(self, request: HttpRequest, obj: Permission) -> None:
        permissions.delete(acting(request, obj.tenant), obj)
