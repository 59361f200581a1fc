"""Who may open a socket and follow what: origin, session, rights. The functions that read are for threads."""

from contextlib import suppress
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.utils.crypto import constant_time_compare

from console.api import runs
from console.api.identity import SESSION_TENANT, actor_for
from console.entry import required
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import User
from tenants.roles import SCOPES
from tenants.scope import ALL, tenant_scope

from . import rows
from .rows import Scope, gives_back

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
PORTS = {"http": 80, "https": 443}
SIGNED_OUT, RIGHTS_CHANGED = 4401, 4403


class Turned(Exception):
    """The socket must end with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def origins() -> set[tuple[str, str, int | None]]:
    """Who may open a socket: PUBLIC_URL and CSRF_TRUSTED_ORIGINS, exactly. Loopback goes by all of its names."""
    allowed = {parts(url) for url in (settings.PUBLIC_URL, *settings.CSRF_TRUSTED_ORIGINS)}
    for scheme, host, port in list(allowed):
        if host in LOOPBACK:
            allowed |= {(scheme, name, port) for name in LOOPBACK}
    return allowed


def parts(url: str) -> tuple[str, str, int | None]:
    split = urlsplit(url)
    return split.scheme, split.hostname or "", split.port or PORTS.get(split.scheme)


def header(scope: dict[str, Any], name: bytes) -> str:
    """The header's value; empty when it is absent or there are several."""
    found = [value for key, value in scope["headers"] if key.lower() == name]
    return found[0].decode("latin1") if len(found) == 1 else ""


def is_ours(origin: str) -> bool:
    try:
        return bool(origin) and parts(origin) in origins()
    except ValueError:
        return False


@gives_back
def signed_in(session_key: str) -> Actor:
    """Who the session is, and with which rights now. Raises Turned."""
    sessions = import_module(settings.SESSION_ENGINE)
    session = sessions.SessionStore(session_key).load() if session_key else {}
    user = User.objects.filter(pk=session[SESSION_KEY], is_active=True).first() if SESSION_KEY in session else None
    known = session.get(BACKEND_SESSION_KEY) in settings.AUTHENTICATION_BACKENDS
    if not user or not known or not constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()):
        raise Turned(SIGNED_OUT)
    if required.owed(user):
        raise Turned(RIGHTS_CHANGED)
    try:
        return actor_for(user, session.get(SESSION_TENANT))
    except Refused:
        raise Turned(RIGHTS_CHANGED) from None


@gives_back
def runs_of(actor: Actor, topics: list[str]) -> dict[str, tuple[UUID, int]]:
    """Topic -> run and its last seq, for those the actor may see."""
    found = {}
    with tenant_scope(actor.tenants):
        for topic in topics:
            with suppress(Refused):
                actor.need("runs:read")
                run = runs.find(actor, topic.removeprefix("run:"))
                found[topic] = run.id, run.seq
    return found


@gives_back
def counted(scope: Scope) -> dict[str, int]:
    with tenant_scope(ALL if scope is None else (scope,)):
        return rows.counts({scope})[scope]


def rights(actor: Actor) -> tuple[Any, ...]:
    return actor.tenant.id, actor.platform_admin, actor.role, *(actor.can(scope) for scope in SCOPES)
