"""Settings > Members: who belongs to the tenant, who is invited, and what an admin may do for somebody who cannot get in."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.views.decorators.http import require_http_methods

from console.entry import factors, guesses, invitations, sessions
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Member, User
from tenants.roles import ORDER

from .session import enter, signed_in

Context = dict[str, Any]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """POST `{act}`: invite, withdraw, end (sessions), unlock, reset (second factors)."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:write")
    if request.method != "POST":
        return shown(request, actor)
    if request.POST.get("act") == "invite":
        return invite(request, actor)
    messages.success(request, done(actor, request.POST.get("act", ""), request.POST))
    return redirect("members")


def invite(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The link is shown in the answer and nowhere again."""
    said = request.POST
    try:
        made, secret = invitations.make(actor, said.get("username", ""), said.get("email", ""), said.get("role", ""))
    except Refused as refused:
        return shown(request, actor, 422, typed=said, error=refused.message, wrong=refused.fields.get("field"))
    return shown(request, actor, link=settings.PUBLIC_URL + resolve_url("invitation", secret), invited=made)


def done(actor: Actor, act: str, said: Any) -> str:
    """-> the sentence that says so. Raises NotFound for what is not there."""
    if act == "withdraw":
        if not invitations.withdraw(actor, said.get("invitation", "")):
            raise NotFound("invitation")
        return "The invitation is withdrawn: its link opens nothing."
    key = said.get("member", "")
    member = Member.objects.select_related("user").filter(tenant=actor.tenant, pk=int(key) if key.isdigit() else 0).first()
    if member is None or act not in ("end", "unlock", "reset"):
        raise NotFound("member")
    user = member.user
    if act == "unlock":
        return f"{user.username} may try again." if guesses.unlock(actor, user) else f"{user.username} was not locked out."
    if act == "reset":
        reset(actor, user)
        return f"{user.username} has no second factor any more, and no session."
    ended = sessions.end(actor, user, reason="Ended by an admin.")
    return f"{ended} session{'' if ended == 1 else 's'} of {user.username} ended."


def reset(actor: Actor, user: User) -> None:
    """For a lost phone. Only of people who are nobody elsewhere: their door is not this tenant's alone."""
    elsewhere = user.is_platform_admin or user.memberships.exclude(tenant=actor.tenant).exists()
    if elsewhere and not actor.platform_admin:
        raise Refused("not_yours_alone", f"{user.username} also belongs elsewhere: ask a platform admin.", 403)
    if user.pk == actor.user.pk:
        raise Refused("not_your_own", "Your own second factors are under Settings > Security.", 422)
    factors.reset(user)
    audit.append(actor, "second_factor.reset", "user", user.pk)
    sessions.end(actor, user, reason="The second factors were reset.")


def shown(request: HttpRequest, actor: Actor, status: int = 200, **more: Any) -> HttpResponse:
    members = Member.objects.select_related("user").filter(tenant=actor.tenant).order_by("user__username")[:500]
    context: Context = {
        "members": [row(member) for member in members],
        "invitations": invitations.open_ones(actor.tenant)[:100],
        "roles": [(role.value, role.name.capitalize()) for role in ORDER],
    }
    return render(request, "pages/entry/members.html", context | more, status=status)


def row(member: Member) -> Context:
    user = member.user
    return {
        "member": member,
        "factors": len(factors.of(user)),
        "sessions": sessions.live(user).count(),
        "locked": guesses.is_locked(user),
    }


@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Whoever has the link: GET asks for a password, POST `{new, again}` makes the member and lets them in."""
    try:
        found = invitations.find(secret)
    except NotFound:
        return render(request, "pages/entry/invitation_over.html", status=404)
    if request.method != "POST":
        return render(request, "pages/entry/invitation.html", {"invitation": found})
    try:
        if request.POST.get("new", "") != request.POST.get("again", ""):
            raise Refused("password_differs", "The two are not the same.", 422)
        user = invitations.accept(secret, request.POST.get("new", ""))
    except NotFound:
        return render(request, "pages/entry/invitation_over.html", status=404)
    except Refused as refused:
        return render(request, "pages/entry/invitation.html", {"invitation": found, "error": refused.message}, status=422)
    enter(request, user, "invitation")
    return HttpResponseRedirect(resolve_url("overview"))
