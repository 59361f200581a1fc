"""How a release goes out: shadows of real runs, a share of them, and where runs of a release that was taken back go on."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import User

from .agent import Agent
from .release import Release


class Rollout(models.Model):
    """One trial of a candidate beside the live release of its agent, from its start to its verdict."""

    class Kind(models.TextChoices):
        SHADOW = "shadow"  # real inputs once more on the candidate, which changes nothing
        CANARY = "canary"  # a share of the real runs

    class State(models.TextChoices):
        RUNNING = "running"  # the watch looks at it, and holds or ends it
        HELD = "held"  # its share stays as it is: a guard doubts, or a person wants to look
        PROMOTED = "promoted"
        ROLLED_BACK = "rolled_back"  # by the watch or a person: nothing new goes to the candidate
        ENDED = "ended"  # a shadow that has seen enough, or was stopped

    OPEN = (State.RUNNING, State.HELD)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="rollouts")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    candidate = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    baseline = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING)
    share = models.FloatField()  # of keys (canary) or of runs (shadow), 0 to 1
    steps = ArrayField(models.FloatField(), default=list)  # of a canary: the shares it goes through, when each has enough runs
    key = models.CharField(max_length=8, default="user")  # tenant, user or session: who gets the same release each time
    reads = models.CharField(max_length=8, default="both")  # of a shadow: live, recorded, both
    enough = models.PositiveIntegerField(default=200)  # runs of the candidate at one share before it may go on
    max_cost_micro = models.BigIntegerField(null=True)  # of a shadow: what all its runs may cost
    step_at = models.DateTimeField(db_default=Now())  # when the share was changed last
    verdict = models.JSONField(default=dict)  # what the last look said
    looked_at = models.DateTimeField(null=True)
    started_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    started_at = models.DateTimeField(db_default=Now())
    ended_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # null: the watch
    ended_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True, default="")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["agent", "kind"], condition=models.Q(state__in=["running", "held"]), name="one_open_rollout"),
            models.CheckConstraint(condition=models.Q(share__gte=0, share__lte=1), name="rollout_share"),
        ]

    def __str__(self) -> str:
        return encode("rol", self.id)


class ReleaseMove(models.Model):
    """Runs of a release that was taken back go on with another one, from their next step. One row per release; promoting it removes it."""

    release = models.OneToOneField(Release, on_delete=models.PROTECT, primary_key=True, related_name="+")
    to = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())
