"""The admin of this room: messages to the world outside, to look at."""

from django.contrib import admin

from tenants.by_tenant import SEEN_TENANTS, ReadOnly
from tenants.roles import Role

from . import admin_detectors, admin_runbooks
from .models import Delivery

__all__ = ["admin_detectors", "admin_runbooks"]  # each registers its page by being imported


@admin.register(Delivery)
class DeliveryPage(ReadOnly):
    """The page of a run sends one again; here they are found."""

    view_role = Role.VIEWER
    list_display = ("__str__", "tenant", "event", "url", "state", "attempts", "next_at", "delivered_at")
    list_filter = (SEEN_TENANTS, "kind", "state")
    list_select_related = ("tenant",)
    ordering = ("-id",)
    show_full_result_count = False
