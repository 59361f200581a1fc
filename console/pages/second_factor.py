"""The way in with a second factor, and with a passkey alone."""

import json
import time
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_http_methods

from console.entry import factors, required
from tenants.errors import Refused
from tenants.models import User

from .session import PENDING, PENDING_S, enter, home


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """GET asks; POST `{code}` or `{passkey}`. Whoever has not given their password a moment ago begins anew."""
    pending = request.session.get(PENDING) or {}
    user = User.objects.filter(pk=int(pending.get("user", 0)), is_active=True).first()
    if user is None or not 0 <= time.time() - pending["at"] < PENDING_S:
        return HttpResponseRedirect(resolve_url("sign-in"))
    if request.method != "POST":
        return asked(request, user)
    try:
        proved(request, user)
    except Refused as refused:
        return asked(request, user, refused.message)
    enter(request, user, f"{pending['way']} and second factor")
    return HttpResponseRedirect(home(request, pending["next"]))


def proved(request: HttpRequest, user: User) -> None:
    """Refuses as `factors` does."""
    if said := request.POST.get("passkey", ""):
        factors.shown_passkey(said, user)
    else:
        factors.check(user, request.POST.get("code", "")[:100])


def asked(request: HttpRequest, user: User, error: str = "") -> HttpResponse:
    """A challenge of its own each time: one that was answered is used up."""
    kinds = required.kinds(user)
    context: dict[str, Any] = {"app": "totp" in kinds, "error": error}
    if "webauthn" in kinds:
        context["passkey"] = json.dumps(factors.to_show(user))
    return render(request, "pages/entry/second_factor.html", context, status=422 if error else 200)


@require_http_methods(["GET", "POST"])
def passkey(request: HttpRequest) -> HttpResponse:
    """GET tells the browser what to ask for; POST `{passkey, next}`: in, because a passkey is both factors."""
    if request.method == "GET":
        return JsonResponse(factors.to_show(None))
    try:
        user = factors.shown_passkey(request.POST.get("passkey", ""))
    except Refused:
        return HttpResponseRedirect(f"{resolve_url('sign-in')}?refused=1")
    enter(request, user, "passkey")
    return HttpResponseRedirect(home(request, request.POST.get("next", "")))
