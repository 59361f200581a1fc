"""Every route, one line each."""

from django.contrib import admin
from django.urls import include, path

from . import errors, health, llms, scrape

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", scrape.view),
    path("llms.txt", llms.page),
    path("api/v1/", include("console.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("console.pages.urls")),
]

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.not_found
handler500 = errors.server_error
