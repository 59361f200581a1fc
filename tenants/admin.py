"""The admin of this room: people, tenants, memberships, keys, the audit trail, egress and credentials."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from . import admin_ceilings, controls, credentials, keys, live_secrets
from .by_tenant import SEEN_TENANTS, ByTenant, ReadOnly, tenants_where
from .models import ApiKey, AuditEntry, Credential, EgressAllow, Member, Tenant, User
from .roles import SCOPES, Role

__all__ = ["admin_ceilings"]  # registers its page by being imported

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
    People = UserAdmin[User]
else:
    Form, People = forms.ModelForm, UserAdmin


@admin.register(User)
class UserPage(ByTenant, People):
    """People belong to the installation: a tenant's admin sees theirs, a platform admin changes them."""

    change_role = None
    audited = ("username", "email", "first_name", "last_name", "is_active", "is_staff", "is_platform_admin")
    list_display = ("username", "email", "is_active", "is_staff", "is_platform_admin")
    list_filter = ("is_active", "is_staff", "is_platform_admin")
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("May sign in", {"fields": ("is_active", "is_staff", "is_platform_admin")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Whoever may only look gets no password line, not even a masked one."""
        shown = super().get_fieldsets(request, obj)
        return shown if self.has_change_permission(request, obj) else [(None, {"fields": ("username",)}), *shown[1:]]

    def scope(self, user: User, least: Role) -> QuerySet[Any]:
        rows = User.objects.all()
        mates = Member.objects.filter(tenant__in=tenants_where(user, least)).values("user")
        return rows if user.is_platform_admin else rows.filter(pk__in=mates)

    def chain(self, obj: User) -> None:
        return None

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        with transaction.atomic():
            before = User.objects.filter(pk=id).values_list("password", flat=True).first() if id.isdigit() else None
            response = super().user_change_password(request, id, form_url)
            after = User.objects.get(pk=id)
            if after.password != before:
                self.note(request, "password_changed", after, None, None)
        return response


@admin.register(Tenant)
class TenantPage(ByTenant):
    tenant_path = "pk"
    change_role = None
    fixed = ("slug",)
    fields = ("slug", "name", "active")
    audited = ("slug", "name", "active")
    list_display = ("slug", "name", "active", "created_at")

    def touched(self, obj: Tenant) -> None:
        controls.bump(obj)


@admin.register(Member)
class MemberPage(ByTenant):
    fixed = ("tenant", "user")
    fields = ("tenant", "user", "role")
    audited = ("tenant", "user", "role")
    list_display = ("user", "tenant", "role")
    list_filter = (SEEN_TENANTS, "role")
    list_select_related = ("user", "tenant")
    actions = ("remove",)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user":
            kwargs["queryset"] = UserPage(User, self.admin_site).scope(request.user, Role.ADMIN)  # type: ignore[arg-type]
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @admin.action(description="Remove from the tenant, with their keys", permissions=["change"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Member]) -> None:
        with transaction.atomic():
            for member in queryset:
                ApiKey.objects.filter(member=member).delete()
                self.delete_model(request, member)


class ApiKeyForm(Form):
    scopes = forms.MultipleChoiceField(choices=[(scope, scope) for scope in SCOPES], widget=forms.CheckboxSelectMultiple)

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("The key would have expired before its first use.")
        return expires_at


@admin.register(ApiKey)
class ApiKeyPage(ByTenant):
    """A key acts as its owner, so people make keys for themselves only; an admin of the tenant sees and revokes them."""

    tenant_path = "member__tenant"
    form = ApiKeyForm
    fields = ("member", "name", "scopes", "expires_at")
    readonly_fields = ("revoked_at", "last_used_at", "created_at")
    audited = ("member", "name", "scopes", "expires_at", "revoked_at")
    list_display = ("prefix", "name", "member", "expires_at", "revoked_at", "last_used_at")
    list_select_related = ("member__user", "member__tenant")
    actions = ("revoke",)

    @admin.display(description="key")
    def prefix(self, key: ApiKey) -> str:
        return f"sbx_{key.id}_…"

    def scope(self, user: User, least: Role) -> QuerySet[Any]:
        mine = Q(member__user=user) | Q(member__tenant__in=tenants_where(user, least))
        return ApiKey.objects.all() if user.is_platform_admin else ApiKey.objects.filter(mine)

    def chain(self, obj: ApiKey) -> Tenant:
        return obj.member.tenant

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.allows(request, Role.VIEWER if obj is None else self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, Role.VIEWER, None)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("prefix", *self.fields, *self.readonly_fields) if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[Any, ...]:
        return (*super().get_readonly_fields(request, obj), "prefix")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        user: Any = request.user
        members = Member.objects.select_related("user", "tenant").filter(tenant__active=True)
        kwargs["queryset"] = members if user.is_platform_admin else members.filter(user=user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def write(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        text = keys.draw(obj)
        obj.save(force_insert=True)
        messages.warning(request, f"Copy the key now, it is shown only this once: {text}")

    @admin.action(description="Revoke", permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        with transaction.atomic():
            for key in queryset:
                if keys.revoke(key):
                    self.note(request, "revoked", key, None, {"name": key.name})


@admin.register(AuditEntry)
class AuditEntryPage(ReadOnly):
    list_display = ("at", "actor", "action", "object_kind", "object_id", "tenant", "reason")
    list_filter = (SEEN_TENANTS,)
    list_select_related = ("tenant",)
    search_fields = ("actor", "object_id", "request_id")
    ordering = ("-id",)


HOST = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?|[0-9a-f:.]+", re.ASCII)


class EgressAllowForm(Form):
    def clean_host_port(self) -> str:
        """One spelling per place: lower case, an IPv6 address in brackets."""
        text = self.cleaned_data["host_port"].strip().lower()
        try:
            url = urlsplit(f"//{text}")
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        plain = f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"
        if not host or not port or plain != text or not HOST.fullmatch(host):
            raise forms.ValidationError("Write host:port, for example 127.0.0.1:9009 or [::1]:9009.")
        return plain


@admin.register(EgressAllow)
class EgressAllowPage(ByTenant):
    tenant_path = None
    change_role = None
    may_delete = True
    form = EgressAllowForm
    audited = ("host_port",)

    def touched(self, obj: EgressAllow) -> None:
        controls.bump(None)


class CredentialForm(Form):
    header = forms.RegexField(r"\A[A-Za-z0-9-]{1,100}\Z", required=False, help_text="Only for the kind `header`.")
    secret = forms.CharField(
        required=False,
        strip=False,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="Sealed at once and never shown again. Leave empty to keep the present one.",
    )

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        if self.instance.pk is None and not data.get("secret"):
            self.add_error("secret", "A new credential needs its secret.")
        if any(ord(letter) < 32 for letter in data.get("secret") or ""):
            self.add_error("secret", "A secret cannot hold line breaks or other control characters.")
        if (data.get("kind") == Credential.Kind.HEADER) != bool(data.get("header")):
            self.add_error("header", "Name the header for the kind `header`, and only for that.")
        return data


@admin.register(Credential)
class CredentialPage(ByTenant):
    may_delete = True
    form = CredentialForm
    fixed = ("tenant", "name")  # both are inside the sealed value
    fields = ("tenant", "name", "kind", "header", "secret")
    audited = ("tenant", "name", "kind", "header", "version")
    list_display = ("name", "tenant", "kind", "version", "opens")
    list_filter = (SEEN_TENANTS,)

    @admin.display(description="can be opened", boolean=True)
    def opens(self, obj: Credential) -> bool:
        return credentials.opens(obj)

    def touched(self, obj: Credential) -> None:
        controls.bump(obj.tenant)

    def write(self, request: HttpRequest, obj: Credential, form: Any, change: bool) -> None:
        """The row is locked and read again first: a rotation or somebody else may have sealed it since the form was read."""
        if change:
            held = credentials.locked(obj)
            obj.sealed, obj.version = held.sealed, held.version + bool(form.changed_data)
        if secret := form.cleaned_data["secret"]:
            obj.sealed = credentials.seal(obj.tenant_id, obj.name, secret)
            live_secrets.remember(live_secrets.Opened(obj.name, obj.kind, secret))
        obj.save()
