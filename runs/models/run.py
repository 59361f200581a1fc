"""The run's narrow row (updated at every entry), what it was asked, and the engines that own runs."""

from typing import ClassVar

from django.db import models
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Now

from runs.states import DUE, OWNED, RunState
from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class Engine(models.Model):
    """One engine process and its lease: one row to renew, however many runs it drives."""

    id = models.UUIDField(primary_key=True)
    host = models.CharField(max_length=255)
    boot_id = models.CharField(max_length=64)
    pid = models.IntegerField()
    started = models.BigIntegerField()  # process start time in clock ticks since boot: tells a reused pid apart
    lease_until = models.DateTimeField()

    class Meta:
        db_table = "engine"


class Run(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    agent = models.ForeignKey("Agent", on_delete=models.PROTECT, db_index=False)
    release = models.ForeignKey("Release", on_delete=models.PROTECT, db_index=False)
    state = models.CharField(max_length=24, choices=[(s.value, s.value) for s in RunState], db_default=RunState.QUEUED.value)
    mode = models.CharField(max_length=12, db_default="normal")
    fence = models.BigIntegerField(db_default=0)  # +1 by every claim and by everyone who takes a run away from an engine
    entry = models.BigIntegerField(db_default=0)  # number of the last journal entry under this fence
    seq = models.BigIntegerField(db_default=0)  # number of the last event
    owner = models.UUIDField(null=True)  # the engine that holds it
    hold_until = models.DateTimeField(null=True)  # no takeover before this: a write is in flight
    available_at = models.DateTimeField(db_default=Now())
    deadline_at = models.DateTimeField()
    waiting_since = models.DateTimeField(null=True)  # the deadline stands still from here on
    step = models.IntegerField(db_default=0)
    tool_calls = models.IntegerField(db_default=0)
    writes = models.IntegerField(db_default=0)
    tokens_in = models.BigIntegerField(db_default=0)
    tokens_out = models.BigIntegerField(db_default=0)
    cost_micro = models.BigIntegerField(db_default=0)  # millionths of a USD
    reserved_micro = models.BigIntegerField(db_default=0)  # the worst case of the model call in flight
    unpriced = models.BooleanField(db_default=False)  # at least one model call had no known price: the cost is partial
    takeovers = models.IntegerField(db_default=0)
    priority = models.SmallIntegerField(db_default=0)  # 1: somebody waits for the answer
    rungs = models.JSONField(default=list, db_default=[])  # the ladder's rungs taken: [{on, do, step, reason, ...}], oldest first
    paused_by = models.UUIDField(null=True)  # the kill switch that holds it
    cancel_requested = models.BooleanField(db_default=False)
    outcome = models.CharField(max_length=24, null=True)  # noqa: DJ001 - null until terminal, distinct from empty
    stop = models.JSONField(null=True)  # {limit, value, used, by, step}
    last_error = models.JSONField(null=True)
    answer_step = models.IntegerField(null=True)  # the step whose model call is the answer
    starter = models.ForeignKey(User, on_delete=models.PROTECT, null=True, db_index=False)
    created_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "run"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(state__in=[s.value for s in OWNED], owner__isnull=False)
                | (~models.Q(state__in=[s.value for s in OWNED]) & models.Q(owner__isnull=True)),
                name="owned_exactly_while_running",
            )
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["tenant", "-priority", "available_at"], condition=models.Q(state__in=[s.value for s in DUE]), name="run_due"
            ),
            models.Index(fields=["owner"], condition=models.Q(owner__isnull=False), name="run_owner"),
            models.Index(fields=["tenant", "-id"], name="run_by_tenant"),
            models.Index(fields=["tenant", "state", "-id"], name="run_by_state"),
            models.Index(fields=["id"], condition=~models.Q(mode="normal"), name="run_rehearsals"),  # few, and in no rollup
        ]

    def __str__(self) -> str:
        return self.run_id

    @property
    def run_id(self) -> str:
        return encode("agt", self.id)


class RunInput(models.Model):
    """What was asked, apart from the narrow row so that deleting text never breaks the history."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, primary_key=True, related_name="asked")
    text = models.TextField()
    data = models.JSONField(null=True)
    user = models.JSONField(null=True)  # {id, attributes} of the user the run acts for
    session = models.CharField(max_length=128, blank=True, default="")
    metadata = models.JSONField(default=dict)
    limits = models.JSONField()  # the release's budget and deadlines after the caller tightened them
    traceparent = models.CharField(max_length=64, blank=True, default="")
    retry_of = models.UUIDField(null=True)  # the run whose applied writes are answered from their recorded results

    action = models.JSONField(null=True)  # one call decided by a person instead of a model: {kind, tool, args, of}
    callback = models.JSONField(null=True)  # {url, secret_name}
    rehearsal = models.JSONField(null=True)  # it changes nothing: {kind, reads, of?, mode?, results?, ...}, see runs.rehearsals
    fork = models.JSONField(null=True)  # {of, step, labels}: the run whose steps before `step` it was given, and their taint
    input_key = models.CharField(max_length=64, db_default="")  # sha256 of the normalised question; empty: never answered from cache

    class Meta:
        db_table = "run_input"
        indexes: ClassVar = [
            models.Index(fields=["input_key"], condition=~models.Q(input_key=""), name="run_input_key"),
            models.Index(fields=["retry_of"], condition=models.Q(retry_of__isnull=False), name="run_input_retry_of"),
            *(
                models.Index(KeyTextTransform(what, "rehearsal"), condition=models.Q(rehearsal__isnull=False), name=f"run_input_{what}")
                for what in ("of", "rollout", "evaluation")
            ),
        ]


class Canary(models.Model):
    """The jobs cluster proves that it lives by touching a row."""

    name = models.CharField(primary_key=True, max_length=40)
    at = models.DateTimeField()
