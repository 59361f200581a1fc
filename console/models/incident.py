"""Detectors, the incidents they and people open, and what happened in each."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class Severity(models.TextChoices):
    CRITICAL = "critical", "Critical"
    MAJOR = "major", "Major"
    MINOR = "minor", "Minor"


class Detector(models.Model):
    """Looks for one kind of trouble. `parameters`: of console.incidents.parameters.Parameters; what they mean is the kind's to say."""

    class Kind(models.TextChoices):
        TOOL_ERRORS = "tool_errors", "A tool fails too often"
        STEPS_PER_RUN = "steps_per_run", "Runs take more steps"
        COST_PER_RUN = "cost_per_run", "Runs cost more"
        FALLBACK_RATE = "fallback_rate", "More runs fall back"
        BUDGET_EXCEEDED = "budget_exceeded", "More runs meet their budget"
        DUPLICATE_WRITES = "duplicate_writes", "The same write is made twice"
        DUPLICATE_ANSWERS = "duplicate_answers", "More writes are answered as made already"
        RETRY_CASCADE = "retry_cascade", "Calls are sent again and again"
        UNKNOWN_OUTCOMES = "unknown_outcomes", "Writes wait whose outcome is unknown"
        APPROVALS_AGEING = "approvals_ageing", "Approvals wait too long"
        PROVIDER_DEGRADED = "provider_degraded", "A model provider is degraded"
        PROVIDER_SLOW = "provider_slow", "A model provider is slow"
        AUDIT_CHAIN = "audit_chain", "The audit trail does not verify"
        RELEASE_GUARD = "release_guard", "A release under watch is worse"  # opened by the rollout, never by a look

    name = models.CharField(max_length=64, primary_key=True)
    kind = models.CharField(max_length=24, choices=Kind.choices)
    enabled = models.BooleanField(default=True)
    severity = models.CharField(max_length=8, choices=Severity.choices, default=Severity.MAJOR)
    runbook = models.CharField(max_length=64, blank=True, default="")  # its name; the version is pinned when an incident opens
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant
    parameters = models.JSONField(default=dict, blank=True)

    def __str__(self) -> str:
        return self.name


class Incident(models.Model):
    """Something is wrong and somebody sees to it. At most one that is not resolved for each fingerprint of a tenant."""

    class State(models.TextChoices):
        OPEN = "open", "Open"  # nobody has it yet; a person acknowledges it, a person or its detector resolves it
        ACKNOWLEDGED = "acknowledged", "Acknowledged"  # its owner works on it; it is resolved as an open one is
        RESOLVED = "resolved", "Resolved"  # over; a person may reopen it, its detector only one that no person resolved

    LIVE = (State.OPEN, State.ACKNOWLEDGED)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True)  # null: the platform's own
    detector = models.CharField(max_length=64, blank=True, default="")  # its name; empty: opened by hand
    fingerprint = models.CharField(max_length=200, blank=True, default="")  # detector and subject; empty: by hand
    title = models.CharField(max_length=200)
    severity = models.CharField(max_length=8, choices=Severity.choices)
    state = models.CharField(max_length=12, choices=State.choices, default=State.OPEN)
    owner = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    subject = models.JSONField(default=dict)  # {tool} or {agent} or {model} or {release, agent}; empty: the whole tenant
    evidence = models.JSONField(default=dict)  # frozen when it opened, see console.incidents.evidence
    runbook = models.CharField(max_length=64, blank=True, default="")
    runbook_version = models.IntegerField(null=True)
    value = models.FloatField(null=True)  # the last one that the detector saw
    worst = models.FloatField(null=True)
    seen_at = models.DateTimeField(null=True)  # when its finding last stood
    clear_since = models.DateTimeField(null=True)  # since when the value is under the clear ratio
    reopened = models.IntegerField(default=0)
    opened_at = models.DateTimeField(db_default=Now())
    opened_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # null: a detector
    acknowledged_at = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # null: its detector

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant", "fingerprint"],
                condition=models.Q(state__in=["open", "acknowledged"]) & ~models.Q(fingerprint=""),
                nulls_distinct=False,
                name="one_live_incident",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-id"], name="incident_by_tenant"),
            models.Index(fields=["tenant"], condition=models.Q(state__in=["open", "acknowledged"]), name="incident_live"),
            models.Index(fields=["fingerprint", "-id"], name="incident_by_fingerprint"),
        ]

    def __str__(self) -> str:
        return encode("inc", self.id)

    @property
    def live(self) -> bool:
        return self.state in self.LIVE


class IncidentEntry(models.Model):
    """One line of an incident's log, of people and of the machine. Append only."""

    class Kind(models.TextChoices):
        OPENED = "opened"
        ACKNOWLEDGED = "acknowledged"
        ASSIGNED = "assigned"
        NOTE = "note"
        ACTION = "action"  # a person did something about it from its page; `data`: {action, object_kind, object_id, ...}
        STEP_TICKED = "step_ticked"  # `data`: {step, done}
        VALUE = "value"  # it got worse; `data`: {value}
        CHANGED = "changed"  # severity; `data`: {field, before, after}
        RESOLVED = "resolved"
        REOPENED = "reopened"

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="entries")
    at = models.DateTimeField(db_default=Now())
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # null: the machine
    kind = models.CharField(max_length=12, choices=Kind.choices)
    text = models.TextField(blank=True, default="")
    data: "models.JSONField[Any, Any]" = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "incident entries"
        indexes: ClassVar = [models.Index(fields=["incident", "id"], name="entry_of_incident")]


class IncidentRun(models.Model):
    """A run that an incident touched, found when it opened; at most console.incidents.evidence.RUNS of them."""

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="runs")
    run_id = models.UUIDField()
    value = models.FloatField(null=True)  # what was bad about it, in the detector's unit; null: it only met it

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["incident", "run_id"], name="one_run_of_incident")]
