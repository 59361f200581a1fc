"""When an agent got another live release, for the charts: (at, label, url), oldest first."""

from datetime import datetime
from uuid import UUID

from django.urls import reverse

from runs import releases
from runs.models import Agent, Release
from tenants.actors import Actor

from .api.registry import seen_by
from .charts import Marker

MOST = 60


def markers(actor: Actor, since: datetime, until: datetime, agent: str = "") -> list[Marker]:
    """Of the agents that the actor sees, or of one of them."""
    moves = [move for move in releases.moved(since, until) if agent in ("", move.object_id)][-MOST:]
    lives = {UUID((move.after or {})["live"]): move for move in moves}
    if not lives:
        return []
    seen = Release.objects.filter(pk__in=lives, agent__in=Agent.objects.filter(seen_by(actor))).values_list("id", "agent_id", "number")
    numbers = {pk: f"{name} r{number}" for pk, name, number in seen}
    found: list[Marker] = []
    for move in moves:
        if name := numbers.get(UUID((move.after or {})["live"])):
            words = f"{name} went live" if move.action == releases.PROMOTED else f"Rolled back to {name}"
            found.append((move.at, words, reverse("agent", args=[move.object_id])))
    return found
