"""Every route, one line each."""

from django.contrib import admin
from django.urls import include, path

from . import health

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("api/v1/", include("console.api.urls")),
    path("admin/", admin.site.urls),
]
