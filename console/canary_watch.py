"""Looks at the canaries on every round of the watchman, and opens an incident for each that is held or rolled back by it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from console.incidents import moves, watch
from console.models import Incident, IncidentEntry
from runs import canaries
from runs.models import Rollout, Run
from runs.rehearsals import MODES
from tenants.models import Tenant

from .release_figures import guard_words

JSON = dict[str, Any]
KIND = "release_guard"
LATELY = timedelta(hours=1)  # what a crash kept from being told is told after it
EXAMPLES = 200
STATE = Rollout.State
DONE = {STATE.HELD: "is held", STATE.ROLLED_BACK: "was rolled back"}


def round() -> int:
    """How many incidents were opened."""
    acted = canaries.look()
    told = {rollout.pk for rollout in acted}
    missed = [rollout for rollout in worried() if rollout.pk not in told and not incidents_of(rollout).exists()]
    return sum(opened(rollout) is not None for rollout in (*acted, *missed))


def worried() -> list[Rollout]:
    """What the watch, and no person, held or took back lately."""
    found = Rollout.objects.select_related("agent", "candidate", "baseline")
    acted = found.filter(kind=Rollout.Kind.CANARY, state__in=DONE, ended_by=None, looked_at__gte=Now() - LATELY)
    return [rollout for rollout in acted if rollout.verdict.get("verdict") in ("hold", "roll_back")]


def incidents_of(rollout: Rollout) -> "QuerySet[Incident]":
    return Incident.objects.filter(evidence__rollout=str(rollout))


def opened(rollout: Rollout) -> Incident | None:
    """None: the detector is off, or the same is open; then its log says what came next."""
    firing = [one for one in rollout.verdict.get("guards", ()) if one["verdict"] in ("hold", "roll_back")]
    text, subject = sentence(rollout, firing), {"agent": rollout.agent_id, "release": rollout.candidate.release_id}
    incident = watch.open_for(
        tenant_of(rollout), KIND, subject, text, value=float(len(firing)), threshold=1.0, runs=runs_of(rollout),
        more={"rollout": str(rollout), "guards": firing},
    )  # fmt: skip
    if incident is None:
        for live in incidents_of(rollout).filter(state__in=Incident.LIVE):
            moves.log(live, IncidentEntry.Kind.NOTE, None, text)
    return incident


def sentence(rollout: Rollout, firing: list[JSON]) -> str:
    guards = "; ".join(guard_words(one) for one in firing) or rollout.verdict.get("why", "")
    return f"The canary of {rollout.candidate} {DONE.get(STATE(rollout.state), 'ended')} against r{rollout.baseline.number}: {guards}."


def tenant_of(rollout: Rollout) -> UUID | None:
    """An agent of one tenant is that tenant's matter; any other is the platform's."""
    seen = rollout.agent.tenants
    return Tenant.objects.filter(slug=seen[0]).values_list("pk", flat=True).first() if len(seen) == 1 else None


def runs_of(rollout: Rollout) -> list[tuple[UUID, float]]:
    """Runs of the candidate with the number of their writes, those that wrote most first: what may have to be undone."""
    rows = Run.objects.filter(release=rollout.candidate_id, created_at__gte=rollout.started_at).exclude(mode__in=MODES)
    return [(pk, float(writes)) for pk, writes in rows.order_by("-writes", "-id").values_list("pk", "writes")[:EXAMPLES]]
