"""Kill switches: rows that stop work at the next dispatch."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class Switch(models.Model):
    """On until `lifted_at`. A drill stops nothing: it shows what the same switch would have stopped."""

    class Scope(models.TextChoices):
        ALL = "all"  # every run
        TENANT = "tenant"
        AGENT = "agent"
        TOOL = "tool"  # calls of one tool; runs go on without it until they want it
        WRITES = "writes"  # every call that changes something

    class Then(models.TextChoices):
        PAUSE = "pause"  # runs wait until it is lifted
        STOP = "stop"  # runs end as `stopped_by_switch`

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    scope = models.CharField(max_length=8, choices=Scope.choices)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True)  # null: in every tenant
    agent = models.CharField(max_length=64, blank=True, default="")
    tool = models.CharField(max_length=64, blank=True, default="")
    then = models.CharField(max_length=6, choices=Then.choices, default=Then.PAUSE)
    drill = models.BooleanField(default=False)
    reason = models.TextField()
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())
    lifted_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    lifted_at = models.DateTimeField(null=True)
    lift_reason = models.TextField(blank=True, default="")

    class Meta:
        verbose_name_plural = "switches"
        indexes: ClassVar = [models.Index(fields=["id"], condition=models.Q(lifted_at__isnull=True), name="switch_on")]

    def __str__(self) -> str:
        return encode("swi", self.id)
