"""Undoing, for people and for the API: which writes of a run can be undone, and what became of those that were."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils import timezone

from runs import undo
from runs.models import Call, Run
from runs.states import CallState
from tools.models import ToolVersion

from . import records, sentences

JSON = dict[str, Any]
SENT = (CallState.DONE, CallState.UNKNOWN)
PAST = ("undo_too_late", "undo_of_undo")  # nothing to do about it any more


@dataclass(frozen=True, slots=True)
class Line:
    """One write. `key`: "2.1"."""

    key: str
    call: Call
    undoing: undo.Undoing

    @property
    def says(self) -> str:
        return says(self.call)

    @property
    def tag(self) -> tuple[str, str]:
        """(word, tone)"""
        return tag_of(self.undoing)

    @property
    def failed(self) -> bool:
        """The last undo ended without being made."""
        return self.undoing.made is not None and self.undoing.code not in ("already_undone", "undo_under_way")


def says(call: Call) -> str:
    return sentences.headline(call.name, json.loads(bytes(call.args or b"{}")))


def tag_of(undoing: undo.Undoing) -> tuple[str, str]:
    words = {"already_undone": ("Undone", "ok"), "undo_under_way": ("Being undone", "wait"), "outcome_unknown": ("Not known", "fail")}
    return words.get(undoing.code, ("Applied", ""))


def of_run(run: Run, *, past: bool = False) -> list[Line]:
    """The writes that can be undone or were, in the order of the run; `past`: also those that cannot any more. One query where there
    is none."""
    undoable = ToolVersion.objects.filter(compensate__isnull=False).values("id")
    calls = list(Call.objects.filter(run_id=run.id, ord__gt=0, state__in=SENT, tool_version_id__in=undoable).order_by("step", "ord"))
    found = undo.of(calls, timezone.now(), of_undo=undo.is_undo(run.asked))
    lines = [Line(f"{call.step}.{call.ord}", call, found[undo.key(call)]) for call in calls if undo.key(call) in found]
    return [line for line in lines if past or line.undoing.made or line.undoing.code not in PAST]


def any_of(run_ids: Iterable[UUID]) -> bool:
    """Whether these runs made a write that its tool can undo, be it too late or not. One query."""
    undoable = ToolVersion.objects.filter(compensate__isnull=False).values("id")
    return Call.objects.filter(run_id__in=run_ids, ord__gt=0, state__in=SENT, tool_version_id__in=undoable).exists()


def step_records(run: Run) -> list[JSON]:
    """As `records.step_records`, each call with its `compensation`."""
    found = {f"{run.run_id}.{line.key}": record(line.undoing) for line in of_run(run, past=True)}
    steps = records.step_records(run)
    for call in (call for step in steps for call in step["calls"]):
        call["compensation"] = found.get(call["call_id"])
    return steps


def record(undoing: undo.Undoing) -> JSON:
    """`run_id`, `state`: of the run that undoes it."""
    return {
        "available": undoing.available,
        "why": undoing.code or None,
        "tool": undoing.tool,
        "until": records.time(undoing.until),
        "run_id": undoing.made.run_id if undoing.made else None,
        "state": undoing.made.state if undoing.made else None,
    }
