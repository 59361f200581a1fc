"""Admin pages limited by tenant and role, audited: what the pages of every room are made from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from . import audit
from .models import Member, Tenant, User
from .roles import ORDER, Role

if TYPE_CHECKING:
    Page = admin.ModelAdmin[Any]
else:
    Page = admin.ModelAdmin  # not generic at run time

# Offers only what the person sees; Django's own would list every tenant.
SEEN_TENANTS = ("tenant", admin.RelatedOnlyFieldListFilter)


def tenants_where(user: User, least: Role) -> QuerySet[Tenant]:
    """The active tenants in which the person has at least this role; every tenant for a platform admin."""
    if user.is_platform_admin:
        return Tenant.objects.all()
    held = Member.objects.filter(user=user, role__in=ORDER[ORDER.index(least) :]).values("tenant")
    return Tenant.objects.filter(active=True, pk__in=held)


class ByTenant(Page):
    """Shows and changes only what lies in the person's tenants, by role there and not by Django's permissions.

    Every change is audited in its own transaction. `tenant_path`: the lookup from the model to its tenant; None for what
    belongs to the installation, which platform admins alone see and change and which goes on the platform's chain.
    """

    tenant_path: ClassVar[str | None] = "tenant"
    view_role: ClassVar[Role] = Role.ADMIN
    change_role: ClassVar[Role | None] = Role.ADMIN  # None: platform admins only
    may_delete: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ()  # fields that cannot change once the row exists
    audited: ClassVar[tuple[str, ...]] = ()
    actions: Sequence[Any] = ()

    def scope(self, user: User, least: Role) -> QuerySet[Any]:
        """The rows that lie in tenants where the person has at least this role."""
        rows: QuerySet[Any] = self.model._default_manager.all()
        if user.is_platform_admin:
            return rows
        return rows.filter(**{f"{self.tenant_path}__in": tenants_where(user, least)}) if self.tenant_path else rows.none()

    def allows(self, request: HttpRequest, least: Role | None, obj: Model | None) -> bool:
        user = request.user
        if not isinstance(user, User) or not user.is_active or not user.is_staff:
            return False
        if user.is_platform_admin or least is None:
            return user.is_platform_admin
        if obj is None or obj.pk is None:
            return self.tenant_path is not None and tenants_where(user, least).exists()
        return self.scope(user, least).filter(pk=obj.pk).exists()

    def chain(self, obj: Any) -> Tenant | None:
        """Whose audit chain a change of this row goes on."""
        return obj.tenant if self.tenant_path == "tenant" else None

    def touched(self, obj: Any) -> None:
        """What else must happen in the transaction of a change."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        seen = self.scope(request.user, self.view_role)  # type: ignore[arg-type]
        return super().get_queryset(request).filter(pk__in=seen.values("pk"))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.allows(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.change_role, None)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.allows(request, self.change_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may_delete and self.allows(request, self.change_role, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[Any, ...]:
        return (*super().get_readonly_fields(request, obj), *(self.fixed if obj else ()))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.related_model is Tenant:
            kwargs["queryset"] = tenants_where(request.user, self.change_role or Role.ADMIN)  # type: ignore[arg-type]
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def snapshot(self, obj: Model) -> dict[str, Any]:
        return {name: getattr(obj, obj._meta.get_field(name).attname) for name in self.audited}  # type: ignore[union-attr]

    def note(self, request: HttpRequest, verb: str, obj: Any, before: Any, after: Any) -> None:
        kind = str(obj._meta.model_name)
        request_id = getattr(request, "request_id", "")
        user: Any = request.user
        audit.append(user, f"{kind}.{verb}", kind, obj.pk, before, after, tenant=self.chain(obj), request_id=request_id)

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the row. Pages that write through a function of the room do it here."""
        obj.save()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        with transaction.atomic():
            before = self.snapshot(self.model._base_manager.get(pk=obj.pk)) if change else None
            self.write(request, obj, form, change)
            self.note(request, "changed" if change else "created", obj, before, self.snapshot(obj))
            self.touched(obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            self.note(request, "deleted", obj, self.snapshot(obj), None)
            self.touched(obj)
            obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                self.delete_model(request, obj)


class ReadOnly(ByTenant):
    """Rows that only the runtime writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
