"""Channels, and the messages that leave by them."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant


class Channel(models.Model):
    """Where a tenant is told of what happens. `url_secret`: the credential that holds the address, where knowing it is enough to post."""

    class Kind(models.TextChoices):
        WEBHOOK = "webhook", "Webhook"
        SLACK = "slack", "Slack"
        TEAMS = "teams", "Microsoft Teams"
        EMAIL = "email", "E-mail"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=64)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    url = models.CharField(max_length=2000, blank=True, default="")
    url_secret = models.CharField(max_length=100, blank=True, default="")
    addresses = ArrayField(models.CharField(max_length=254), default=list, blank=True)  # of e-mail
    secret_name = models.CharField(max_length=100, blank=True, default="")  # the tenant's credential that signs; empty: unsigned
    events = ArrayField(models.CharField(max_length=60), default=list)  # of console.notices.EVENTS
    template = models.JSONField(null=True)  # what is posted instead, with {placeholders} in its texts
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "name"], name="one_channel_per_name")]

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One message to the world outside, with what became of it. Sent by the courier (`console.notify`), at least once."""

    class State(models.TextChoices):
        PENDING = "pending"  # waits for `next_at`; a courier leases it, a crash leaves it here
        DELIVERED = "delivered"
        FAILED = "failed"  # given up; a person may send it again

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    channel = models.ForeignKey(Channel, on_delete=models.SET_NULL, null=True, related_name="deliveries")  # null: a run's own callback
    kind = models.CharField(max_length=20)  # callback, or the kind of its channel
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
