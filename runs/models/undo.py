"""Applied writes that a person had undone."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.models import Tenant, User


class Undo(models.Model):
    """The run that undoes a write. One per call; it is replaced when that run ended without doing it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    tool = models.CharField(max_length=64)  # the one that undoes it
    action_run = models.UUIDField()
    by = models.ForeignKey(User, on_delete=models.PROTECT)
    reason = models.TextField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run_id", "step", "ord"], name="one_undo_per_call")]
