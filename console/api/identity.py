"""Who is asking over HTTP: an API key (Bearer) or the console's session. Both end in a `tenants.actors.Actor`."""

from dataclasses import replace
from functools import partial
from typing import Any

from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.request import Request

from console import allowlists, rates
from console.entry import required, sessions
from tenants import keys
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import Tenant, User
from tenants.roles import Role
from tenants.scope import settle

SESSION_TENANT = "tenant"  # session key: the slug of the tenant that a person looks at


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sbx_…`. A key that is presented and bad is refused, never passed over for a session."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        actor = _by_key(request._request)
        return (actor.user, actor) if actor else None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class ConsoleSession(BaseAuthentication):
    """The session of a signed-in person. Anything but a read needs the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Actor] | None:
        actor = _by_session(request._request)
        return (actor.user, actor) if actor else None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def actor_of(request: HttpRequest) -> Actor:
    """For plain views; from asynchronous ones through `sync_to_async`. The view may be `csrf_exempt`: it is checked here.

    Raises Refused 401 `unauthorized`, 403 `csrf_failed` or `no_tenant`.
    """
    actor = _by_key(request) or _by_session(request)
    if actor is None:
        raise Refused("unauthorized", "Sign in, or send an API key: Authorization: Bearer sbx_…", 401)
    return actor


def actor_for(user: User, wanted: str | None = None, request_id: str = "") -> Actor:
    """A signed-in person in the tenant with slug `wanted`, else in the first they belong to.

    A platform admin may look at any tenant and needs no membership. Raises Refused 403 `no_tenant`.
    """
    belongs = user.memberships.select_related("tenant").filter(tenant__active=True).order_by("id")
    memberships = {member.tenant.slug: member for member in belongs}
    member = memberships.get(wanted or "")
    if member is None and user.is_platform_admin and wanted:
        tenant = Tenant.objects.filter(active=True, slug=wanted).first()
        if tenant:
            return Actor(user, tenant, Role.ADMIN, request_id=request_id)
    member = member or next(iter(memberships.values()), None)
    if member:
        return Actor(user, member.tenant, member.role, request_id=request_id)
    tenant = Tenant.objects.filter(active=True).order_by("created_at", "id").first() if user.is_platform_admin else None
    if tenant is None:
        raise Refused("no_tenant", "You belong to no active tenant. Ask an admin to add you.", 403)
    return Actor(user, tenant, Role.ADMIN, request_id=request_id)


def _by_key(request: HttpRequest) -> Actor | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    allows = partial(allowlists.admits, request.META.get("REMOTE_ADDR", ""))
    actor = keys.verify(token.strip(), beside="allowlist", allows=allows)
    actor = known(replace(actor, request_id=getattr(request, "request_id", "")))
    rates.charge(request, rates.key(token), actor.tenant)
    return actor


def _by_session(request: HttpRequest) -> Actor | None:
    user = getattr(request, "user", None)
    if not isinstance(user, User) or not user.is_active:
        return None
    _check_csrf(request)
    if required.owed(user):
        raise Refused("second_factor_needed", "Set up a second factor first, under Settings > Security.", 403)
    sessions.touch(request)
    actor = known(actor_for(user, request.session.get(SESSION_TENANT), getattr(request, "request_id", "")))
    rates.charge(request, rates.person(user), actor.tenant)
    return actor


def known(actor: Actor) -> Actor:
    """From here on the request sees the rows of this actor's tenants."""
    settle(actor.tenants)
    return actor


def _check_csrf(request: HttpRequest) -> None:
    """Reads pass; so does a request that the middleware has checked."""
    check = CSRFCheck(lambda _: None)  # type: ignore[arg-type]
    check.process_request(request)
    if check.process_view(request, None, (), {}):  # type: ignore[arg-type]
        raise Refused("csrf_failed", "The CSRF token is missing or wrong: load the page again.", 403)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "sbx_<id>_<secret>"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ConsoleSession
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
