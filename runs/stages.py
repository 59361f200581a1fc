"""The stages of a release, moved by people or by the watch: shadow, canary, live, taken back. The only writer of rollouts.

Each move is one guarded UPDATE in a transaction with its entry in the audit trail. `actor` None is the watch (`runs.canaries`).
"""

from typing import Literal
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import Refused
from tools.catalog import need_platform_admin

from . import lifecycle, releases
from .models import Agent, Evaluation, Release, ReleaseMove, Rollout, Run
from .rehearsals import Reads
from .states import TERMINAL

State, Kind = Rollout.State, Rollout.Kind
InFlight = Literal["finish", "move", "stop"]
KEYS = ("tenant", "user", "session")
STEPS = (0.05, 0.25, 0.5)
MOST_STOPPED = 2000


def shadow(
    actor: Actor, candidate: Release, *, share: float, reads: Reads = "both", max_cost_micro: int | None = None, reason: str = ""
) -> Rollout:
    """Real runs of the live release, once more on the candidate. Refuses as `begin` does; bad_share 422."""
    return begin(actor, candidate, Kind.SHADOW, share, reason, reads=reads, max_cost_micro=max_cost_micro)


def canary(
    actor: Actor, candidate: Release, *, steps: tuple[float, ...] = STEPS, key: str = "user", enough: int = 200, reason: str = ""
) -> Rollout:
    """A share of new runs on the candidate, step by step. Refuses as `begin` does; bad_share, bad_key 422."""
    if key not in KEYS:
        raise Refused("bad_key", f"A canary is shared out by {', '.join(KEYS)}.", 422, field="key")
    if not steps or list(steps) != sorted(set(steps)):
        raise Refused("bad_share", "The shares of a canary grow from step to step.", 422, field="steps")
    return begin(actor, candidate, Kind.CANARY, steps[0], reason, steps=list(steps), key=key, enough=enough)


@transaction.atomic
def begin(actor: Actor, candidate: Release, kind: str, share: float, reason: str, **more: object) -> Rollout:
    """Refuses: platform_admin_needed 403; no_live_release, already_live, rollout_open 409; bad_share 422."""
    need_platform_admin(actor)
    shares = [share, *more.get("steps", ())]  # type: ignore[misc]
    if not all(isinstance(one, int | float) and 0 <= one <= 1 for one in shares):
        raise Refused("bad_share", "A share is a number from 0 to 1.", 422, field="share")
    agent = Agent.objects.select_for_update(no_key=True).get(pk=candidate.agent_id)
    if agent.live_id is None:
        raise Refused("no_live_release", f"{agent.name} has no live release to compare with. Promote one first.", 409)
    if agent.live_id == candidate.id:
        raise Refused("already_live", f"{candidate} is live already.", 409)
    if open_ones(agent.name).filter(kind=kind).exists():
        raise Refused("rollout_open", f"{agent.name} has a {kind} already. End it first.", 409)
    made = Rollout.objects.create(
        agent=agent, kind=kind, candidate=candidate, baseline_id=agent.live_id, share=share, started_by=actor.user, reason=reason, **more
    )
    if kind == Kind.CANARY:
        Agent.objects.filter(pk=agent.pk).update(canary=made)
    audit.append(actor, f"release.{kind}_started", "agent", agent.name, None, told(made), reason, tenant=None)
    return made


def told(rollout: Rollout) -> dict[str, object]:
    return {"rollout": str(rollout), "release": rollout.candidate.release_id, "share": rollout.share, "state": rollout.state}


def open_ones(agent: str) -> QuerySet[Rollout]:
    return Rollout.objects.filter(agent_id=agent, state__in=Rollout.OPEN)


@transaction.atomic
def set_share(actor: Actor | None, rollout: Rollout, share: float, reason: str = "") -> bool:
    """False: it is over. A larger share keeps everybody who has the candidate already."""
    need_platform_admin(actor)
    if not 0 <= share <= 1:
        raise Refused("bad_share", "A share is a number from 0 to 1.", 422, field="share")
    before = told(rollout)
    if not Rollout.objects.filter(pk=rollout.pk, state__in=Rollout.OPEN).update(share=share, step_at=Now()):
        return False
    rollout.refresh_from_db()
    audit.append(actor, f"release.{rollout.kind}_share", "agent", rollout.agent_id, before, told(rollout), reason, tenant=None)
    return True


@transaction.atomic
def hold(actor: Actor | None, rollout: Rollout, on: bool, reason: str = "") -> bool:
    """Keep the share where it is, or let it grow again. False: it is so already, or over."""
    need_platform_admin(actor)
    source, target = (State.RUNNING, State.HELD) if on else (State.HELD, State.RUNNING)
    before = told(rollout)
    if not Rollout.objects.filter(pk=rollout.pk, state=source).update(state=target):
        return False
    rollout.refresh_from_db()
    action = f"release.{rollout.kind}_{'held' if on else 'resumed'}"
    audit.append(actor, action, "agent", rollout.agent_id, before, told(rollout), reason, tenant=None)
    return True


