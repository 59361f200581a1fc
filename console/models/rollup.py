"""What the runs of an hour came to: one row for each tenant, agent and release, and one for each model and tool they called.

A row is computed anew from the runs, calls and events it stands for, and replaced whole: it can be late, never wrong for good.
An hour holds the runs that *started* in it, with all their calls. Histograms: {bucket: count}, see `console.histograms`.
"""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class RunHour(models.Model):
    hour = models.DateTimeField()  # UTC
    tenant_id = models.UUIDField()
    agent = models.CharField(max_length=64)
    release_id = models.UUIDField()
    started = models.IntegerField()
    ended = models.IntegerField()
    states = models.JSONField()  # {state: runs}, of all that started
    outcomes = models.JSONField()  # {outcome: runs}, of those that ended
    budget_exceeded = models.IntegerField()  # ended runs that met a limit of their budget
    fell_back = models.IntegerField()  # ended runs that gave a model up for the next one, or took a rung
    violated = models.IntegerField()  # ended runs with at least one call that policy denied
    rejected = models.IntegerField()  # approvals of these runs that a person rejected
    decided = models.IntegerField()  # approvals of these runs that a person decided
    writes = models.IntegerField()
    cost_micro = models.BigIntegerField()  # of those that ended
    spent_micro = models.BigIntegerField()  # of all that started, so far
    steps_total = models.BigIntegerField()  # of those that ended
    duration_total_ms = models.BigIntegerField()
    unpriced = models.IntegerField()  # runs whose cost is partial
    steps = models.JSONField()  # histogram of steps of the runs that ended
    duration_ms = models.JSONField()  # histogram, acceptance to end
    cost = models.JSONField()  # histogram of micro-USD

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant_id", "hour", "agent", "release_id"], name="one_run_hour")]
        indexes: ClassVar = [models.Index(fields=["hour"], name="run_hour_by_hour")]


class CallHour(models.Model):
    class Kind(models.TextChoices):
        MODEL = "model"
        TOOL = "tool"

    hour = models.DateTimeField()
    tenant_id = models.UUIDField()
    agent = models.CharField(max_length=64)
    release_id = models.UUIDField()
    kind = models.CharField(max_length=5, choices=Kind.choices)
    name = models.CharField(max_length=128)  # the tool's, or the model definition's
    calls = models.IntegerField()  # sent and settled
    errors = models.IntegerField()  # of these; `duplicate_request` is none, an unknown write is one
    unknown = models.IntegerField()
    retried = models.IntegerField()  # calls that were sent more than once
    sends = models.IntegerField()
    denied = models.IntegerField()  # calls that policy refused; not in `calls`
    applied = models.IntegerField()  # writes that took effect
    classes = models.JSONField()  # {error class: calls}
    retry_classes = models.JSONField()  # {error class: times that a retry was scheduled for it}
    latency_ms = models.JSONField()  # histogram
    latency_total_ms = models.BigIntegerField()
    tokens_in = models.BigIntegerField()
    tokens_out = models.BigIntegerField()
    cost_micro = models.BigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant_id", "hour", "agent", "release_id", "kind", "name"], name="one_call_hour")
        ]
        indexes: ClassVar = [models.Index(fields=["hour"], name="call_hour_by_hour")]


class FoldedHour(models.Model):
    """Which hours were counted, and when last."""

    hour = models.DateTimeField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
