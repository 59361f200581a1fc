"""What the console itself remembers."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant


class Examination(models.Model):
    """One look of the doctor at the tables. `findings`: each as console.doctor.Finding; empty: every rule held."""

    at = models.DateTimeField(db_default=Now())
    findings = models.JSONField(default=list)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-at"], name="examination_by_time")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}, {len(self.findings)} findings"


class Delivery(models.Model):
    """One message to the world outside, with what became of it. Sent by the courier (`console.notify`), at least once."""

    class State(models.TextChoices):
        PENDING = "pending"  # waits for `next_at`; a courier leases it, a crash leaves it here
        DELIVERED = "delivered"
        FAILED = "failed"  # given up; a person may send it again

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    kind = models.CharField(max_length=20)  # callback, ...
    event = models.CharField(max_length=60)  # run.succeeded, run.waiting_approval, ...
    run_id = models.UUIDField(null=True)
    url = models.CharField(max_length=2000)
    secret_name = models.CharField(max_length=100)  # the tenant's credential that signs it
    body = models.JSONField()
    state = models.CharField(max_length=10, choices=State.choices, db_default=State.PENDING.value)
    attempts = models.IntegerField(db_default=0)
    next_at = models.DateTimeField(db_default=Now())
    log = models.JSONField(default=list, db_default=[])  # [{at, status, error, ms}], the last twenty
    created_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes: ClassVar = [
            models.Index(fields=["next_at"], condition=models.Q(state="pending"), name="delivery_due"),
            models.Index(fields=["tenant", "-id"], name="delivery_by_tenant"),
            models.Index(fields=["run_id"], name="delivery_of_run"),
        ]

    def __str__(self) -> str:
        return encode("msg", self.id)
