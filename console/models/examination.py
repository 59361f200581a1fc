"""What the doctor found."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Examination(models.Model):
    """One look of the doctor at the tables. `findings`: each as console.doctor.Finding; empty: every rule held."""

    at = models.DateTimeField(db_default=Now())
    findings = models.JSONField(default=list)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-at"], name="examination_by_time")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}, {len(self.findings)} findings"
