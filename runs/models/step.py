from django.db import models
from django.db.models.functions import Now

from .run import Run


class Step(models.Model):
    """One model turn with the tool calls it asked for. Written in the flush that commits the turn."""

    pk = models.CompositePrimaryKey("run_id", "step")
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="steps")
    step = models.IntegerField()
    tenant_id = models.UUIDField()
    role = models.CharField(max_length=16)  # planner, reformulation, synthesis
    model = models.CharField(max_length=64)
    calls = models.IntegerField()  # tool calls it asked for
    at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "step"
