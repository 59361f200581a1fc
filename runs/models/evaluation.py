"""Suites of cases, their evaluations against a release, and the scores of runs."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User

from .release import Release


class Suite(models.Model):
    """Named cases. `revision`: +1 by every change of its cases; `tenants`: who sees it, empty for every tenant."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=64, unique=True)
    description = models.TextField(blank=True, default="")
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)
    revision = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name


class Case(models.Model):
    """One version of a case: `spec` is `runs.evals.cases.CaseSpec.content()`. It holds from revision `since` until before `until`; a
    change ends it and begins another, so that an evaluation always finds the cases it began with.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    suite = models.ForeignKey(Suite, on_delete=models.CASCADE, related_name="cases", db_index=False)
    key = models.CharField(max_length=100)
    version = models.PositiveIntegerField(default=1)
    since = models.PositiveIntegerField()
    until = models.PositiveIntegerField(null=True)  # null: it holds now
    spec = models.JSONField()
    sha256 = models.CharField(max_length=64)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True)  # whose run it was made from; null: written by hand
    run_id = models.UUIDField(null=True)  # that run
    added_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True)
    added_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["suite", "key"], condition=models.Q(until__isnull=True), name="one_case_per_key"),
            models.UniqueConstraint(fields=["suite", "key", "version"], name="one_case_per_version"),
        ]
        indexes: ClassVar = [models.Index(fields=["suite", "id"], name="case_of_suite")]

    def __str__(self) -> str:
        return encode("cas", self.id)


class Evaluation(models.Model):
    """A suite as it was (`revision`, `suite_sha256`) against a release. Its runs change nothing; they belong to `tenant`."""

    class State(models.TextChoices):
        QUEUED = "queued"  # accepted; the jobs cluster starts its runs; a crash leaves it here
        RUNNING = "running"  # runs are started and scored as they end; whoever advances it goes on where another stopped
        DONE = "done"  # every run has a score, and `result` sums them up
        CANCELLED = "cancelled"  # a person did not want to wait; what ran is scored no more
        FAILED = "failed"  # its ceiling has no room for the next run, or a run could not be started; `result` says which

    OPEN = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    suite = models.ForeignKey(Suite, on_delete=models.PROTECT)
    revision = models.PositiveIntegerField()
    suite_sha256 = models.CharField(max_length=64)
    release = models.ForeignKey(Release, on_delete=models.PROTECT)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    repetitions = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    ceiling_micro = models.BigIntegerField()  # millionths of a USD, over all of its runs
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField()
    result = models.JSONField(null=True)  # of runs.evals.summary, or {message}
    started_by = models.ForeignKey(User, on_delete=models.PROTECT)
    at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["release", "-id"], name="evaluation_of_release"),
            models.Index(fields=["id"], condition=models.Q(state__in=["queued", "running"]), name="evaluation_open"),
        ]

    def __str__(self) -> str:
        return encode("evl", self.id)


class Score(models.Model):
    """What the checks say of one run. `measures` null: its run is not over. Without an evaluation: a run of production."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    run_id = models.UUIDField()
    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, null=True, related_name="scores", db_index=False)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, null=True)
    repetition = models.PositiveSmallIntegerField(default=1)
    checks_version = models.PositiveSmallIntegerField()
    measures = models.JSONField(null=True)  # {check: {value, n, at, names}}
    failing = ArrayField(models.CharField(max_length=40), default=list)  # the checks by which its case fails
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run_id", "checks_version"], name="one_score_per_version"),
            models.UniqueConstraint(fields=["evaluation", "repetition", "case"], name="one_run_per_case"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-id"], condition=models.Q(evaluation__isnull=True), name="score_of_production"),
            models.Index(fields=["evaluation", "id"], name="score_of_evaluation"),
        ]

    def __str__(self) -> str:
        return encode("scr", self.id)
