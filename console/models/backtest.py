"""Back-tests of a proposed policy."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class PolicyBacktest(models.Model):
    """A proposed change of the policy, held against the calls of the last days. `result`: of console.backtests.Tally.as_json."""

    class State(models.TextChoices):
        QUEUED = "queued"  # waits for the jobs cluster
        RUNNING = "running"  # its worker counts on; one that died leaves it here, and it may be started again
        DONE = "done"
        CANCELLED = "cancelled"  # a person did not want to wait
        FAILED = "failed"  # what was proposed, or the past, could not be read

    OPEN = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True)  # whose calls; null: of every tenant
    proposal = models.JSONField()
    days = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    done = models.PositiveIntegerField(default=0)  # calls decided again so far
    total = models.PositiveIntegerField(default=0)
    result = models.JSONField(null=True)
    started_by = models.ForeignKey(User, on_delete=models.PROTECT)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-at"], name="backtest_by_time")]

    def __str__(self) -> str:
        return encode("pbt", self.id)
