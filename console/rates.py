"""Rate limits of requests: who asks, for what kind of thing, and what a refusal says. The buckets are `tenants.rate_limits`'.

Reads go on where a bucket cannot be asked, so do writes, which need the database anyhow; signing in does not.
"""

import math
import re

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest

from tenants.errors import Refused
from tenants.models import Tenant, User
from tenants.rate_limits import SECONDS, Buckets, Rate, Taken

READ, WRITE, START, SIGN_IN, TENANT = "read", "write", "start", "sign_in", "tenant"
SAFE = ("GET", "HEAD", "OPTIONS")
STARTS = re.compile(r"(?:/api/v1)?/runs(?:|/|/new/|/[^/]+/(?:retry|fork)/?)")
WORDS = {
    READ: "You may read", WRITE: "You may change things", START: "You may start runs", SIGN_IN: "You may try to sign in",
    TENANT: "All keys and people of your tenant together may ask",
}  # fmt: skip
buckets = Buckets()


def kind_of(method: str | None, path: str) -> str:
    if method in SAFE:
        return READ
    return START if STARTS.fullmatch(path) else WRITE


def key(text: str) -> str:
    """A key that was found good, by its id: the secret is no name."""
    return "key " + text.strip().split("_")[1]


def person(user: User) -> str:
    return f"person {user.pk}"


def charge(request: HttpRequest, who: str, tenant: Tenant | None = None) -> None:
    """One request of `who`, a key or a person, and of the tenant that it is made in. Raises Refused 429 `rate_limited`."""
    take(request, kind_of(request.method, request.path), who)
    if tenant is None:
        return
    mine = getattr(request, "rate_limit", None)
    take(request, TENANT, str(tenant.id))  # after their own: who is refused there takes nothing from the others
    if mine is not None:
        request.rate_limit = mine  # type: ignore[attr-defined]


def charge_sign_in(request: HttpRequest) -> None:
    """One try at getting in from an address, whoever it is for. Raises Refused 429, or 503 where nobody can count."""
    take(request, SIGN_IN, str(request.META.get("REMOTE_ADDR", ""))[:64])


def take(request: HttpRequest, kind: str, who: str) -> None:
    per_s = settings.RATE_LIMITS[kind]
    if not per_s:
        return
    rate = Rate(per_s)
    try:
        taken = buckets.take(f"{kind} {who}", rate, fail_open=kind != SIGN_IN)
    except DatabaseError as error:
        raise Refused("rate_limit_unavailable", "Nobody can sign in just now. Try again.", 503, retry_after_s=2) from error
    request.rate_limit = headers(kind, rate, taken)  # type: ignore[attr-defined]
    if not taken.given:
        message = f"{WORDS[kind]} {per_s:g} times a second. Wait as long as Retry-After says."
        raise Refused("rate_limited", message, 429, kind=kind, per_second=per_s, retry_after_s=round(taken.wait_s, 3))


def headers(kind: str, rate: Rate, taken: Taken) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` as the IETF's draft has them: quota and window; what is left, and seconds until there is more."""
    reset = math.ceil(taken.wait_s if not taken.given else max(rate.size - taken.left, 0) / rate.per_s)
    return {
        "RateLimit-Policy": f'"{kind}";q={rate.size};w={SECONDS}',
        "RateLimit": f'"{kind}";r={taken.left};t={reset}',
    }
