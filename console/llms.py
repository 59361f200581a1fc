"""`/llms.txt`: where a language model that reads about this installation finds the documents. Without a sign-in: it says nothing else."""

from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

PLACE = Path(settings.BASE_DIR) / "llms.txt"


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(text(), content_type="text/plain; charset=utf-8")


@cache
def text() -> str:
    """Raises Http404 where the file was not brought along."""
    try:
        return PLACE.read_text()
    except OSError:
        raise Http404 from None
