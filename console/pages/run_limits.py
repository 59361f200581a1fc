"""The limits of one run on its page: gauges, what stopped it, what was raised, what each role cost, and the request for more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import reverse

from approvals.models import Approval
from console import kept, limits, role_costs, rungs, sentences
from console.templatetags.signalbox import compact, duration, micros
from console.tracks import Event
from runs.models import Run
from runs.states import Outcome
from tenants.actors import Actor

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gauge:
    """`stopped`: how this limit stopped the run; `raised`: what it was before a person granted more. Both empty most of the time."""

    name: str
    used: float
    limit: float
    used_text: str
    limit_text: str
    stopped: str = ""
    raised: str = ""


def gauges(run: Run, now: datetime, granted: list[Event] | None = None) -> list[Gauge]:
    """Every limit of the run. `granted`: its events of that kind, read here unless given."""
    kept_limits = run.asked.limits
    stop, raised = run.stop or {}, raises(run, granted)
    clock = clock_s(run, now)
    used: Mapping[str, tuple[str, float, float, str, str]] = {
        "max_cost_usd": ("Cost", run.cost_micro, kept_limits["max_cost_micro"], spent(run), micros(kept_limits["max_cost_micro"])),
        "max_steps": counted("Steps", run.step, kept_limits["max_steps"]),
        "max_tool_calls": counted("Tool calls", run.tool_calls, kept_limits["max_tool_calls"]),
        "max_writes": counted("Writes", run.writes, kept_limits["max_writes"]),
        "max_input_tokens": counted("Input tokens", run.tokens_in, kept_limits["max_input_tokens"]),
        "max_output_tokens": counted("Output tokens", run.tokens_out, kept_limits["max_output_tokens"]),
        "run_s": ("Wall clock", clock, kept_limits["run_s"], duration(clock), duration(kept_limits["run_s"])),
    }
    here = {stop["limit"]: limits.stopped_here(stop)} if stop.get("limit") in used else {}
    return [Gauge(*figures, here.get(name, ""), raised.get(name, "")) for name, figures in used.items()]


def counted(name: str, used: int, limit: int) -> tuple[str, float, float, str, str]:
    return name, used, limit, compact(used), compact(limit)


def spent(run: Run) -> str:
    """An unknown price is never a cost of nothing."""
    if run.unpriced and not run.cost_micro:
        return "unknown"
    return micros(run.cost_micro) + (" partial" if run.unpriced else "")


def clock_s(run: Run, now: datetime) -> float:
    """Seconds of the deadline that are used. It stands still while the run waits for people."""
    until = run.ended_at or now
    if run.waiting_since and run.ended_at is None and not run.asked.limits.get("count_waiting"):
        until = run.waiting_since
    return max(0.0, float(run.asked.limits["run_s"]) - (run.deadline_at - until).total_seconds())


def raises(run: Run, granted: list[Event] | None) -> dict[str, str]:
    """Limit -> "raised from $0.08" """
    if not any(rung.get("do") == "ask" and rung.get("limit") for rung in run.rungs):
        return {}
    if granted is None:
        granted = [
            Event(*row) for row in run.events.filter(kind="budget_granted").order_by("seq").values_list("seq", "kind", "at", "payload")
        ]
    first: dict[str, Any] = {}
    for event in granted:
        for name, change in ((event.payload.get("data") or {}).get("limits") or {}).items():
            first.setdefault(name, change["from"])
    if "max_cost_micro" in first:
        first["max_cost_usd"] = first.pop("max_cost_micro") / 1_000_000
    return {name: f"raised from {limits.figure(name, value)}" for name, value in first.items()}


def costs(run: Run) -> JSON:
    """The table of what each role cost."""
    rows = role_costs.of(run)
    return {"roles": rows, "roles_total": sum(row.cost_micro for row in rows), "roles_unknown": any(row.unknown for row in rows)}


def drafts(run: Run, actor: Actor) -> JSON:
    """What was kept instead of sent. Without drafts one query and nothing to show."""
    found = kept.of_run(run)
    return {
        "drafts": [shown(draft) for draft in found],
        "drafts_open": sum(draft.decision is None for draft in found),
        "may_act": actor.can("runs:write"),
        "draft_path": reverse("run", args=[run.run_id]),
    }


def shown(draft: kept.Draft) -> JSON:
    effect = draft.call.effect
    return {
        "draft": draft,
        "says": sentences.headline(draft.call.name, draft.args),
        "happens": sentences.happens(draft.call.name, effect, draft.args),
        "rows": sentences.rows(draft.args),
    }


def degraded(run: Run) -> JSON | None:
    """Why the answer is less than a whole one, and where it comes from. None: it is whole, or there is none."""
    if run.answer_step is None or run.outcome != Outcome.COMPLETED_DEGRADED:
        return None
    taken = rungs.standing(run.rungs)
    source = next((rung for rung in reversed(taken) if rung["do"] in ("cached", "retrieval_only")), {})
    return {"words": [rungs.words(rung) for rung in taken], "source": source, "cached": source.get("do") == "cached"}


def request_of(run: Run) -> tuple[Approval, JSON] | None:
    """The open request for more of its budget."""
    found = Approval.objects.filter(run_id=run.id, kind=Approval.Kind.BUDGET, state=Approval.State.PENDING).defer("evidence").first()
    return (found, json.loads(bytes(found.args))) if found else None


def asked_words(question: JSON) -> tuple[str, str]:
    """What a run asks for, and how it stands."""
    limit = str(question.get("limit"))
    met = f"It has {limits.amount(limit, question['value'])}, and the next call would bring it to {limits.figure(limit, question['used'])}"
    return f"It asks for {limits.amounts(question['add'])}.", f"{met}. So far: {limits.so_far(question.get('spent') or {})}."
