"""Named workers, and the models that their releases name."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import new_id


class Agent(models.Model):
    """A named worker. `live` is the one release that new runs get; `promote` and `rollback` move it."""

    name = models.CharField(primary_key=True, max_length=64)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant
    live = models.ForeignKey("Release", on_delete=models.PROTECT, null=True, related_name="+")
    canary = models.ForeignKey("Rollout", on_delete=models.SET_NULL, null=True, related_name="+")  # the open one: intake reads it
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """How an endpoint was defined when a release was made. Never changed; its price and credential are those of the definition now."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    model = models.CharField(max_length=64)  # the definition's name, which may be gone
    number = models.PositiveIntegerField()
    content = models.JSONField()  # {provider, base_url, model, tier, timeout_s, retry}
    sha256 = models.CharField(max_length=64)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["model", "number"], name="one_model_version_per_number"),
            models.UniqueConstraint(fields=["model", "sha256"], name="one_model_version_per_content"),
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.number}"


class ModelDefinition(models.Model):
    """An endpoint that speaks a provider's wire. Prices are USD per million tokens; null means unpriced, never free."""

    class Provider(models.TextChoices):
        OPENAI = "openai"
        ANTHROPIC = "anthropic"

    name = models.CharField(primary_key=True, max_length=64)
    provider = models.CharField(max_length=16, choices=Provider.choices)
    base_url = models.CharField(max_length=500)
    model = models.CharField(max_length=200)
    credential = models.CharField(max_length=100, blank=True, default="")
    tier = models.CharField(max_length=32, blank=True, default="")
    price_input = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    price_output = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    timeout_s = models.FloatField(default=30)
    retry = models.JSONField(default=dict, blank=True)
    max_concurrency = models.PositiveIntegerField(null=True, blank=True)  # calls in flight at once, over all engines; null: no limit
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name
