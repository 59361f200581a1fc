"""Sessions of people, tries at getting in, and invitations. All of them are read before the tenant is known."""

from typing import Any, ClassVar

from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models.functions import Now

from tenants.models import Member, Tenant, User


class ConsoleSession(AbstractBaseSession):
    """A browser that somebody uses. Without a person: one that is on its way in, between password and second factor."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="sessions")
    began_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())  # to the minute

    class Meta:
        db_table = "console_session"

    @classmethod
    def get_session_store_class(cls) -> Any:
        from console.entry.sessions import SessionStore

        return SessionStore


class Guess(models.Model):
    """Tries at one account from one address. `account`: a keyed hash, because what is typed there may be a password."""

    account = models.CharField(max_length=64)
    address = models.CharField(max_length=64)
    tries = models.IntegerField()
    since = models.DateTimeField()  # of the first try; once it is locked, of the lock

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["account", "address"], name="one_count_per_account_and_address")]


class Invitation(models.Model):
    """A link by which somebody becomes a member and chooses their password. Works once; only the SHA-256 of its secret is kept."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    username = models.CharField(max_length=150)
    email = models.EmailField(blank=True, default="")
    role = models.CharField(max_length=16, choices=Member.RoleChoice.choices)
    sha256 = models.BinaryField(unique=True)
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="invitations")
    made_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)  # used, or withdrawn
