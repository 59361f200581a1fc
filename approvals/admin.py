"""Approvals in the admin: to read. Decisions go through the approvals page and the API, which show what would be sent.

Who decides is edited here: groups, by admins of their tenant.
"""

import unicodedata
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.actors import Actor
from tenants.by_tenant import SEEN_TENANTS, ByTenant, tenants_where
from tenants.by_tenant import ReadOnly as ReadOnlyByTenant
from tenants.errors import Refused
from tenants.models import Tenant, User
from tenants.roles import Role

from . import delegations, groups
from .models import Approval, ApprovalDecision, Delegation, Group, StandingGrant

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm


def visible(text: str) -> str:
    """Controls, direction marks and zero-width characters shown as their escapes: what is read is what will be sent."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)


class ReadOnly:
    """Nobody adds, changes or deletes here; staff read what belongs to their tenants."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)


class DecisionInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = ApprovalDecision
    fields = ("user", "verdict", "reason", "at")
    readonly_fields = fields
    extra = 0


@admin.register(Approval)
class ApprovalAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("approval_id", "state", "risk", "tool", "effect", "agent", "tenant", "expires_at", "needed")
    list_filter = ("state", "risk", "effect", SEEN_TENANTS)
    search_fields = ("tool", "agent", "digest")
    list_select_related = ("tenant",)
    exclude = ("args",)
    readonly_fields = ("approval_id", "args_text")
    inlines = (DecisionInline,)
    actions = None
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Approval]:
        rows, person = super().get_queryset(request), request.user
        if isinstance(person, User) and person.is_platform_admin:
            return rows
        return rows.filter(tenant__members__user_id=person.pk)

    @admin.display(description="arguments")
    def args_text(self, approval: Approval) -> str:
        return visible(bytes(approval.args).decode("utf-8", "backslashreplace"))


def acting(request: HttpRequest, tenant: Tenant) -> Actor:
    """The signed-in person in a tenant; a platform admin needs no membership. Raises PermissionDenied."""
    person: Any = request.user
    member = person.memberships.filter(tenant=tenant).first()
    if not (member or person.is_platform_admin):
        raise PermissionDenied
    role = member.role if member else Role.ADMIN
    return Actor(person, tenant, role, request_id=getattr(request, "request_id", ""))


class GroupForm(Form):
    class Meta:
        model = Group
        fields = ("tenant", "name", "people", "escalates_to")
        help_texts = {
            "people": "Members of the tenant. They decide what a permission leaves to this group, as far as their role lets them.",
            "escalates_to": "Another group of the tenant: it may decide too when half of the time is over. Empty: none.",
        }

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        tenant = data.get("tenant", self.instance.tenant_id and self.instance.tenant)
        if tenant and not self.errors:
            try:
                people = [person.username for person in data.get("people", ())]
                groups.check(tenant, data.get("name", self.instance.name), people, data.get("escalates_to", ""))
            except Refused as refused:
                self.add_error(None, refused.message)
        return data


@admin.register(Group)
class GroupPage(ByTenant):
    """Tenant admins say who decides. A group that a permission names cannot go."""

    form = GroupForm
    fixed = ("tenant", "name")
    list_display = ("name", "tenant", "members", "escalates_to")
    list_filter = (SEEN_TENANTS,)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    filter_horizontal = ("people",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        return super().get_queryset(request).prefetch_related("people")

    @admin.display(description="people")
    def members(self, group: Group) -> str:
        return ", ".join(sorted(person.username for person in group.people.all()))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        seen = tenants_where(request.user, Role.ADMIN)  # type: ignore[arg-type]
        kwargs["queryset"] = User.objects.filter(memberships__tenant__in=seen).distinct().order_by("username")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        people = [person.username for person in form.cleaned_data["people"]]
        actor = acting(request, obj.tenant)
        obj.pk = groups.put(actor, obj.tenant, obj.name, people, form.cleaned_data["escalates_to"], "in the admin")[0].pk


@admin.register(Delegation)
class DelegationPage(ReadOnlyByTenant):
    """To read, and to take back. People give their own delegations over the API."""

    list_display = ("of", "to", "tenant", "until", "revoked_at", "reason")
    list_filter = (SEEN_TENANTS,)
    list_select_related = ("of", "to", "tenant")
    actions = ("take_back",)

    @admin.action(description="Take back", permissions=["view"])
    def take_back(self, request: HttpRequest, queryset: QuerySet[Delegation]) -> None:
        for delegation in queryset:
            delegations.revoke(acting(request, delegation.tenant), delegation, "in the admin")
        messages.success(request, "Taken back. What was approved under it and is not sent yet is asked again.")


@admin.register(StandingGrant)
class StandingGrantPage(ReadOnlyByTenant):
    """Grants are given and taken back on their page in the console, which shows what used them."""

    view_role = Role.VIEWER
    list_display = ("__str__", "agent", "tool", "tenant", "used", "most", "expires_at", "created_by", "revoked_at")
    list_filter = (SEEN_TENANTS,)
    list_select_related = ("tenant", "created_by")
    search_fields = ("agent", "tool")
