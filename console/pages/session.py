"""Who is at the page: signing in and out, the tenant they look at, and the decorator that every page starts with."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.http import require_POST

from console import preferences, rates, step_up
from console.api.identity import SESSION_TENANT, actor_for
from console.api.problems import retry_after
from console.entry import guesses, required, sessions
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import User
from tenants.scope import settle

P = ParamSpec("P")
BACKEND = "django.contrib.auth.backends.ModelBackend"
PENDING = "entering"  # session key: {user, at, way, next} of whoever still owes their second factor
PENDING_S = 600
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
        if required.owed(user) and not getattr(view, "without_second_factor", False):
            return elsewhere(request, resolve_url("security"))
        try:
            actor = actor_for(user, request.session.get(SESSION_TENANT), getattr(request, "request_id", ""))
        except Refused as refused:
            return refusal(request, refused)
        settle(actor.tenants)
        sessions.touch(request)
        request.actor = actor  # type: ignore[attr-defined]
        request.choice = preferences.of(request.session)  # type: ignore[attr-defined]
        try:
            rates.charge(request, rates.person(user), actor.tenant)
            with preferences.shown_as(request.choice):  # type: ignore[attr-defined]
                return view(request, *args, **kwargs)
        except NotFound:
            raise Http404 from None
        except Refused as refused:
            return refusal(request, refused)

    return guarded  # type: ignore[return-value]


def without_second_factor(view: View[P]) -> View[P]:
    """A page that also opens to people who still have to set up their second factor. Inside `signed_in`."""
    view.without_second_factor = True  # type: ignore[attr-defined]
    return view


def to_sign_in(request: HttpRequest) -> HttpResponse:
    back = request.get_full_path()
    if request.headers.get("HX-Request"):
        shown = urlsplit(request.headers.get("HX-Current-URL", ""))
        back = (f"{shown.path}?{shown.query}" if shown.query else shown.path) or "/"
    return elsewhere(request, f"{resolve_url('sign-in')}?{urlencode({'next': back})}")


def elsewhere(request: HttpRequest, address: str) -> HttpResponse:
    """A redirect for a page; for htmx a header that sends the whole page, since a form must not be put into a region."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return HttpResponseRedirect(address)


def refusal(request: HttpRequest, refused: Refused) -> HttpResponse:
    """What was refused, as a page: the sentence that names the cure, and the request's id."""
    title = "You belong to no tenant" if refused.code == "no_tenant" else TITLES.get(refused.status, "That did not work")
    context = {"refused": refused, "title": title, "request_id": getattr(request, "request_id", "")}
    answer = render(request, "pages/refused.html", context, status=refused.status)
    if wait := retry_after(refused):
        answer["Retry-After"] = wait
    return answer


def limits_sign_in(view: Callable[P, HttpResponseBase]) -> Callable[P, HttpResponseBase]:
    """Around a view that lets people in: its POSTs are counted by address before anything is looked at."""

    @wraps(view)
    def counted(*args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        request: HttpRequest = args[0]  # type: ignore[assignment]
        try:
            if request.method == "POST":
                rates.charge_sign_in(request)
        except Refused as refused:
            return refusal(request, refused)
        return view(*args, **kwargs)

    return counted


class SignInForm(AuthenticationForm):
    """One sentence for every failure: whether the name exists is nobody's business."""

    error_messages = dict.fromkeys(("invalid_login", "inactive"), "That username and password do not match.")

    def clean(self) -> Any:
        """Counted first, and compared in any case: a locked account answers like a wrong password, and as late."""
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not username or not password or self.request is None:
            return self.cleaned_data
        account, address = guesses.account_of(username), self.request.META.get("REMOTE_ADDR", "")
        locked = guesses.locked(account, address)
        user = authenticate(self.request, username=username, password=password)
        if locked or not isinstance(user, User):
            raise self.get_invalid_login_error()
        guesses.forget(account, address)
        self.user_cache = user
        return self.cleaned_data


class SignIn(LoginView):
    template_name = "pages/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        provider = settings.OIDC_NAME if settings.OIDC_ISSUER else ""
        return super().get_context_data(provider=provider, refused="refused" in self.request.GET, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        return admitted(self.request, form.get_user(), "password", self.get_success_url())

    def form_invalid(self, form: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=422)


def admitted(request: HttpRequest, user: User, way: str, next_url: str) -> HttpResponse:
    """The first factor was right: in, or on to the second where the person has one."""
    back = home(request, next_url)
    if required.kinds(user):
        request.session.flush()
        request.session[PENDING] = {"user": user.pk, "at": time.time(), "way": way, "next": back}
        return HttpResponseRedirect(resolve_url("second-factor"))
    enter(request, user, way)
    return HttpResponseRedirect(back)


def home(request: HttpRequest, next_url: str) -> str:
    safe = url_has_allowed_host_and_scheme(next_url, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return next_url if safe else resolve_url("overview")


def enter(request: HttpRequest, user: User, way: str) -> None:
    """Signed in, in a session with a new key. Whoever belongs to no tenant is in as well, and reads so."""
    request.session.flush()
    login(request, user, backend=BACKEND)
    agent = request.headers.get("User-Agent", "")[:200]
    said = {sessions.BEGAN: time.time(), sessions.WAY: way, sessions.ADDRESS: request.META.get("REMOTE_ADDR", ""), sessions.AGENT: agent}
    request.session.update(said)
    step_up.note(request.session)
    with suppress(Refused):
        actor = actor_for(user, request_id=getattr(request, "request_id", ""))
        settle(actor.tenants)
        audit.append(actor, "session.began", "user", user.pk, after={"way": way, "address": said[sessions.ADDRESS]})


@require_POST
@signed_in
def switch_zone(request: HttpRequest) -> HttpResponse:
    """Times in UTC, or in the reader's own zone; one setting for all pages. Back to where it was asked."""
    choice: preferences.Choice = request.choice  # type: ignore[attr-defined]
    preferences.save(request.actor.user, in_utc=not choice.in_utc)  # type: ignore[attr-defined]
    return HttpResponseRedirect(home(request, request.POST.get("next", "")))


@require_POST
@signed_in
def switch_theme(request: HttpRequest) -> HttpResponse:
    """POST `{theme}`, from the button in the top bar. Without a script the next one; from the system's that is dark."""
    choice: preferences.Choice = request.choice  # type: ignore[attr-defined]
    following = "light" if choice.theme == "dark" else "dark"
    preferences.save(request.actor.user, theme=request.POST.get("theme") or following)  # type: ignore[attr-defined]
    return HttpResponseRedirect(home(request, request.POST.get("next", "")))


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
