"""The watch over canaries: what both releases came to side by side, and what follows from it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models.functions import Now

from tenants.ids import first_at

from . import stages
from .models import Rollout
from .rehearsals import MODES
from .rollouts import FIRST_LOOK, GUARDS, Arm, Comparison, compare, with_run

JSON = dict[str, Any]
BEFORE = timedelta(days=7)  # where the baseline gets no runs beside the candidate, those before it count
MOST = 20_000  # runs of one release
RUNS = """
select r.state = 'succeeded', r.step, r.cost_micro, r.writes,
  exists (select from event e where e.run_id = r.id and e.kind in ('fallback_activated', 'rung_entered')),
  exists (select from event e where e.run_id = r.id and e.kind = 'policy_violated'),
  exists (select from approvals_approval a where a.run_id = r.id and a.state = 'rejected'),
  extract(epoch from r.ended_at - r.created_at)
from run r where r.id >= %(first)s and r.agent_id = %(agent)s and r.release_id = %(release)s and r.created_at >= %(since)s
  and r.ended_at is not null and r.mode <> all(%(modes)s) order by r.id desc limit %(most)s
"""


def look() -> list[Rollout]:
    """Look at every open canary, and act. -> those that were held or rolled back just now."""
    found = Rollout.objects.select_related("agent", "candidate", "baseline").filter(kind=Rollout.Kind.CANARY, state__in=Rollout.OPEN)
    return [rollout for rollout in found if judge(rollout)]


def judge(rollout: Rollout) -> bool:
    """True: it was held or rolled back just now."""
    found = comparison(rollout)
    Rollout.objects.filter(pk=rollout.pk).update(verdict=as_json(found), looked_at=Now())
    rollout.verdict = as_json(found)
    if found.verdict == "roll_back":
        stages.roll_back(None, rollout.candidate, reason=found.why)
        rollout.refresh_from_db()
        return rollout.state == Rollout.State.ROLLED_BACK
    if rollout.state != Rollout.State.RUNNING:
        return False
    if found.verdict == "hold":
        return stages.hold(None, rollout, True, found.why)
    if found.verdict == "go" and (following := next_share(rollout)) and runs_since(rollout, rollout.step_at) >= rollout.enough:
        stages.set_share(None, rollout, following, found.why)
    return False


def next_share(rollout: Rollout) -> float | None:
    """None: it has the last share; going live is a person's word."""
    return next((share for share in rollout.steps if share > rollout.share), None)


def comparison(rollout: Rollout) -> Comparison:
    candidate = arm(rollout, rollout.candidate_id, rollout.started_at)
    baseline = arm(rollout, rollout.baseline_id, rollout.started_at)
    if baseline.runs < FIRST_LOOK and rollout.share == 1:
        baseline = arm(rollout, rollout.baseline_id, rollout.started_at - BEFORE)
    return compare(candidate, baseline, needs=rollout.enough, first_look=min(FIRST_LOOK, rollout.enough))


def arm(rollout: Rollout, release: UUID, since: datetime) -> Arm:
    made = Arm()
    for row in rows(rollout, release, since):
        made = with_run(made, dict(zip((guard.name for guard in ORDER), values(row), strict=True)))
    return made


ORDER = GUARDS  # success, steps, cost_per_success, writes, fallback, policy_violations, approvals_rejected, latency


def values(row: tuple[Any, ...]) -> list[float]:
    success, steps, cost, writes, fell_back, violated, rejected, seconds = row
    return [float(success), float(steps), float(cost), float(writes), float(fell_back), float(violated), float(rejected), float(seconds)]


def rows(rollout: Rollout, release: UUID, since: datetime) -> list[tuple[Any, ...]]:
    asked: JSON = {
        "first": first_at(since),
        "agent": rollout.agent_id,
        "release": release,
        "since": since,
        "modes": list(MODES),
        "most": MOST,
    }
    with connection.cursor() as cursor:
        cursor.execute(RUNS, asked)
        return list(cursor.fetchall())


def runs_since(rollout: Rollout, since: datetime) -> int:
    return len(rows(rollout, rollout.candidate_id, since))


def as_json(found: Comparison) -> JSON:
    """What is kept and shown: the verdict with its reason, and each guard with its figures."""
    guards = [
        {
            "name": one.guard.name, "title": one.guard.title, "baseline": one.baseline, "candidate": one.candidate, "worse": one.worse,
            "limit": one.limit, "n": one.n, "confidence": round(one.confidence, 4), "verdict": one.verdict, "kind": one.guard.kind,
        }
        for one in found.found
    ]  # fmt: skip
    return {"verdict": found.verdict, "why": found.why, "needs": found.needs, "has": found.has, "guards": guards}
