"""Named workers, and the models that their releases name."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Agent(models.Model):
    """A named worker. `live` is the one release that new runs get; `promote` and `rollback` move it."""

    name = models.CharField(primary_key=True, max_length=64)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant
    live = models.ForeignKey("Release", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


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
