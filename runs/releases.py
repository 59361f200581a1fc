"""Releases: made once, never changed; an agent has one live release, and `promote` and `rollback` move that pointer.

Which release was live before is read from the audit trail, so that going back twice goes back two.
"""

from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.models import AuditEntry
from tenants.scope import installation_wide
from tools import conditions
from tools.canonical import dumps
from tools.catalog import need_platform_admin
from tools.models import Tool

from . import memory_tools
from .models import Agent, ModelDefinition, ModelVersion, Release, ReleaseMove
from .spec import ReleaseSpec

PROMOTED, ROLLED_BACK, OVERRIDE = "release.promoted", "release.rolled_back", "release.override_asked"


def create(actor: Actor | None, agent: Agent | str, spec: dict[str, Any]) -> Release:
    """The release with this content, new or already there. Pins the version that each tool has now.

    Raises pydantic.ValidationError. Refuses: platform_admin_needed 403, not_found 404;
    unknown_tool, unknown_model, bad_condition 422.
    """
    return make(actor, agent, spec)[0]


@transaction.atomic
def make(actor: Actor | None, agent: Agent | str, spec: dict[str, Any]) -> tuple[Release, bool]:
    """`create`, and whether it is new."""
    need_platform_admin(actor)
    name = agent if isinstance(agent, str) else agent.name
    if not Agent.objects.select_for_update(no_key=True).filter(name=name).exists():
        raise NotFound("agent")
    checked = memory_tools.ensure(actor, validated(spec))
    content, pins, models = checked.content(), pinned(checked), model_pins(checked)
    digest = sha256(dumps({"agent": name, "spec": content, "tools": pins, "models": models})).hexdigest()
    same = Release.objects.filter(agent_id=name, sha256=digest).first()
    if same is not None:
        return same, False
    last = Release.objects.filter(agent_id=name).aggregate(last=Max("number"))["last"] or 0
    release = Release.objects.create(
        agent_id=name,
        number=last + 1,
        spec=content,
        tools=pins,
        model_versions=models,
        sha256=digest,
        created_by=actor.user if actor else None,
    )
    after = {"agent": name, "number": release.number, "sha256": digest}
    audit.append(actor, "release.created", "release", release.release_id, None, after, tenant=None)
    return release, True


def validated(spec: dict[str, Any]) -> ReleaseSpec:
    checked = ReleaseSpec.model_validate(spec)
    named = checked.model_names() | set(checked.budget.allowed_models or ())
    known = set(ModelDefinition.objects.filter(name__in=named).values_list("name", flat=True))
    if missing := sorted(named - known):
        raise Refused("unknown_model", f"There is no model {', '.join(missing)}. Define it first.", models=missing)
    for role in checked.models.roles():
        if role.when is not None:
            conditions.check(role.when, frozenset({"run"}))
    return checked


def pinned(spec: ReleaseSpec) -> dict[str, str]:
    """{tool name: version id}, as the tools are now."""
    rows = Tool.objects.filter(name__in=spec.tools, current__isnull=False).values_list("name", "current_id")
    versions = {name: str(version) for name, version in rows}
    if missing := sorted(set(spec.tools) - set(versions)):
        raise Refused("unknown_tool", f"There is no tool {', '.join(missing)}. Define it first.", tools=missing)
    return versions


def model_pins(spec: ReleaseSpec) -> dict[str, str]:
    """{model name: version id}, as the models are now. A definition that is new since the last release gets its version here."""
    return {row.name: str(version_of(row).id) for row in ModelDefinition.objects.filter(name__in=spec.model_names())}


def version_of(row: ModelDefinition) -> ModelVersion:
    """What decides how the model answers. Its price and credential are no part: they are what they are when it is called."""
    content = {name: getattr(row, name) for name in ("provider", "base_url", "model", "tier", "timeout_s", "retry")}
    digest = sha256(dumps(content)).hexdigest()
    found = ModelVersion.objects.filter(model=row.name, sha256=digest).first()
    if found is None:
        last = ModelVersion.objects.filter(model=row.name).aggregate(last=Max("number"))["last"] or 0
        found = ModelVersion.objects.create(model=row.name, number=last + 1, content=content, sha256=digest)
    return found


@transaction.atomic
def promote(actor: Actor | None, release: Release, reason: str = "") -> bool:
    """Make it the agent's live release. -> False if it is that already.

    Refuses platform_admin_needed 403, and live_changed 409 if somebody else moved the pointer since it was read here.
    """
    need_platform_admin(actor)
    seen = Agent.objects.get(pk=release.agent_id)
    if seen.live_id == release.id:
        return False
    move(seen, release)
    record(actor, PROMOTED, seen.name, seen.live_id, release.id, reason)
    return True


@transaction.atomic
def rollback(actor: Actor | None, what: Agent | Release, reason: str = "") -> Release:
    """Go back to the release that was live before.

    A release is rolled back only while it is live, so that asking twice moves once.
    Refuses: platform_admin_needed 403, not_live, no_previous_release, live_changed 409.
    """
    need_platform_admin(actor)
    name = what.agent_id if isinstance(what, Release) else what.name
    agent = Agent.objects.select_for_update(no_key=True).get(pk=name)
    if isinstance(what, Release) and agent.live_id != what.id:
        raise Refused("not_live", f"{what} is not live, so it cannot be rolled back.", 409)
    lives = history(name)
    if len(lives) < 2 or lives[-1] != agent.live_id:
        raise Refused("no_previous_release", f"No release of {name} was live before this one.", 409)
    previous = Release.objects.get(pk=lives[-2])
    move(agent, previous)
    record(actor, ROLLED_BACK, name, agent.live_id, previous.id, reason)
    return previous


def move(seen: Agent, release: Release) -> None:
    """One guarded UPDATE: of two people who saw the same live release, one wins."""
    if not Agent.objects.filter(pk=seen.pk, live=seen.live_id).update(live=release):
        raise Refused("live_changed", f"Somebody else changed the live release of {seen.name}. Look again.", 409)
    ReleaseMove.objects.filter(release=release).delete()  # it is no release to go away from any more


def record(actor: Actor | None, action: str, agent: str, before: UUID | None, after: UUID, reason: str) -> None:
    was = {"live": str(before), "release": encode("rel", before)} if before else None
    now = {"live": str(after), "release": encode("rel", after)}
    audit.append(actor, action, "agent", agent, was, now, reason, tenant=None)


@installation_wide()
def moves(agent: str) -> list[AuditEntry]:
    """Every move of the agent's pointer, oldest first."""
    trail = AuditEntry.objects.filter(tenant=None, object_kind="agent", object_id=agent, action__in=(PROMOTED, ROLLED_BACK))
    return list(trail.order_by("id"))


@installation_wide()
def overruled_by(release: Release) -> str:
    """Who asked last that it be promoted against what speaks against it; empty: nobody."""
    found = AuditEntry.objects.filter(tenant=None, action=OVERRIDE, object_id=release.release_id).order_by("-id").first()
    return found.actor if found else ""


def history(agent: str) -> list[UUID]:
    """The releases that were live, oldest first; going back takes the last one off."""
    lives: list[UUID] = []
    for entry in moves(agent):
        if entry.action == PROMOTED:
            lives.append(UUID((entry.after or {})["live"]))
        elif lives:
            lives.pop()
    return lives


def taken_back(release: Release) -> bool:
    """Whether a person rolled back exactly this release, and nothing was promoted since."""
    trail = moves(release.agent_id)
    return bool(trail) and trail[-1].action == ROLLED_BACK and (trail[-1].before or {}).get("live") == str(release.id)
