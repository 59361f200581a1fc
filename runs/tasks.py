"""What the jobs cluster runs. Each may run late, twice or never: engines notice by themselves what a run needs."""

from django.db.models.functions import Now
from django_q.models import Schedule

from . import ceilings, reminders, signoff
from .models import Canary

EVERY_MINUTE = ("canary", "expire_approvals", "remind", "settle")


def canary() -> None:
    """Proof that the cluster lives; its watchdog reads the row."""
    Canary.objects.update_or_create(name="jobs", defaults={"at": Now()})


def expire_approvals() -> int:
    """Close approvals whose time is over; how many."""
    return signoff.expire_due()


def remind() -> int:
    """Remind people of requests that nobody answers, and escalate those; how many."""
    return reminders.sweep()


def settle() -> int:
    """Fold what ended runs came to into their ceilings; how many."""
    return ceilings.sweep()


def ensure_schedules() -> None:
    """Called by whoever starts the cluster. Safe to repeat: a schedule that exists keeps its next time."""
    for name in EVERY_MINUTE:
        defaults = {"func": f"runs.tasks.{name}", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
        Schedule.objects.update_or_create(name=name, defaults=defaults)
