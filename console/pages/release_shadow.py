"""The shadows of a rollout beside the real runs: steps, cost and writes of each pair, and what the candidate did otherwise."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from console import release_records as rr
from console.run_comparison import Line, Move, lines, tally
from runs import shadows
from runs.models import Call, Rollout, Run, Step
from runs.shadows import Pair
from tenants.actors import Actor
from tenants.errors import NotFound

from .compare import digest, title
from .releases import under_way
from .session import signed_in

JSON = dict[str, Any]
SHOWN = 50
COUNTED = 200
MOST_CALLS = 20_000


@dataclass(frozen=True, slots=True)
class Did:
    """What one run did. `writes`: how many of its calls would change something, or did."""

    moves: list[Move]
    writes: int
    effects: Mapping[str, str]  # place -> effect


@dataclass(frozen=True, slots=True)
class Compared:
    """`extra`: writes that the real run did not make, or made with other arguments."""

    pair: Pair
    title: str
    tally: dict[str, int]
    writes: tuple[int, int]
    extra: tuple[Move, ...]

    @property
    def same(self) -> bool:
        return not (self.tally["changed"] or self.tally["left"] or self.tally["right"])


@require_safe
@signed_in
def page(request: HttpRequest, rollout_id: str) -> HttpResponse:
    """Pairs whose real run the reader sees. `?only=differing` leaves out those that took the same path."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    rollout = rr.find_rollout(actor, rollout_id)
    if rollout.kind != Rollout.Kind.SHADOW:
        raise NotFound("shadow")
    pairs = [pair for pair in shadows.pairs(rollout, COUNTED) if actor.sees(pair.base.tenant_id)]
    did = what_they_did([run for pair in pairs for run in (pair.base, pair.shadow)])
    found = [compared(pair, did) for pair in pairs]
    differing = [one for one in found if not one.same]
    only = request.GET.get("only") == "differing"
    context = {
        "rollout": rollout, "one": under_way(actor, rollout), "totals": totals(found), "pairs": (differing if only else found)[:SHOWN],
        "count": len(found), "differing": len(differing), "only": only, "extra": sum(len(one.extra) for one in found),
        "open": rollout.state in Rollout.OPEN,
    }  # fmt: skip
    return render(request, "pages/releases/shadow.html", context)


def compared(pair: Pair, did: Mapping[UUID, Did]) -> Compared:
    base, shadow = did[pair.base.id], did[pair.shadow.id]
    found = lines(base.moves, shadow.moves)
    extra = tuple(line.right for line in found if line.right is not None and is_extra(line, shadow.effects))
    return Compared(pair, title(pair.base), dict(tally(found)), (base.writes, shadow.writes), extra)


def is_extra(line: Line, effects: Mapping[str, str]) -> bool:
    assert line.right is not None
    write = line.right.ord > 0 and effects.get(line.right.place, "read") != "read"
    return write and (line.left is None or line.args_differ)


def what_they_did(runs: list[Run]) -> dict[UUID, Did]:
    """Two queries, however many runs."""
    ids = [run.id for run in runs]
    roles = {(run, step): role for run, step, role in Step.objects.filter(run_id__in=ids).values_list("run_id", "step", "role")}
    names = ("run_id", "step", "ord", "name", "state", "args", "error_class", "latency_ms", "cost_micro", "effect")
    moves: dict[UUID, list[Move]] = defaultdict(list)
    effects: dict[UUID, dict[str, str]] = defaultdict(dict)
    for run, step, ord_, name, state, args, error, latency, cost, effect in (
        Call.objects.filter(run_id__in=ids).order_by("run_id", "step", "ord").values_list(*names)[:MOST_CALLS]
    ):
        move = Move(step, ord_, roles.get((run, step), ""), name, spoken(state, error), digest(args) if ord_ else "", "", latency, cost)
        moves[run].append(move)
        effects[run][move.place] = effect
    return {
        run: Did(moves[run], sum(effect != "read" for place, effect in effects[run].items() if "." in place), effects[run]) for run in ids
    }


def spoken(state: str, error: str | None) -> str:
    """A call that was answered from the book is no other path than one that was sent."""
    return "done" if error == "rehearsed" else error or state


def totals(found: list[Compared]) -> list[JSON]:
    """Means per run, of both sides."""
    if not found:
        return []
    n = len(found)
    rows = (
        ("Steps per run", "steps", [(one.pair.base.step, one.pair.shadow.step) for one in found]),
        ("Cost per run", "cost", [(one.pair.base.cost_micro, one.pair.shadow.cost_micro) for one in found]),
        ("Writes per run", "writes", [one.writes for one in found]),
    )
    means = ((name, kind, sum(a for a, _ in values) / n, sum(b for _, b in values) / n) for name, kind, values in rows)
    return [{"name": name, "kind": kind, "base": a, "shadow": b, "change": (b - a) / a if a else None} for name, kind, a, b in means]
