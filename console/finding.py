"""Things by a piece of their name: what the search of every page offers beside pages and ids. Only what the actor may read."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Model, QuerySet
from django.urls import reverse

from console.api.registry import seen_by
from console.incidents import book
from console.templatetags.signalbox import plain
from runs.evals import suites
from runs.models import Agent, ModelDefinition
from tenants.actors import Actor
from tools.models import Tool

OF_A_KIND = 8
SHORTEST = 2  # letters; fewer would name everything


@dataclass(frozen=True, slots=True)
class Found:
    """`group` says what it is; `icon` is of the sprite."""

    label: str
    group: str
    url: str
    icon: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """`named`: the field that people know it by. `page`: the name of its address, which takes its key."""

    group: str
    icon: str
    page: str
    rows: "QuerySet[Any]"
    named: str = "name"


def kinds(actor: Actor) -> Iterator[Kind]:
    if actor.can("config:read"):
        yield Kind("Agent", "bot", "agent", Agent.objects.filter(seen_by(actor)))
        yield Kind("Tool", "wrench", "tool", Tool.objects.filter(seen_by(actor)))
        yield Kind("Model", "sparkles", "model", ModelDefinition.objects.all())
        yield Kind("Suite", "list-checks", "suite", suites.visible(actor))
    if actor.can(book.READ):
        yield Kind("Incident", "siren", "incident", book.visible(actor), "title")


def named(actor: Actor, text: str) -> list[Found]:
    """Whose names hold `text`, in any case, `OF_A_KIND` of each kind by name; of incidents the newest. One query for each kind."""
    if len(text) < SHORTEST:
        return []
    return [entry(kind, row) for kind in kinds(actor) for row in few(kind, text)]


def few(kind: Kind, text: str) -> "QuerySet[Any]":
    order = kind.named if kind.named == "name" else "-pk"
    return kind.rows.filter(**{f"{kind.named}__icontains": text}).order_by(order)[:OF_A_KIND]


def entry(kind: Kind, row: Model) -> Found:
    label = str(getattr(row, kind.named))
    key = label if kind.named == "name" else str(row)
    return Found(plain(label), kind.group, reverse(kind.page, args=[key]), kind.icon)
