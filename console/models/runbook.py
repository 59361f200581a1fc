"""Runbooks: what to do about an incident, in Markdown, with a version for every change."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.models import User


class Runbook(models.Model):
    """A name and a pointer to the version that new incidents pin. It belongs to the installation."""

    name = models.CharField(max_length=64, primary_key=True)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant sees it
    current = models.ForeignKey("RunbookVersion", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class RunbookVersion(models.Model):
    """Immutable (a trigger refuses UPDATE and DELETE). `source`: Markdown as console.runbooks.reading takes it."""

    runbook = models.ForeignKey(Runbook, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    title = models.CharField(max_length=200)  # its first heading
    source = models.TextField()
    sha256 = models.CharField(max_length=64)  # of `source`
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # null: a file, or the command line
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["runbook", "number"], name="one_runbook_version_per_number")]

    def __str__(self) -> str:
        return f"{self.runbook_id} v{self.number}"
