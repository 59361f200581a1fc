"""The admin site: its pages see the rows of the person's tenants, those of a platform admin all of them."""

from functools import wraps
from typing import Any

from django.apps import apps
from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils.http import urlencode

from tenants.errors import Refused
from tenants.scope import ALL, Tenants, settle


class Site(AdminSite):
    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django has let the person in by the time the view runs."""

        @wraps(view)
        def confined(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            from console import rates  # this module is read before there are models
            from console.entry import required, sessions
            from console.pages.session import refusal

            if required.owed(request.user):  # type: ignore[arg-type]
                return HttpResponseRedirect(resolve_url("security"))
            settle(tenants_of(request.user))
            sessions.touch(request)
            try:
                rates.charge(request, rates.person(request.user))  # type: ignore[arg-type]
            except Refused as refused:
                return refusal(request, refused)
            return view(request, *args, **kwargs)

        return super().admin_view(confined, cacheable)

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """There is one door. Who is in already and is no staff is told so there."""
        if request.user.is_authenticated:
            raise PermissionDenied
        return HttpResponseRedirect(f"{resolve_url('sign-in')}?{urlencode({'next': request.GET.get('next', '/admin/')})}")

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return HttpResponseRedirect(resolve_url("security-password"))

    def get_urls(self) -> list[Any]:
        """Without the redirect to "view on site": no row of ours has such a page, and it looks past every filter."""
        return [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]


def tenants_of(user: Any) -> Tenants:
    return ALL if user.is_platform_admin else list(user.memberships.filter(tenant__active=True).values_list("tenant_id", flat=True))


class SiteConfig(AdminConfig):
    default_site = "console.site.Site"

    def ready(self) -> None:
        """What people get in with is nobody's to look at, in whichever tenant."""
        super().ready()
        from django.contrib import admin

        for label in ("account", "mfa", "socialaccount"):
            for model in apps.get_app_config(label).get_models():
                admin.site.unregister(model) if admin.site.is_registered(model) else None
