"""Who is at the page: signing in and out, the tenant they look at, and the decorator that every page starts with."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.http import require_POST

from console import step_up
from console.api.identity import SESSION_TENANT, actor_for
from console.pages.shell import LOCAL, SESSION_ZONE, UTC
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import User
from tenants.scope import settle

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]
TITLES = {
    400: "This request makes no sense",
    403: "You may not do this",
    409: "Somebody was faster, or it has changed",
    410: "It is too late for that",
    413: "That is too large",
    422: "That cannot be done like this",
    423: "A switch is off",
    429: "Too many requests",
}


def signed_in(view: View[P]) -> View[P]:
    """The view runs with `request.actor`. Nobody signed in: to the sign-in page and back. No tenant: a page that says so.

    What the view refuses (`Refused`) becomes a page with its sentence; NotFound becomes the page of an unknown address.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return to_sign_in(request)
        try:
            actor = actor_for(user, request.session.get(SESSION_TENANT), getattr(request, "request_id", ""))
        except Refused as refused:
            return refusal(request, refused)
        settle(actor.tenants)
        request.actor = actor  # type: ignore[attr-defined]
        try:
            return view(request, *args, **kwargs)
        except NotFound:
            raise Http404 from None
        except Refused as refused:
            return refusal(request, refused)

    return guarded  # type: ignore[return-value]


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """A redirect for a page; for htmx a header that sends the whole page, since a form must not be put into a region."""
    if not request.headers.get("HX-Request"):
        return HttpResponseRedirect(f"{resolve_url('sign-in')}?{urlencode({'next': request.get_full_path()})}")
    shown = urlsplit(request.headers.get("HX-Current-URL", ""))
    back = f"{shown.path}?{shown.query}" if shown.query else shown.path
    return HttpResponse(status=204, headers={"HX-Redirect": f"{resolve_url('sign-in')}?{urlencode({'next': back or '/'})}"})


def refusal(request: HttpRequest, refused: Refused) -> HttpResponse:
    """What was refused, as a page: the sentence that names the cure, and the request's id."""
    title = "You belong to no tenant" if refused.code == "no_tenant" else TITLES.get(refused.status, "That did not work")
    context = {"refused": refused, "title": title, "request_id": getattr(request, "request_id", "")}
    return render(request, "pages/refused.html", context, status=refused.status)


class SignInForm(AuthenticationForm):
    """One sentence for every failure: whether the name exists is nobody's business."""

    error_messages = dict.fromkeys(("invalid_login", "inactive"), "That username and password do not match.")


class SignIn(LoginView):
    template_name = "pages/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        step_up.note(self.request.session)
        return answer

    def form_invalid(self, form: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=422)


@require_POST
@signed_in
def switch_zone(request: HttpRequest) -> HttpResponse:
    """Times in UTC, or in the zone of the reader's browser; one setting for all pages. Back to where it was asked."""
    request.session[SESSION_ZONE] = UTC if request.session.get(SESSION_ZONE) == LOCAL else LOCAL
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(back if safe else resolve_url("overview"))


@require_POST
@signed_in
def switch_tenant(request: HttpRequest) -> HttpResponse:
    """POST `{tenant: slug}`: look at another tenant. To the overview, because what is open may belong to the old one."""
    wanted = request.POST.get("tenant", "")
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if actor_for(actor.user, wanted).tenant.slug != wanted:
        raise PermissionDenied
    request.session[SESSION_TENANT] = wanted
    return HttpResponseRedirect(resolve_url("overview"))
