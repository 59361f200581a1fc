"""How far telemetry has told of the runs that ended."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class TelemetryExport(models.Model):
    """One row. Every run that ended before `floor` was told or given up; those that ended since are told unless in TelemetrySent.

    One exporter at a time has it, until `lease_until`; one that dies leaves it to the next.
    """

    name = models.CharField(primary_key=True, max_length=20)
    floor = models.DateTimeField()
    lease_until = models.DateTimeField(db_default=Now())
    next_at = models.DateTimeField(db_default=Now())  # not before this: the receiver failed
    failures = models.IntegerField(db_default=0)  # in a row
    batch = models.IntegerField()  # runs at a time; halved while a batch is refused, so that one bad run stands alone in the end
    last_error = models.CharField(max_length=200, blank=True, default="", db_default="")
    failed_at = models.DateTimeField(null=True)
    sent = models.BigIntegerField(db_default=0)  # runs
    sent_at = models.DateTimeField(null=True)
    dropped = models.BigIntegerField(db_default=0)  # runs that were given up: too old, or refused
    dropped_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name


class TelemetrySent(models.Model):
    """A run at or above the floor that is dealt with. A run that committed late, below one that was told, is so still found."""

    run_id = models.UUIDField(primary_key=True)
    ended_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "telemetry sent"
        indexes: ClassVar = [models.Index(fields=["ended_at"], name="telemetry_sent_at")]
