"""What an agent may touch: tools, their immutable versions, and the permissions people edit."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import new_id
from tenants.models import Tenant


class Tool(models.Model):
    """A name and a pointer to the version that new releases pin. `enabled` off refuses every call, also of running runs."""

    name = models.CharField(primary_key=True, max_length=64)
    enabled = models.BooleanField(default=True)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant sees it
    current = models.ForeignKey("ToolVersion", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class ToolVersion(models.Model):
    """Immutable (a trigger refuses UPDATE and DELETE); `sha256` pins name, description, effect, schemas and endpoint."""

    class EffectChoice(models.TextChoices):
        READ = "read"
        WRITE = "write"
        IRREVERSIBLE = "irreversible"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tool = models.ForeignKey(Tool, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    description = models.TextField()
    effect = models.CharField(max_length=16, choices=EffectChoice.choices)
    idempotency = models.CharField(max_length=8, default="none")
    adapter = models.JSONField()
    input_schema = models.JSONField()
    output_schema = models.JSONField(null=True)
    timeout_s = models.FloatField()
    retry = models.JSONField(default=dict)
    labels = ArrayField(models.CharField(max_length=40), default=list)
    duplicate_when = models.TextField(blank=True, default="")
    credential = models.CharField(max_length=100, blank=True, default="")
    verify = models.JSONField(null=True)
    effect_key = models.CharField(max_length=200, blank=True, default="")
    effect_window_s = models.FloatField(default=86400)
    idempotency_window_s = models.FloatField(default=23 * 3600)
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tool", "number"], name="one_version_per_number")]

    def __str__(self) -> str:
        return f"{self.tool_id} v{self.number}"


class Permission(models.Model):
    """Tool x tenant x agent -> decision. Rows tighten the effect's default; only an admin's row with `loosen` widens it."""

    class Decision(models.TextChoices):
        ALLOW = "allow"
        ASK = "ask"
        DRAFT = "draft"  # not sent: kept and shown as a recommended action
        DENY = "deny"

    tool = models.ForeignKey(Tool, on_delete=models.CASCADE, related_name="permissions")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True, blank=True)  # null: every tenant
    agent = models.CharField(max_length=64, blank=True, default="")  # empty: every agent
    user_role = models.CharField(max_length=64, blank=True, default="")  # role of the user the run acts for
    decision = models.CharField(max_length=8, choices=Decision.choices)
    approvers = models.PositiveSmallIntegerField(default=1)
    when = models.TextField(blank=True, default="")  # CEL over args, call, run, now
    loosen = models.BooleanField(default=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tool", "tenant", "agent", "user_role", "when"],
                name="one_permission_per_place",
                nulls_distinct=False,
            ),
            models.CheckConstraint(condition=models.Q(approvers__gte=1, approvers__lte=9), name="approvers_1_to_9"),
        ]

    def __str__(self) -> str:
        return f"{self.decision} {self.tool_id} for {self.agent or 'every agent'}"
