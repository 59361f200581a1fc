"""Approvals in the admin: to read. Decisions go through the approvals page and the API, which show what would be sent."""

import unicodedata
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from tenants.by_tenant import SEEN_TENANTS
from tenants.models import User

from .models import Approval, ApprovalDecision


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
