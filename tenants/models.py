"""Who is asking: tenants, people, their roles, API keys, the audit trail, egress and sealed credentials."""

import secrets
from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from .ids import new_id
from .roles import Role


def new_secret() -> bytes:
    return secrets.token_bytes(32)


class User(AbstractUser):
    """A person. What they may do comes from their memberships; `is_platform_admin` reaches every tenant."""

    is_platform_admin = models.BooleanField(default=False)


class Tenant(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200, blank=True, default="")
    secret = models.BinaryField(default=new_secret, editable=False)  # keys the idempotency keys of this tenant's calls
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.slug


class Member(models.Model):
    class RoleChoice(models.TextChoices):
        VIEWER = Role.VIEWER.value, "Viewer"
        OPERATOR = Role.OPERATOR.value, "Operator"
        APPROVER = Role.APPROVER.value, "Approver"
        ADMIN = Role.ADMIN.value, "Admin"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="members")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=16, choices=RoleChoice.choices, default=RoleChoice.VIEWER)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "user"], name="one_role_per_tenant")]

    def __str__(self) -> str:
        return f"{self.user.username} in {self.tenant.slug} as {self.role}"


class ApiKey(models.Model):
    """`sbx_<id>_<secret>`: only the SHA-256 of the secret is stored (256 random bits need no slow hash)."""

    id = models.CharField(primary_key=True, max_length=12)
    member = models.ForeignKey(Member, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(max_length=100)
    sha256 = models.BinaryField()
    scopes = ArrayField(models.CharField(max_length=40), default=list)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"sbx_{self.id} ({self.name})"


class RateBucket(models.Model):
    """What is left of somebody's requests, as `tenants.rate_limits` keeps it. Unlogged: a crash fills every bucket."""

    name = models.CharField(primary_key=True, max_length=120)  # kind and who: "read key 0123...", "sign_in 203.0.113.7"
    tokens = models.FloatField()
    given = models.FloatField()  # to whoever asked last
    at = models.DateTimeField()


class AuditEntry(models.Model):
    """Append only (a trigger and the grants refuse everything but INSERT). Holds hashes and references, never free text of runs."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True)  # null: the platform's own chain
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    object_kind = models.CharField(max_length=40)
    object_id = models.CharField(max_length=200)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reason = models.CharField(max_length=1000, blank=True, default="")
    request_id = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-id"], name="audit_by_tenant"),
            models.Index(fields=["tenant", "-at", "-id"], name="audit_by_time"),
        ]
        verbose_name_plural = "audit entries"


class AuditLink(models.Model):
    """An entry's place in its chain. Written when the entry commits, by a trigger and by nobody else; never changed.

    `chain`: the tenant, or `chain.PLATFORM`. `hash` is over `prev` and the entry's canonical line (`tenants.chain`).
    """

    entry = models.OneToOneField(AuditEntry, on_delete=models.PROTECT, primary_key=True, related_name="link")
    chain = models.UUIDField()
    seq = models.BigIntegerField()
    prev = models.BinaryField()
    hash = models.BinaryField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["chain", "seq"], name="one_entry_per_number")]


class AuditHead(models.Model):
    """The last link of a chain, kept by the trigger: a chain that loses its newest entries no longer ends here."""

    chain = models.UUIDField(primary_key=True, editable=False)
    seq = models.BigIntegerField()
    hash = models.BinaryField()


class AuditNote(models.Model):
    """An entry that its transaction is about to link. Empty for everybody else."""

    entry_id = models.BigIntegerField(primary_key=True)


class AuditCheckpoint(models.Model):
    """Signed: at this moment the chain ended here. The key and a copy of each are kept outside of the database."""

    chain = models.UUIDField()
    seq = models.BigIntegerField()
    hash = models.BinaryField()
    at = models.DateTimeField()
    key = models.CharField(max_length=16)  # which key signed: the beginning of the SHA-256 of its public half
    signature = models.BinaryField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["chain", "seq"], name="one_checkpoint_per_number")]


class AuditVerified(models.Model):
    """What the last verification of a chain found. `problem`: the first break, as `chain.Broken`; null: it held.

    A chain too long for one look is walked in several: `walked` and `walked_hash` say where the next one goes on.
    """

    chain = models.UUIDField(primary_key=True, editable=False)
    seq = models.BigIntegerField(default=0)  # the chain held up to here,
    at = models.DateTimeField(db_default=Now())  # then
    problem = models.JSONField(null=True)
    walked = models.BigIntegerField(default=0)
    walked_hash = models.BinaryField(default=bytes)


class EgressAllow(models.Model):
    """A host:port outside the public internet that tools and models may reach. Changed by platform admins only."""

    host_port = models.CharField(max_length=260, unique=True)

    def __str__(self) -> str:
        return self.host_port


class Credential(models.Model):
    """A secret that a run uses in its tenant's name. Sealed at rest, bound to tenant and name, never read back."""

    class Kind(models.TextChoices):
        BEARER = "bearer"
        HEADER = "header"
        BASIC = "basic"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.BEARER)
    header = models.CharField(max_length=100, blank=True, default="")
    sealed = models.BinaryField()
    version = models.PositiveIntegerField(default=1)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "name"], name="one_credential_per_name")]

    def __str__(self) -> str:
        return self.name


