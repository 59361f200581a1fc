"""Settings > Security: a person's own password, second factors, recovery codes and sessions.

Whatever weakens or widens the door needs a proof of the last five minutes: `console.step_up`.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from console import step_up
from console.entry import factors, invitations, required, sessions
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from .second_factor import proved
from .session import home, signed_in, without_second_factor

SECRET = "totp_secret"  # session key, while an app is being set up
View = Callable[[HttpRequest], HttpResponse]


def proved_lately(view: View) -> View:
    """Asks for the password or the second factor first, and comes back."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if step_up.is_fresh(request.session):
            return view(request)
        return HttpResponseRedirect(f"{resolve_url('security-confirm')}?{urlencode({'next': request.path})}")

    return guarded


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
def page(request: HttpRequest) -> HttpResponse:
    """POST `{act}`: end a session, the other sessions."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method != "POST":
        return shown(request)
    name = request.POST.get("session", "")
    if request.POST.get("act") != "end" and not name:
        raise NotFound("act")
    ended = sessions.end(actor, actor.user, name, keep=request.session.session_key)
    messages.success(request, f"{ended} session{'' if ended == 1 else 's'} ended.")
    return redirect("security")


def shown(request: HttpRequest, status: int = 200, **more: Any) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    user = actor.user
    context = {
        "factors": factors.of(user),
        "codes_left": factors.codes_left(user),
        "owed": required.owed(user),
        "required": required.required(user),
        "sessions": sessions.of(user, request.session.session_key),
        "idle_min": settings.SESSION_IDLE_S // 60,
    }
    return render(request, "pages/entry/security.html", context | more, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
def confirm(request: HttpRequest) -> HttpResponse:
    """That it is still the same person: `{password}`, which holds a code where they have a second factor, or `{passkey}`."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    next_url = request.POST.get("next") or request.GET.get("next", "")
    context: dict[str, Any] = {"next": next_url, "proof": step_up.proof_of(actor.user)}
    if request.method == "POST":
        try:
            prove(request, actor)
            return HttpResponseRedirect(home(request, next_url))
        except Refused as refused:
            if refused.code == "signed_out":
                return redirect("sign-in")
            context["password_error"] = refused.message
    if "webauthn" in required.kinds(actor.user):
        context["passkey"] = json.dumps(factors.to_show(actor.user))
    return render(request, "pages/entry/confirm.html", context, status=422 if "password_error" in context else 200)


def prove(request: HttpRequest, actor: Actor) -> None:
    if request.POST.get("passkey"):
        proved(request, actor.user)
        step_up.note(request.session)
    else:
        step_up.check(request, actor, request.POST.get("password", ""))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
@proved_lately
def password(request: HttpRequest) -> HttpResponse:
    """POST `{new, again}`. Every other session ends."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method != "POST":
        return render(request, "pages/entry/password.html")
    new = request.POST.get("new", "")
    try:
        if new != request.POST.get("again", ""):
            raise Refused("password_differs", "The two are not the same.", 422)
        invitations.strong(new, actor.user)
    except Refused as refused:
        return render(request, "pages/entry/password.html", {"error": refused.message}, status=422)
    with transaction.atomic():
        actor.user.set_password(new)
        actor.user.save(update_fields=["password"])
        audit.append(actor, "password.changed", "user", actor.user.pk)
        sessions.end(actor, actor.user, keep=request.session.session_key, reason="The password was changed.")
    update_session_auth_hash(request, actor.user)
    messages.success(request, "Your password is changed, and your other sessions have ended.")
    return redirect("security")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
@proved_lately
def app(request: HttpRequest) -> HttpResponse:
    """An authenticator app: GET shows a new secret, POST `{code}` proves that the app has it."""
    user, error = request.user, ""
    if request.method == "POST" and (kept := request.session.get(SECRET)):
        first = not required.kinds(user)  # type: ignore[arg-type]
        try:
            factors.add_app(user, factors.opened(kept), request.POST.get("code", "")[:20])  # type: ignore[arg-type]
            del request.session[SECRET]
            return after_factor(request, first)
        except Refused as refused:
            error = refused.message
    secret = factors.opened(request.session.setdefault(SECRET, factors.fresh_secret()))
    context = {"secret": secret, "picture": factors.picture(user, secret), "error": error}  # type: ignore[arg-type]
    return render(request, "pages/entry/app.html", context, status=422 if error else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
@proved_lately
def passkey(request: HttpRequest) -> HttpResponse:
    """GET has what the browser needs, POST `{passkey, name}` what it made."""
    user, error = request.user, ""
    if request.method == "POST":
        first = not required.kinds(user)  # type: ignore[arg-type]
        try:
            factors.add_passkey(user, request.POST.get("name", ""), request.POST.get("passkey", ""))  # type: ignore[arg-type]
            return after_factor(request, first)
        except Refused as refused:
            error = refused.message
    context = {"passkey": json.dumps(factors.to_make(user)), "error": error}  # type: ignore[arg-type]
    return render(request, "pages/entry/passkey.html", context, status=422 if error else 200)


def after_factor(request: HttpRequest, first: bool) -> HttpResponse:
    """Recovery codes with the first one: a lost phone must not be a lost account."""
    messages.success(request, "Added. From now on you are asked for it when you sign in.")
    if not first:
        return redirect("security")
    return render(request, "pages/entry/codes.html", {"codes": factors.fresh_codes(request.user)})  # type: ignore[arg-type]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@without_second_factor
@proved_lately
def codes(request: HttpRequest) -> HttpResponse:
    """POST makes new recovery codes and shows them, this once."""
    if request.method != "POST" or not required.kinds(request.user):  # type: ignore[arg-type]
        return redirect("security")
    return render(request, "pages/entry/codes.html", {"codes": factors.fresh_codes(request.user)})  # type: ignore[arg-type]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@proved_lately
def remove(request: HttpRequest) -> HttpResponse:
    """POST `{factor}`: without it from now on. The last one stays where one is required."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    if request.method != "POST":
        return redirect("security")
    if required.required(actor.user) and len(factors.of(actor.user)) < 2:
        raise Refused("factor_needed", "A second factor is required here: add another before you remove the last.", 409)
    if not factors.remove(actor.user, request.POST.get("factor", "")):
        raise NotFound("second factor")
    messages.success(request, "Removed.")
    return redirect("security")
