"""What became of a drafted call. The draft itself is the call's row: blocked, with its arguments, never sent."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.models import Tenant, User


class DraftDecision(models.Model):
    """A person carried a recommended action out, or put it aside. One per draft."""

    class Verdict(models.TextChoices):
        CARRIED_OUT = "carried_out"  # by the run `action_run`, under the normal permissions and approvals
        DISMISSED = "dismissed"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    verdict = models.CharField(max_length=12, choices=Verdict.choices)
    action_run = models.UUIDField(null=True)
    by = models.ForeignKey(User, on_delete=models.PROTECT)
    reason = models.TextField(blank=True, default="")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run_id", "step", "ord"], name="one_decision_per_draft")]
