"""People's API keys: the only writer beside the admin. Everybody makes keys for themselves; an admin may revoke anybody's.

The plain text is returned once, by `make` and `rotate`, and kept nowhere.
"""

from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from tenants import audit, keys
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import ApiKey, Member
from tenants.roles import SCOPES, Role

from . import allowlists
from .models import KeyAllowlist

MOST = 50  # live keys of a person in a tenant
LASTS = (7, 30, 90, 180, 365)  # days
USUAL_DAYS = 90
OVERLAPS = (1, 24, 168)  # hours in which the old key still works beside the new one


def visible(actor: Actor) -> QuerySet[ApiKey]:
    """Their own in this tenant; to its admins everybody's. The newest first."""
    rows = ApiKey.objects.select_related("member__user", "allowlist").filter(member__tenant=actor.tenant)
    mine = rows if actor.has_role(Role.ADMIN) else rows.filter(member__user=actor.user)
    return mine.order_by("-created_at", "id")


def find(actor: Actor, key_id: str) -> ApiKey:
    found = visible(actor).filter(pk=key_id).first()
    if found is None:
        raise NotFound("API key")
    return found


def live(member: Member) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), member=member, revoked_at=None)


def grantable(actor: Actor) -> list[str]:
    """The scopes that this person has themselves."""
    return [scope for scope in SCOPES if actor.can(scope)]


def may_make(actor: Actor) -> bool:
    return actor.has_role(Role.OPERATOR)


@transaction.atomic
def make(actor: Actor, name: str, scopes: Iterable[str], days: int, networks: Iterable[str] = ()) -> tuple[ApiKey, str]:
    """-> (the key, its plain text). Refuses: role_too_low, scope_missing, not_a_member 403; no_scopes, unknown_scope, bad_expiry,
    bad_network, too_many, name_taken 422."""
    member = own(actor)
    wanted = set(scopes)
    for scope in sorted(wanted.intersection(SCOPES)):
        actor.need(scope)
    if days not in LASTS:
        raise Refused("bad_expiry", f"A key lasts {', '.join(map(str, LASTS))} days. Choose one of them.", 422, field="days")
    if live(member).filter(name=name).exists():
        message = "You have a key of this name. Revoke it, or choose another name: the audit log tells them apart by it."
        raise Refused("name_taken", message, 422, field="name")
    if live(member).count() >= MOST:
        raise Refused("too_many", f"You have {MOST} keys in {actor.tenant.slug}. Revoke one first.", 422)
    return issued(actor, member, name, wanted, timedelta(days=days), allowlists.read(networks))


@transaction.atomic
def rotate(actor: Actor, key: ApiKey, hours: int) -> tuple[ApiKey, str]:
    """A new key like this one; this one works for so many hours more, and no longer than it would have.

    -> (the new key, its plain text). Refuses: not_your_own 403; bad_expiry 422; key_ended, rotated_before 409.
    """
    member = own(actor)
    if key.member_id != member.pk:
        raise Refused("not_your_own", "A key acts as its owner, so only they rotate it. You may revoke it.", 403)
    if hours not in OVERLAPS:
        raise Refused(
            "bad_expiry", f"The old key runs out in {', '.join(map(str, OVERLAPS))} hours. Choose one of them.", 422, field="hours"
        )
    if live(member).filter(name=key.name, created_at__gt=key.created_at).exists():
        raise Refused("rotated_before", "It has been rotated: a newer key has its name. Revoke that one, or rotate that one.", 409)
    now = timezone.now()
    lasts = min(key.expires_at - key.created_at, timedelta(days=max(LASTS))) if key.expires_at else timedelta(days=USUAL_DAYS)
    if not keys.run_out(key, now + timedelta(hours=hours), now):
        raise Refused("key_ended", "It has expired or was revoked. Make a new key.", 409)
    scopes = {scope for scope in key.scopes if actor.can(scope)}
    networks = getattr(getattr(key, "allowlist", None), "networks", [])
    made, text = issued(actor, member, key.name, scopes, lasts, networks)
    audit.append(actor, "apikey.rotated", "apikey", key.pk, None, {"name": key.name, "new": made.pk, "hours": hours})
    return made, text


@transaction.atomic
def revoke(actor: Actor, key: ApiKey) -> bool:
    """False: it was revoked before."""
    done = keys.revoke(key)
    if done:
        audit.append(actor, "apikey.revoked", "apikey", key.pk, None, {"name": key.name})
    return done


@transaction.atomic
def own(actor: Actor) -> Member:
    """Whom a key of theirs would act as. Inside a transaction the row is held: two keys at once are counted one by one."""
    if not may_make(actor):
        message = "A viewer has no keys to make: ask an admin of the tenant for the role operator, or for a key of theirs."
        raise Refused("role_too_low", message, 403)
    member = Member.objects.select_for_update(no_key=True).filter(tenant=actor.tenant, user=actor.user).first()
    if member is None:
        raise Refused("not_a_member", f"A key acts as a member, and you are none of {actor.tenant.slug}. Have an admin add you.", 403)
    return member


def issued(actor: Actor, member: Member, name: str, scopes: Iterable[str], lasts: timedelta, networks: list[str]) -> tuple[ApiKey, str]:
    key, text = keys.issue(member, name, scopes, timezone.now() + lasts)
    if networks:
        KeyAllowlist.objects.create(key=key, networks=networks)
    after = {"member_id": member.pk, "name": name, "scopes": key.scopes, "expires_at": key.expires_at, "networks": networks}
    audit.append(actor, "apikey.created", "apikey", key.pk, None, after)
    return key, text
