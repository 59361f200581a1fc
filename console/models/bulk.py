"""Cancelling or retrying many runs: the exact list that a person saw, and what became of each of them."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class Bulk(models.Model):
    """One act on a frozen list of runs. `tenant` null: the runs are of several tenants, so it is the platform admins' own."""

    class Act(models.TextChoices):
        CANCEL = "cancel"
        RETRY = "retry"

    class State(models.TextChoices):
        DRAFT = "draft"  # shown to its maker, who may start it; one that is not started is deleted after a day
        RUNNING = "running"  # whoever does it goes on from the items that wait; a crash leaves it here
        DONE = "done"  # no item waits
        STOPPED = "stopped"  # a person did not want the rest

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True)
    act = models.CharField(max_length=6, choices=Act.choices)
    state = models.CharField(max_length=7, choices=State.choices, default=State.DRAFT)
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    scopes = models.JSONField(null=True)  # of the key that asked for it; null: a session, not narrowed
    reason = models.CharField(max_length=1000, blank=True, default="")
    words = models.TextField(blank=True, default="")  # the filter that chose them, for people; empty: chosen one by one
    held_up = models.CharField(max_length=300, blank=True, default="")  # why it does not go on now; it does by itself
    total = models.PositiveIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True, default="")  # of the ids in order, one a line
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    stopped_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-id"], name="bulk_by_tenant"),
            models.Index(fields=["id"], condition=models.Q(state="running"), name="bulk_open"),
        ]

    def __str__(self) -> str:
        return encode("blk", self.id)


class BulkItem(models.Model):
    """One run of the list. No foreign key to the run: what became of it is told after the run's history is deleted."""

    class Outcome(models.TextChoices):
        WAITING = "waiting"  # not yet; whoever acts on it locks the row, and its outcome comes with the act or not at all
        DONE = "done"
        ALREADY = "already"  # it had ended
        COULD_NOT = "could_not"
        UNTOUCHED = "untouched"  # the bulk was stopped before

    id = models.BigAutoField(primary_key=True)
    bulk = models.ForeignKey(Bulk, on_delete=models.CASCADE, related_name="items", db_index=False)
    run_id = models.UUIDField()
    was = models.CharField(max_length=24, blank=True, default="")  # the run's state when the list was frozen; empty: no such run
    outcome = models.CharField(max_length=9, choices=Outcome.choices, default=Outcome.WAITING)
    words = models.CharField(max_length=300, blank=True, default="")
    made_id = models.UUIDField(null=True)  # the run that a retry made
    at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["bulk", "run_id"], name="a_run_once_in_a_bulk")]
        indexes: ClassVar = [models.Index(fields=["bulk", "outcome", "run_id"], name="bulk_item_by_outcome")]

    def __str__(self) -> str:
        return encode("agt", self.run_id)
