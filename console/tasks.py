"""What the jobs cluster runs for the console. It may run late, twice or never: the overview says when it last did."""

from dataclasses import asdict
from datetime import timedelta

from django.db import connection
from django.db.models.functions import Now
from django_q.models import Schedule

from . import doctor
from .models import Examination

KEPT = timedelta(days=30)


def examine() -> int:
    """Let the doctor look at the tables and keep what it finds; how many findings."""
    found = doctor.examine(connection)
    Examination.objects.create(findings=[asdict(one) for one in found])
    Examination.objects.filter(at__lt=Now() - KEPT).delete()
    return len(found)


def ensure_schedules() -> None:
    """Called by whoever starts the cluster. Safe to repeat: a schedule that exists keeps its next time."""
    defaults = {"func": "console.tasks.examine", "schedule_type": Schedule.HOURLY, "repeats": -1}
    Schedule.objects.update_or_create(name="examine", defaults=defaults)
