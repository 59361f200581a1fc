"""Notes who has had which request on their screen: reviewer health asks how long people look. Never decides anything."""

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse

from approvals import past
from tenants.ids import decode


def noted(view: Callable[[HttpRequest, str], HttpResponse]) -> Callable[[HttpRequest, str], HttpResponse]:
    """Around the page of one request. Parts that a page fetches again are no opening."""

    @wraps(view)
    def shown(request: HttpRequest, approval_id: str) -> HttpResponse:
        answer = view(request, approval_id)
        actor = getattr(request, "actor", None)
        if actor is not None and request.method == "GET" and answer.status_code == 200 and "part" not in request.GET:
            past.opened(actor.user, decode("apr", approval_id))
        return answer

    return shown
