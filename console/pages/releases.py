"""Releases: how each agent's goes out, what one holds, how it does beside the live one, and what it wrote."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from console import release_records as rr
from console import release_writes as writes
from console.api import paging
from console.api.evals import evaluations_of
from console.api.registry import agents
from console.release_figures import UNKNOWN, lines, look_of
from runs import releases, stages
from runs.models import Agent, Evaluation, Release, Rollout
from tenants.actors import Actor
from tenants.errors import NotFound, Refused

from .session import signed_in

JSON = dict[str, Any]
Look = tuple[str, str, str]  # icon, word, tone
SHOWN = 20
STATES: dict[str, Look] = {
    "running": ("play", "Running", "run"),
    "held": ("circle-pause", "Held", "wait"),
    "promoted": ("circle-check", "Promoted", "ok"),
    "rolled_back": ("undo-2", "Rolled back", "fail"),
    "ended": ("circle-dashed", "Ended", "idle"),
}
STAGES = {
    "live": ("circle-check", "Live", "ok"),
    "canary": ("trending-up", "Canary", "run"),
    "shadow": ("eye", "Shadow", "run"),
    "rolled_back": ("undo-2", "Rolled back", "fail"),
    "made": ("circle-dashed", "Not out", "idle"),
}
EVALUATED = {
    "queued": ("clock", "Queued", "idle"),
    "running": ("play", "Running", "run"),
    "failed": ("circle-x", "Could not finish", "fail"),
    "cancelled": ("ban", "Cancelled", "idle"),
}
NOT_YET: Look = ("circle-dashed", "Not yet", "idle")


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """Every agent with its live release, what is under way, and its newest releases."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    found = list(agents(actor).order_by("name"))
    open_ = list(rr.rollouts(actor).filter(state__in=Rollout.OPEN))
    newest = {row.agent_id: row for row in Release.objects.filter(agent__in=found).order_by("agent_id", "-number").distinct("agent_id")}
    rows = [
        {"agent": agent, "newest": newest.get(agent.name), "open": [under_way(actor, one) for one in open_ if one.agent_id == agent.name]}
        for agent in found
    ]
    past = [under_way(actor, one) for one in rr.rollouts(actor).exclude(state__in=Rollout.OPEN)[:SHOWN]]
    return render(request, "pages/releases.html", {"rows": rows, "past": past})


def under_way(actor: Actor, rollout: Rollout) -> JSON:
    verdict = rr.verdict_of(actor, rollout)
    return {
        "rollout": rollout,
        "id": str(rollout),
        "look": STATES[rollout.state],
        "verdict": look_of(verdict),
        "why": verdict.get("why", ""),
    }


