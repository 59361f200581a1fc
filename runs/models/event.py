from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models.functions import Now

from .run import Run


class Event(models.Model):
    """Append only, numbered without a gap per run. `payload` holds the fields of contract section 7 that are not null.

    Rows arrive in the order of `at`, so a BRIN index finds a stretch of time, and costs a row that is written next to nothing.
    """

    pk = models.CompositePrimaryKey("run_id", "seq")
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="events")
    seq = models.BigIntegerField()
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=40)
    payload = models.JSONField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "event"
        indexes = (BrinIndex(fields=["at"], name="event_at", pages_per_range=32),)
