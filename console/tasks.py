"""What the jobs cluster runs for the console. It may run late, twice or never: the overview says when it last did."""

import logging
from dataclasses import asdict
from datetime import timedelta
from time import monotonic

from django.conf import settings
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django_q.models import Schedule

from runs.evals import scoring
from tenants import rate_limits, verification
from tenants.chain import Broken
from tools.imports import servers
from tools.models import McpServer

from . import audit_health, backtests, bulk_work, doctor, retention
from .entry.sessions import SessionStore
from .models import Examination, PolicyBacktest

log = logging.getLogger(__name__)
KEPT = timedelta(days=30)
VERIFY_S = 40.0  # a longer trail is walked in several turns
PRUNE_S = 40.0  # what is left goes the next day, or by `manage.py prune`
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


def bulk(bulk_id: str) -> None:
    """Runs that a person cancels or retries together. One that is delivered twice finds nothing left to do."""
    bulk_work.work(bulk_id)


def checkpoint_audit() -> int:
    """Sign where the chains of the audit trail end now; how many were not signed because they do not hold."""
    return told_broken(verification.checkpoint())


def verify_audit() -> int:
    """Walk the audit trail and keep what was found; how many chains do not hold."""
    until = monotonic() + VERIFY_S
    return told_broken(audit_health.verify(lambda: monotonic() > until))


def told_broken(found: list[Broken]) -> int:
    for one in found:
        log.error("audit chain %s is broken at entry %d: %s. %s", one.chain, one.seq, one.what, one.cure)
    return len(found)


def prune() -> int:
    """Delete what is older than its tenant keeps it, and sessions that are over and buckets that are full; how many runs went."""
    SessionStore.clear_expired()
    rate_limits.forget()
    until = monotonic() + PRUNE_S
    return retention.prune(stop=lambda: monotonic() > until).runs


def score_runs() -> int:
    """Score a share of the runs that have ended; how many."""
    return scoring.sweep(settings.SCORE_SHARE)


def ensure_schedules() -> None:
    """Called by whoever starts the cluster. Safe to repeat: a schedule that exists keeps its next time."""
    defaults = {"func": "console.tasks.examine", "schedule_type": Schedule.HOURLY, "repeats": -1}
    Schedule.objects.update_or_create(name="examine", defaults=defaults)
    often = {"func": "console.tasks.refresh_imports", "schedule_type": Schedule.MINUTES, "minutes": 5, "repeats": -1}
    Schedule.objects.update_or_create(name="refresh_imports", defaults=often)
    sign = {"func": "console.tasks.checkpoint_audit", "schedule_type": Schedule.MINUTES, "minutes": 5, "repeats": -1}
    Schedule.objects.update_or_create(name="checkpoint_audit", defaults=sign)
    walk = {"func": "console.tasks.verify_audit", "schedule_type": Schedule.HOURLY, "repeats": -1}
    Schedule.objects.update_or_create(name="verify_audit", defaults=walk)
    daily = {"func": "console.tasks.prune", "schedule_type": Schedule.DAILY, "repeats": -1}
    Schedule.objects.update_or_create(name="prune", defaults=daily)
    minutely = {"func": "console.tasks.score_runs", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    Schedule.objects.update_or_create(name="score_runs", defaults=minutely)
