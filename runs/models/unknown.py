"""Writes whose outcome is unknown: the case that is open on each, what was seen too late, and which effects are claimed."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant


class UnknownWrite(models.Model):
    """One case: opened when a write's outcome is unknown, closed by evidence or by a person."""

    class How(models.TextChoices):
        LATE_EVIDENCE = "late_evidence"  # the answer was seen after all, by an engine that no longer owned the run
        VERIFIED = "verified"  # the tool's verify adapter said so
        PERSON = "person"

    class Result(models.TextChoices):
        APPLIED = "applied"
        NOT_APPLIED = "not_applied"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    tool = models.CharField(max_length=128)
    opened_at = models.DateTimeField(db_default=Now())
    next_probe_at = models.DateTimeField(null=True)  # null: no more probes, a person decides
    probes = models.JSONField(default=list)  # [{at, verdict, detail}]
    result = models.CharField(max_length=12, choices=Result.choices, blank=True, default="")  # empty: open
    how = models.CharField(max_length=16, choices=How.choices, blank=True, default="")
    settled_by = models.CharField(max_length=150, blank=True, default="")
    evidence = models.TextField(blank=True, default="")
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run_id", "step", "ord"], condition=models.Q(result=""), name="one_open_case_per_call")
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "-id"], name="unknown_by_tenant")]

    def __str__(self) -> str:
        return self.unknown_id

    @property
    def unknown_id(self) -> str:
        return encode("unk", self.id)


class Observation(models.Model):
    """What a superseded engine still saw of a call. Append only, and not fenced: evidence, never a state."""

    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    tenant_id = models.UUIDField()
    fence = models.BigIntegerField()
    attempt = models.IntegerField()
    applied = models.BooleanField(null=True)  # null: this engine did not know either
    result = models.JSONField(null=True)
    error_class = models.CharField(max_length=24, blank=True, default="")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes: ClassVar = [models.Index(fields=["run_id", "step", "ord"], name="observation_of_call")]


class EffectClaim(models.Model):
    """The call that made (or is making) an effect; a second one in the window is answered `already_applied`."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    tool = models.CharField(max_length=128)
    effect_key = models.CharField(max_length=300)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "tool", "effect_key"], name="one_claim_per_effect")]