class Controls(models.Model):
    """One row per tenant, bumped by every change of a permission, rule, switch or breaker.

    An entry that dispatches carries the `rev` its decision was made under; another `rev` means: decide again.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    rev = models.BigIntegerField(default=1)

    class Meta:
        db_table = "controls"
        verbose_name_plural = "controls"


class IdempotencyRecord(models.Model):
    """What a request with an Idempotency-Key was answered, written in the transaction that did the work."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    endpoint = models.CharField(max_length=100)
    body_sha256 = models.BinaryField()
    object_id = models.UUIDField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "endpoint", "key"], name="one_answer_per_key")]


class Ceiling(models.Model):
    """What a scope may spend in a window, or hold and start at once. No tenant and no agent: the whole installation."""

    class Kind(models.TextChoices):
        COST_DAY = "cost_usd_per_day"  # calendar days and months in UTC; a run counts where it was accepted
        COST_MONTH = "cost_usd_per_month"
        CONCURRENT = "concurrent_runs"  # accepted, not ended, and not waiting for a person
        PER_MINUTE = "runs_per_minute"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True, blank=True)
    agent = models.CharField(max_length=64, blank=True, default="")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    value = models.BigIntegerField()  # millionths of a USD for costs, else a count
    bucket = models.FloatField(null=True, editable=False)  # runs_per_minute: starts left, as of `bucket_at`
    bucket_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "agent", "kind"], name="one_ceiling_per_place", nulls_distinct=False),
            models.CheckConstraint(condition=models.Q(value__gte=0), name="ceiling_not_negative"),
        ]


class Spending(models.Model):
    """One window of a cost ceiling: what accepted runs may still come to, and what ended ones have come to (micro-USD)."""

    ceiling = models.ForeignKey(Ceiling, on_delete=models.CASCADE)
    starts_at = models.DateTimeField()
    reserved_micro = models.BigIntegerField(db_default=0)
    spent_micro = models.BigIntegerField(db_default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["ceiling", "starts_at"], name="one_spending_per_window"),
            models.CheckConstraint(condition=models.Q(reserved_micro__gte=0, spent_micro__gte=0), name="spending_not_negative"),
        ]


class Reservation(models.Model):
    """What one accepted run holds of a window until its settlement is folded in."""

    run_id = models.UUIDField()
    spending = models.ForeignKey(Spending, on_delete=models.CASCADE)
    micro = models.BigIntegerField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run_id", "spending"], name="one_reservation_per_window")]


class Settlement(models.Model):
    """What a run came to. Written by the trigger on its row when it ends, whoever ends it; intake and a job fold it in."""

    run_id = models.UUIDField(primary_key=True)
    spent_micro = models.BigIntegerField()
    at = models.DateTimeField(db_default=Now())
