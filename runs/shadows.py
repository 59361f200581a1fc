"""Shadows: real runs that have ended, once more on a candidate that changes nothing. Launched by a job, never by intake."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Now

from tenants.errors import Refused
from tenants.ids import encode

from . import rehearsing, stages
from .models import Rollout, Run, RunInput
from .rehearsals import MODES
from .rollouts import takes_candidate

JSON = dict[str, Any]
AT_ONCE = 50  # launched in one look
MARGIN = timedelta(minutes=2)  # for transactions that commit late
# By the time of their last event, whose index is small: runs end in another order than they begin.
ENDED = """
select r.id from event e join run r on r.id = e.run_id
where e.at >= %(since)s and e.kind = 'run_completed' and r.agent_id = %(agent)s and r.release_id = %(baseline)s and r.mode <> all(%(modes)s)
  and r.created_at >= %(began)s and not exists (
    select from run_input i where i.rehearsal->>'of' = r.id::text and i.rehearsal->>'rollout' = %(rollout)s)
order by r.id limit %(most)s
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A real run and its shadow."""

    base: Run
    shadow: Run


def launch() -> int:
    """Start what is due, for every open shadow; how many runs."""
    found = Rollout.objects.select_related("candidate", "agent").annotate(now=Now())
    return sum(launch_for(rollout) for rollout in found.filter(kind=Rollout.Kind.SHADOW, state=Rollout.State.RUNNING))


def launch_for(rollout: Rollout) -> int:
    if rollout.max_cost_micro is not None and spent(rollout) >= rollout.max_cost_micro:
        stages.end(None, rollout, Rollout.State.ENDED, "Its budget is used up.")
        return 0
    due = [run_id for run_id in ended(rollout) if takes_candidate(str(rollout.id), str(run_id), rollout.share)]
    started = sum(start(rollout, Run.objects.select_related("tenant", "asked").get(pk=run_id)) for run_id in due)
    Rollout.objects.filter(pk=rollout.pk).update(looked_at=rollout.now)  # type: ignore[attr-defined]
    return started


def ended(rollout: Rollout) -> list[UUID]:
    since = max(rollout.started_at, (rollout.looked_at or rollout.started_at) - MARGIN)
    values: JSON = {
        "since": since, "agent": rollout.agent_id, "baseline": rollout.baseline_id, "modes": list(MODES), "began": rollout.started_at,
        "rollout": str(rollout.id), "most": AT_ONCE * 20,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(ENDED, values)
        return [run_id for (run_id,) in cursor.fetchall()]


def start(rollout: Rollout, base: Run) -> bool:
    """False: it cannot run now (a switch, a ceiling); the real run is not touched by that."""
    if base.starter is None or base.asked.action is not None:
        return False
    asked = rehearsing.same_question(base.asked, shadow_of=encode("agt", base.id))
    about = {"kind": "shadow", "reads": rollout.reads, "mode": base.mode, "of": str(base.id), "rollout": str(rollout.id)}
    try:
        rehearsing.accept(asked, tenant=base.tenant, release=rollout.candidate, starter=base.starter, **about)  # type: ignore[arg-type]
    except Refused:
        return False
    return True


def shadows_of(rollout: Rollout) -> "QuerySet[Run]":
    """Newest first."""
    ids = RunInput.objects.filter(rehearsal__rollout=str(rollout.id)).values("run_id")
    return Run.objects.filter(id__in=ids).select_related("asked", "release").order_by("-id")


def spent(rollout: Rollout) -> int:
    """Micro-USD, with what runs in flight may still come to."""
    ids = RunInput.objects.filter(rehearsal__rollout=str(rollout.id)).values("run_id")
    total: Decimal | int | None = Run.objects.filter(id__in=ids).aggregate(all=Sum(F("cost_micro") + F("reserved_micro")))["all"]
    return int(total or 0)


def pairs(rollout: Rollout, limit: int = 200) -> list[Pair]:
    """Ended shadows with their real runs, newest first."""
    shadows = {run: UUID((run.asked.rehearsal or {})["of"]) for run in shadows_of(rollout)[:limit] if run.ended_at}
    bases = Run.objects.select_related("asked", "release").in_bulk(shadows.values())
    return [Pair(bases[of], run) for run, of in shadows.items() if of in bases]
