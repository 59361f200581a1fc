"""An agent with a live release, the one before it, and a third that is not out; for tests of how releases go out."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import F

from runs import releases, stages
from runs.models import Agent, Release, Rollout, Run, RunInput
from runs.spec import ReleaseSpec, limits
from tenants.actors import Actor
from tests.runtime.waiting import World, person

from .incident_world import RELEASE, make_trouble, wrote

TOOLS = ["create_ticket", "search_docs"]


@dataclass(frozen=True, slots=True)
class Desk:
    """`first` was live before `live`; `candidate` is not out. Both roots are platform admins."""

    world: World
    root: Actor
    second: Actor
    admin: Actor
    first: Release
    live: Release
    candidate: Release


def make_desk() -> Desk:
    trouble = make_trouble()
    world, root = trouble.world, trouble.people["root"]
    words = {**RELEASE, "instructions": "Three.", "tools": TOOLS}
    candidate = releases.create(root, "support-triage", words)
    live = Agent.objects.select_related("live").get(name="support-triage").live
    assert live is not None
    first = Release.objects.get(agent="support-triage", number=live.number - 1)
    second = person(world.tenant, "second", "admin", platform=True)
    return Desk(world, root, second, trouble.people["admin"], first, live, candidate)


def accepted(desk: Desk, release: Release, count: int, **values: Any) -> list[Run]:
    within = limits(ReleaseSpec.model_validate(release.spec)).model_dump(mode="json")
    given = {"agent_id": "support-triage", "release": release, "deadline_at": "2030-01-01T00:00Z", "starter": desk.world.operator.user}
    made = [Run(tenant=desk.world.tenant, **given | values) for _ in range(count)]
    Run.objects.bulk_create(made)
    RunInput.objects.bulk_create([RunInput(run=run, text="Why was I charged twice?", limits=within) for run in made])
    return made


def ended(desk: Desk, release: Release, count: int, *, steps: int = 3, writes: int = 0, **values: Any) -> list[Run]:
    """Runs that ended just now."""
    made = accepted(desk, release, count, step=steps, writes=writes, cost_micro=1000 * steps, **values)
    rows = Run.objects.filter(id__in=[run.id for run in made])
    rows.update(state="running", owner="01890000-0000-7000-8000-000000000000")
    rows.update(state="succeeded", outcome="completed", owner=None, ended_at=F("created_at") + timedelta(seconds=2))
    return made


def with_a_write(desk: Desk, release: Release) -> Run:
    [run] = ended(desk, release, 1, writes=1)
    wrote(run)
    return run


def canary(desk: Desk, *, enough: int = 60) -> Rollout:
    return stages.canary(desk.root, desk.candidate, steps=(0.5, 1.0), enough=enough, reason="try it")
