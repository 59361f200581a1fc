"""Drafts for people: calls that a run kept instead of sending them, and what became of each."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from runs import drafts
from runs.models import Call, DraftDecision, Run, Step
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode

from . import records

Place = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """A call that was not sent. `decision` None: nobody has decided about it."""

    call: Call
    decision: DraftDecision | None
    created_at: datetime | None

    @property
    def run_id(self) -> str:
        return encode("agt", self.call.run_id)

    @property
    def draft_id(self) -> str:
        return records.call_id(self.run_id, self.call.step, self.call.ord)

    @property
    def key(self) -> str:
        return f"{self.call.step}.{self.call.ord}"

    @property
    def args(self) -> Any:
        return json.loads(bytes(self.call.args or b"{}"))

    @property
    def why(self) -> str:
        return str((self.call.result or {}).get("message") or "")

    @property
    def made(self) -> str | None:
        """The run that carried it out."""
        return encode("agt", self.decision.action_run) if self.decision and self.decision.action_run else None


def of_run(run: Run) -> list[Draft]:
    """In the order of the run."""
    return _read(Call.objects.filter(run_id=run.id, error_class=drafts.DRAFTED).order_by("step", "ord"))


def seen_by(actor: Actor, *, waiting: bool, before: str = "", limit: int) -> tuple[list[Draft], str | None]:
    """Newest first -> (drafts, cursor of the next page). Refuses bad_cursor 400."""
    rows = drafts.drafts(actor, waiting=waiting)
    if before:
        run, step, ord_ = parsed(before) or _bad(before)
        rows = rows.filter(Q(run_id__lt=run) | Q(run_id=run, step__lt=step) | Q(run_id=run, step=step, ord__lt=ord_))
    found = _read(rows[: limit + 1])
    return found[:limit], found[limit - 1].draft_id if len(found) > limit else None


def waiting(actor: Actor) -> int:
    return drafts.drafts(actor).count()


def find(actor: Actor, draft_id: str) -> Draft:
    """Raises NotFound for another tenant's and for what is none."""
    place = parsed(draft_id)
    found = _read(drafts.drafts(actor, waiting=False).filter(run_id=place[0], step=place[1], ord=place[2])) if place else []
    if not found:
        raise NotFound("draft")
    return found[0]


def parsed(draft_id: str) -> Place | None:
    """`agt_….<step>.<ord>`; None for anything else."""
    run, *rest = draft_id.split(".")
    if len(rest) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in rest):
        return None
    try:
        return decode("agt", run), int(rest[0]), int(rest[1])
    except ValueError:
        return None


def record(draft: Draft) -> dict[str, Any]:
    said = draft.decision
    return {
        "draft_id": draft.draft_id,
        "run_id": draft.run_id,
        "step_id": draft.call.step,
        "call_id": draft.draft_id,
        "tool": draft.call.name,
        "effect": draft.call.effect,
        "args": draft.args,
        "args_text": records.text_of(draft.call.args or b"{}"),
        "why": draft.why,
        "created_at": records.time(draft.created_at),
        "decided": None
        if said is None
        else {"verdict": said.verdict, "by": said.by.username, "at": records.time(said.at), "reason": said.reason, "run_id": draft.made},
    }


def _bad(cursor: str) -> Place:
    raise Refused("bad_cursor", f"cursor must be the id of a draft, not {cursor[:80]!r}.", 400)


def _read(rows: "QuerySet[Call]") -> list[Draft]:
    turn = Step.objects.filter(run_id=OuterRef("run_id"), step=OuterRef("step")).values("at")
    calls = list(rows.annotate(kept_at=Coalesce("ended_at", Subquery(turn))))
    said = decisions(calls)
    return [Draft(call, said.get((call.run_id, call.step, call.ord)), call.kept_at) for call in calls]


def decisions(calls: Iterable[Call]) -> dict[Place, DraftDecision]:
    runs = {call.run_id for call in calls}
    rows = DraftDecision.objects.filter(run_id__in=runs).select_related("by") if runs else ()
    return {(row.run_id, row.step, row.ord): row for row in rows}
