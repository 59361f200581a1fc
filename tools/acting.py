"""Who acts in the admin."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from tenants.actors import Actor
from tenants.models import Tenant
from tenants.roles import Role


def acting(request: HttpRequest, tenant: Tenant | None) -> Actor:
    """The signed-in person in a tenant; a platform admin needs no membership. Raises PermissionDenied."""
    user: Any = request.user
    member = user.memberships.filter(tenant=tenant).first() if tenant else None
    place = tenant or Tenant.objects.order_by("created_at", "id").first()
    if place is None or not (member or user.is_platform_admin):
        raise PermissionDenied
    role = member.role if member else Role.ADMIN
    return Actor(user, place, role, request_id=getattr(request, "request_id", ""))
