"""What the jobs cluster runs for the console. It may run late, twice or never: the overview says when it last did."""

import logging
from dataclasses import asdict
from datetime import timedelta
from time import monotonic

from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django_q.models import Schedule

from tools.imports import servers
from tools.models import McpServer

from . import backtests, doctor
from .models import Examination, PolicyBacktest

log = logging.getLogger(__name__)
KEPT = timedelta(days=30)
REFRESH_S = 40.0  # of the minute that a task may take; who was not read now is first the next time


def examine() -> int:
    """Let the doctor look at the tables and keep what it finds; how many findings."""
    found = doctor.examine(connection)
    Examination.objects.create(findings=[asdict(one) for one in found])
    Examination.objects.filter(at__lt=Now() - KEPT).delete()
    return len(found)


def refresh_imports() -> int:
    """Read the MCP servers again, the longest unread first, and hold our tools to what they say; how many tools went off."""
    off = 0
    until = monotonic() + REFRESH_S
    for name in McpServer.objects.filter(enabled=True).order_by(F("last_seen_at").asc(nulls_first=True)).values_list("name", flat=True):
        if monotonic() > until:
            break
        off += len(refresh(name).changed)
    return off


def refresh(name: str) -> servers.Seen:
    """One server that cannot even be asked must not keep the others from being read."""
    try:
        return servers.refresh(name)
    except Exception:
        log.exception("the MCP server %s could not be read", name)
        return servers.Seen(name, error="it could not be read")


def backtest(backtest_id: str) -> None:
    """A back-test that a person asked for and that is too large to wait for."""
    found = PolicyBacktest.objects.select_related("tenant").filter(pk=backtest_id).first()
    if found is not None:
        backtests.run(found)


def ensure_schedules() -> None:
    """Called by whoever starts the cluster. Safe to repeat: a schedule that exists keeps its next time."""
    defaults = {"func": "console.tasks.examine", "schedule_type": Schedule.HOURLY, "repeats": -1}
    Schedule.objects.update_or_create(name="examine", defaults=defaults)
    often = {"func": "console.tasks.refresh_imports", "schedule_type": Schedule.MINUTES, "minutes": 5, "repeats": -1}
    Schedule.objects.update_or_create(name="refresh_imports", defaults=often)