@transaction.atomic
def end(actor: Actor | None, rollout: Rollout, state: str, reason: str = "") -> bool:
    """Nothing new goes to the candidate. False: somebody else ended it first."""
    need_platform_admin(actor)
    before = told(rollout)
    ended = {"state": state, "ended_at": Now(), "ended_by": actor.user if actor else None}
    if not Rollout.objects.filter(pk=rollout.pk, state__in=Rollout.OPEN).update(**ended):
        return False
    Agent.objects.filter(canary=rollout).update(canary=None)
    rollout.refresh_from_db()
    audit.append(actor, f"release.{rollout.kind}_{state}", "agent", rollout.agent_id, before, told(rollout), reason, tenant=None)
    return True


def promote(actor: Actor, release: Release, reason: str = "", *, override: bool = False) -> bool:
    """Make it live, if nothing speaks against it. False: it is live already.

    Refuses: platform_admin_needed 403; promotion_refused 409 with the reason, override_needs_second 409 until another person says the
    same with a reason of their own; live_changed 409, reason_missing 422.
    """
    need_platform_admin(actor)
    if objection := objection_to(release):
        if not override:
            raise Refused("promotion_refused", f"{release} is not promoted: {objection}", 409, why=objection)
        overrule(actor, release, reason, objection)
    with transaction.atomic():
        Agent.objects.select_for_update(no_key=True).get(pk=release.agent_id)
        promoted = releases.promote(actor, release, reason)
        for rollout in open_ones(release.agent_id):
            end(actor, rollout, State.PROMOTED if rollout.candidate_id == release.id else State.ENDED, reason)
    return promoted


def objection_to(release: Release) -> str:
    """Why it should not be live yet; empty: nothing is known against it."""
    return failed_suite(release) or canary_against(release)


def failed_suite(release: Release) -> str:
    """The first suite whose newest evaluation of it did not pass whole."""
    done = Evaluation.objects.filter(release=release, state=Evaluation.State.DONE).select_related("suite").order_by("suite_id", "-id")
    for one in done.distinct("suite_id"):
        passed, count = (one.result or {}).get("passed"), (one.result or {}).get("runs")
        if passed is not None and count and passed < count:
            return f"its evaluation by {one.suite.name} passed {passed} of {count}"
    return ""


def canary_against(release: Release) -> str:
    last = Rollout.objects.filter(candidate=release, kind=Kind.CANARY).order_by("-id").first()
    if last is None or last.state == State.PROMOTED:
        return ""
    if last.state == State.ROLLED_BACK:
        return f"its canary was rolled back. {last.verdict.get('why', '')}".strip()
    if last.state in Rollout.OPEN and last.verdict.get("verdict") != "go":
        return str(last.verdict.get("why") or "its canary was not looked at yet")
    return ""


def overrule(actor: Actor, release: Release, reason: str, objection: str) -> None:
    """The first person asks for it, another one does it. In no transaction: what the first one said is kept although it is refused."""
    if not reason.strip():
        raise Refused("reason_missing", "Say why it is promoted in spite of this: the reason is kept.", 422, field="reason")
    asked = releases.overruled_by(release)
    if asked and asked != actor.user.username:
        return
    audit.append(actor, releases.OVERRIDE, "release", release.release_id, None, {"against": objection}, reason, tenant=None)
    message = f"{release} needs a second person who promotes it with a reason of their own."
    raise Refused("override_needs_second", message, 409, against=objection)


@transaction.atomic
def roll_back(actor: Actor | None, release: Release, *, in_flight: InFlight = "finish", reason: str = "") -> Release:
    """Take it back, live or canary. -> the release that new runs get. `in_flight`: what becomes of the runs that have it.

    finish: they go on. move: from their next step they go on with the other release. stop: they are cancelled.
    Refuses: platform_admin_needed 403; not_live, no_previous_release, live_changed 409.
    """
    need_platform_admin(actor)
    trial = open_ones(release.agent_id).filter(candidate=release, kind=Kind.CANARY).first()
    if trial is not None:
        end(actor, trial, State.ROLLED_BACK, reason)
        to = Release.objects.get(pk=trial.baseline_id)
    else:
        to = releases.rollback(actor, release, reason)
    if in_flight == "move":
        ReleaseMove.objects.update_or_create(release=release, defaults={"to": to})
        ReleaseMove.objects.filter(release=to).delete()
        controls.bump(None)
    return to


def stop_in_flight(actor: Actor, release: Release) -> list[UUID]:
    """Cancel every run of the release that has not ended; those of tenants that the actor sees. -> the runs."""
    stopped = []
    for run in in_flight_of(release).order_by("id")[:MOST_STOPPED]:
        lifecycle.cancel(actor, run.id)
        stopped.append(run.id)
    return stopped


def in_flight_of(release: Release) -> QuerySet[Run]:
    return Run.objects.filter(release=release, agent_id=release.agent_id).exclude(state__in=TERMINAL)
