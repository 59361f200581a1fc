"""Releases and their rollouts -> what pages and the API show, and who sees how much of it."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from console.api.registry import agents, release_record
from console.release_diff import Content, Difference, difference
from runs import releases, stages
from runs.models import Agent, ModelVersion, Release, Rollout, Run
from runs.rehearsals import MODES
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import decode, encode
from tools.models import ToolVersion

from . import records

JSON = dict[str, Any]


# what one sees ----------------------------------------------------------------------------------------------------------------


def find(actor: Actor, release_id: str) -> Release:
    """Raises NotFound for what is no id, and for a release of an agent that the actor does not see."""
    try:
        found = Release.objects.select_related("agent", "created_by").filter(pk=decode("rel", release_id), agent__in=agents(actor)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("release")
    return found


def rollouts(actor: Actor) -> "QuerySet[Rollout]":
    rows = Rollout.objects.select_related("agent", "candidate", "baseline", "started_by", "ended_by")
    return rows.filter(agent__in=agents(actor)).order_by("-id")


def find_rollout(actor: Actor, rollout_id: str) -> Rollout:
    try:
        found = rollouts(actor).filter(pk=decode("rol", rollout_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("rollout")
    return found


def sees_figures(actor: Actor, agent: Agent) -> bool:
    """A verdict counts the runs of every tenant of the agent: who sees all of them sees its figures."""
    return actor.platform_admin or agent.tenants == [actor.tenant.slug]


def verdict_of(actor: Actor, rollout: Rollout) -> JSON:
    found = rollout.verdict
    return found if sees_figures(actor, rollout.agent) else {name: found[name] for name in ("verdict",) if name in found}


def runs_of(actor: Actor, release: Release) -> "QuerySet[Run]":
    """The real runs of a release that the actor sees."""
    rows = Run.objects.filter(release=release, agent_id=release.agent_id).exclude(mode__in=MODES)
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


# records ----------------------------------------------------------------------------------------------------------------------


def stage_of(release: Release, agent: Agent, open_: list[Rollout]) -> str:
    """live, canary, shadow, rolled_back or made: how far it got."""
    if agent.live_id == release.id:
        return "live"
    kinds = {rollout.kind for rollout in open_ if rollout.candidate_id == release.id and rollout.state in Rollout.OPEN}
    if kinds:
        return "canary" if Rollout.Kind.CANARY in kinds else "shadow"
    last = next((one for one in open_ if one.candidate_id == release.id and one.kind == Rollout.Kind.CANARY), None)
    rolled_back = last is not None and last.state == Rollout.State.ROLLED_BACK
    return "rolled_back" if rolled_back or releases.taken_back(release) else "made"


def whole_record(actor: Actor, release: Release) -> JSON:
    """With its pins as numbers, its stage, what speaks against it, and its rollouts."""
    made = list(rollouts(actor).filter(candidate=release)[:50])
    pins = content(release)
    return release_record(release, release.agent) | {
        "stage": stage_of(release, release.agent, made),
        "tool_versions": dict(pins.tools),
        "models": dict(pins.models),
        "created_by": release.created_by.username if release.created_by else None,
        "objection": stages.objection_to(release) if sees_figures(actor, release.agent) else None,
        "rollouts": [rollout_record(actor, one) for one in made],
    }


def rollout_record(actor: Actor, rollout: Rollout) -> JSON:
    return {
        "rollout_id": str(rollout), "kind": rollout.kind, "agent": rollout.agent_id, "state": rollout.state, "share": rollout.share,
        "candidate": rollout.candidate.release_id, "baseline": rollout.baseline.release_id, "steps": rollout.steps, "key": rollout.key,
        "reads": rollout.reads, "enough": rollout.enough, "verdict": verdict_of(actor, rollout) or None, "reason": rollout.reason,
        "max_cost_usd": None if rollout.max_cost_micro is None else records.usd(rollout.max_cost_micro),
        "started_by": rollout.started_by.username if rollout.started_by else None, "started_at": records.time(rollout.started_at),
        "ended_by": rollout.ended_by.username if rollout.ended_by else None, "ended_at": records.time(rollout.ended_at),
        "looked_at": records.time(rollout.looked_at), "step_at": records.time(rollout.step_at),
    }  # fmt: skip


# content and differences ------------------------------------------------------------------------------------------------------


def content(release: Release) -> Content:
    return as_pinned(release.spec, release.tools, release.model_versions)


def as_pinned(spec: JSON, tools: dict[str, str], models: dict[str, str]) -> Content:
    """The ids of versions as their numbers. A release that was made before models had versions pins none."""
    numbers = dict(ToolVersion.objects.filter(id__in=[UUID(one) for one in tools.values()]).values_list("id", "number"))
    rows = dict(ModelVersion.objects.filter(id__in=[UUID(one) for one in models.values()]).values_list("id", "number"))
    found = {name: numbers.get(UUID(one), 0) for name, one in tools.items()}
    return Content(spec, found, {name: rows.get(UUID(one), 0) for name, one in models.items()})


def differs(before: Release, after: Release) -> Difference:
    return difference(content(before), content(after))


def diff_record(before: Release, after: Release) -> JSON:
    found = differs(before, after)
    parts = ("tools", "models", "limits", "memory")
    moved = {
        part: [{"name": one.name, "before": one.before, "after": one.after, "way": one.way} for one in getattr(found, part)]
        for part in parts
    }
    return {
        "before": encode("rel", before.id), "after": encode("rel", after.id), "same": found.empty,
        "instructions": [{"what": part.what, "text": part.text} for part in found.instructions],
        "ladder": [{"what": rung.what, "on": rung.on, "do": rung.do} for rung in found.ladder],
    } | moved  # fmt: skip
