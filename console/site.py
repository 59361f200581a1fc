"""The admin site: its pages see the rows of the person's tenants, those of a platform admin all of them."""

from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest

from tenants.scope import ALL, Tenants, settle


class Site(AdminSite):
    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django has let the person in by the time the view runs."""

        @wraps(view)
        def confined(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            settle(tenants_of(request.user))
            return view(request, *args, **kwargs)

        return super().admin_view(confined, cacheable)

    def get_urls(self) -> list[Any]:
        """Without the redirect to "view on site": no row of ours has such a page, and it looks past every filter."""
        return [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]


def tenants_of(user: Any) -> Tenants:
    return ALL if user.is_platform_admin else list(user.memberships.filter(tenant__active=True).values_list("tenant_id", flat=True))


class SiteConfig(AdminConfig):
    default_site = "console.site.Site"
