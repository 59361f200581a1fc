"""What answers where no view does. Under `/api/` that is a problem document, as everywhere in the API; elsewhere a page.

`console/urls.py` names these as `handler400`, `handler403`, `handler404` and `handler500`.
"""

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.views import defaults

from console.api.problems import answer, problem
from tenants.errors import Refused

API = "/api/"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(API):
        return answer(exception if isinstance(exception, SuspiciousOperation) else SuspiciousOperation())
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(API):
        return answer(exception if isinstance(exception, PermissionDenied) else PermissionDenied())
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(API):
        return answer(exception if isinstance(exception, Http404) else Http404())
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django has logged the exception by now."""
    if request.path.startswith(API):
        return problem(Refused("internal", "Something failed here. It was logged under this request id.", 500))
    return defaults.server_error(request)
