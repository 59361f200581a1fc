"""How long the history of ended runs is kept, and what is left of one that was deleted."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.models import Tenant


class Retention(models.Model):
    """A tenant without a row keeps everything."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    history_days = models.PositiveIntegerField()  # after the end of a run

    class Meta:
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(history_days__gte=1), name="history_kept_a_day")]

    def __str__(self) -> str:
        return f"{self.history_days} days"


class DeletedHistory(models.Model):
    """All that is left of a run. Written by `forget_runs` alone, in the statement that deletes the run's events; append only."""

    run_id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField()
    agent = models.CharField(max_length=64)
    outcome = models.CharField(max_length=24)
    ended_at = models.DateTimeField()
    deleted_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "deleted histories"