@require_safe
@signed_in
def of_agent(request: HttpRequest, name: str) -> HttpResponse:
    """Its releases, newest first; `?number=` leads to one."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    agent = agents(actor).filter(pk=name).first()
    if agent is None:
        raise NotFound("agent")
    rows = Release.objects.filter(agent=agent).select_related("agent", "created_by")
    found, older = paging.page(rows, request.GET, "rel")
    made = list(rr.rollouts(actor).filter(agent=agent)[:200])
    listed = [{"release": one, "look": STAGES[rr.stage_of(one, agent, made)]} for one in found]
    context = {"agent": agent, "rows": listed, "older_url": f"?cursor={older}" if older else ""}
    return render(request, "pages/releases/agent.html", context)


@require_safe
@signed_in
def one(request: HttpRequest, release_id: str) -> HttpResponse:
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    release = rr.find(actor, release_id)
    agent = Agent.objects.select_related("live").get(pk=release.agent_id)
    made = list(rr.rollouts(actor).filter(candidate=release)[:SHOWN])
    canary = first(made, Rollout.Kind.CANARY)
    verdict = rr.verdict_of(actor, canary) if canary else {}
    context = {
        "release": release, "agent": agent, "stage": STAGES[rr.stage_of(release, agent, made)],
        "strip": strip(actor, release, agent, made), "canary": canary and under_way(actor, canary), "lines": lines(verdict),
        "figures_hidden": canary is not None and not rr.sees_figures(actor, agent), "rollouts": [under_way(actor, each) for each in made],
        "pins": rr.content(release), "before": previous(release), **may(actor, release, agent, canary),
    }  # fmt: skip
    return render(request, "pages/releases/one.html", context)


def first(made: list[Rollout], kind: str) -> Rollout | None:
    return next((one for one in made if one.kind == kind), None)


def previous(release: Release) -> Release | None:
    """What it is compared with: the live one, else the one before it."""
    live = Agent.objects.filter(pk=release.agent_id).exclude(live=release.pk).values_list("live", flat=True).first()
    rows = Release.objects.filter(agent_id=release.agent_id)
    return rows.filter(pk=live).first() if live else rows.filter(number__lt=release.number).order_by("-number").first()


def may(actor: Actor, release: Release, agent: Agent, canary: Rollout | None) -> JSON:
    """What a person may do here. `objection`: why it is not promoted now, shown beside the button."""
    moves = actor.platform_admin and actor.can("config:write")
    live = agent.live_id == release.id
    on_trial = canary is not None and canary.state in Rollout.OPEN
    objection = stages.objection_to(release) if rr.sees_figures(actor, agent) and not live else ""
    return {
        "may_move": moves, "live": live, "objection": objection, "asked_by": releases.overruled_by(release) if objection else "",
        "may_roll_back": moves and (live or on_trial), "may_try": moves and not live and agent.live_id is not None,
        "open_kinds": {one.kind for one in stages.open_ones(agent.name)},
    }  # fmt: skip


# the strip: offline eval -> shadow -> canary -> live ---------------------------------------------------------------------------


def strip(actor: Actor, release: Release, agent: Agent, made: list[Rollout]) -> list[JSON]:
    return [
        evaluated(actor, release),
        tried(actor, "Shadow", first(made, Rollout.Kind.SHADOW)),
        tried(actor, "Canary", first(made, Rollout.Kind.CANARY)),
        {"title": "Live", "look": STAGES["live"] if agent.live_id == release.id else NOT_YET, "says": "", "url": "", "id": ""},
    ]


def evaluated(actor: Actor, release: Release) -> JSON:
    last = evaluations_of(actor).filter(release=release).order_by("-id").first()
    if last is None:
        return {"title": "Offline eval", "look": NOT_YET, "says": "No suite was run against it.", "url": "", "id": ""}
    says = f"{last.suite.name}: {last.done} of {last.total} runs"
    return {"title": "Offline eval", "look": eval_look(last), "says": says, "url": "evaluation", "id": str(last)}


def eval_look(made: Evaluation) -> Look:
    """Of one that is done, whether every case passed."""
    if made.state in EVALUATED:
        return EVALUATED[made.state]
    told = made.result or {}
    failed = told.get("runs", 0) - told.get("passed", 0)
    return ("octagon-alert", f"{failed} of {told['runs']} failed", "fail") if failed else ("circle-check", "Passed", "ok")


def tried(actor: Actor, title: str, rollout: Rollout | None) -> JSON:
    if rollout is None:
        return {"title": title, "look": NOT_YET, "says": "", "url": "", "id": ""}
    verdict = rr.verdict_of(actor, rollout)
    share = f"{rollout.share:.0%} of {'runs' if rollout.kind == Rollout.Kind.SHADOW else rollout.key + 's'}"
    open_ = rollout.state in Rollout.OPEN
    look = STATES[rollout.state] if not open_ or not verdict else look_of(verdict)
    says = f"{share}. {verdict.get('why', '')}" if open_ else str(verdict.get("why") or rollout.reason)
    return {"title": title, "look": look if look != UNKNOWN else STATES[rollout.state], "says": says, "url": "rollout", "id": str(rollout)}


# differences, and writes ------------------------------------------------------------------------------------------------------


@require_safe
@signed_in
def diff(request: HttpRequest, release_id: str) -> HttpResponse:
    """`?with=rel_…`: the earlier one; without it what the release is compared with."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    release = rr.find(actor, release_id)
    before = rr.find(actor, request.GET["with"]) if request.GET.get("with") else previous(release)
    others = Release.objects.filter(agent_id=release.agent_id).exclude(pk=release.pk).order_by("-number").only("id", "agent_id", "number")
    context = {"release": release, "before": before, "others": others[:50], "diff": rr.differs(before, release) if before else None}
    return render(request, "pages/releases/diff.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def written(request: HttpRequest, release_id: str) -> HttpResponse:
    """GET lists what its runs wrote, POST undoes those that are ticked; what came of each is shown at once."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    release = rr.find(actor, release_id)
    context: JSON = {"release": release, "may": actor.can("runs:write"), "reason": "", "chosen": []}
    status = 200
    if request.method == "POST":
        chosen, reason = request.POST.getlist("calls"), request.POST.get("reason", "")[:2000]
        try:
            done = writes.undo_chosen(actor, release, chosen, reason)
        except Refused as refused:
            if refused.status != 422:
                raise
            context |= {"error": refused.message, "field": refused.fields.get("field"), "reason": reason, "chosen": chosen}
            status = 422
        else:
            started = sum(each["run_id"] is not None for each in done)
            messages.success(request, f"Started {started} undo{'' if started == 1 else 's'}; {len(done) - started} could not be.")
            if started == len(done):
                return redirect("release-writes", release.release_id)
            context["outcomes"] = done
    rows, older = writes.of_release(actor, release, before=request.GET.get("cursor", ""))
    context |= {"rows": rows, "older_url": f"?cursor={older}" if older else "", "open": sum(row.can for row in rows)}
    return render(request, "pages/releases/writes.html", context, status=status)
