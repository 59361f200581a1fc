from django.db import models
from django.db.models.functions import Now

from .run import Run


class Event(models.Model):
    """Append only, numbered without a gap per run. `payload` holds the fields of contract section 7 that are not null."""

    pk = models.CompositePrimaryKey("run_id", "seq")
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="events")
    seq = models.BigIntegerField()
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=40)
    payload = models.JSONField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "event"
