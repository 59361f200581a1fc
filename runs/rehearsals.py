"""Runs that change nothing: shadows of real runs, cases of an evaluation, forks. Their writes are kept and never sent.

Everything else is as in any run: the model is asked, schema and policy rule, budgets bind. Only where a call would be sent, or a person
asked, the answer comes from a book instead: what the same call came to in another run, what a case says, or a plain "recorded".
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from tools import canonical

from .models import Call, RunInput

JSON = dict[str, Any]
MODES = ("shadow", "eval", "fork")  # of a run; figures of production leave these out
REHEARSED = "rehearsed"  # the error class of a call that was answered from the book
COPIED = "copied"  # and of one that a fork was given
UNSENT = (REHEARSED, COPIED)
Reads = Literal["live", "recorded", "both"]
KEPT = {"ok": True, "status": "recorded", "message": "Kept as what would have been done. Nothing was sent."}
NOT_IN_BOOK = {"ok": False, "error_type": "not_recorded", "message": "There is no recorded result for these arguments."}


@dataclass(frozen=True, slots=True)
class Told:
    """One answer of the book. `source`: recorded (in another run), simulated (by a case), would_have (a write that nothing answers)."""

    result: JSON
    source: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`reads`: sent (live), from the book alone (recorded), or sent where the book has nothing (both). Writes are never sent.

    `results`: what a case says, [{tool, args?, result}]: `args` are those that a call has to have; the first that fits is used.
    `recorded`: (tool, sha256 of the arguments) -> what they came to, one for each time they were used.
    `mode`: of the run that is rehearsed.
    """

    kind: str
    reads: Reads = "live"
    mode: str = "normal"
    results: tuple[Mapping[str, Any], ...] = ()
    recorded: Mapping[tuple[str, str], Sequence[JSON]] = field(default_factory=dict)

    def answer(self, tool: str, args: bytes, *, mutating: bool, before: int) -> Told | None:
        """None: it is a read, and is sent. `before`: how often the run made the same call already."""
        found = self.simulated(tool, args) or self.from_record(tool, args, before)
        if found is not None:
            return found
        if mutating:
            return Told(KEPT, "would_have")
        return Told(NOT_IN_BOOK, "recorded") if self.reads == "recorded" else None

    def simulated(self, tool: str, args: bytes) -> Told | None:
        given = canonical.loads_limited(args)
        for entry in self.results:
            wanted = entry.get("args") or {}
            if entry["tool"] == tool and all(name in given and given[name] == value for name, value in wanted.items()):
                return Told(dict(entry["result"]), "simulated")
        return None

    def from_record(self, tool: str, args: bytes, before: int) -> Told | None:
        """The nth time is answered with the nth result; further ones with the last."""
        past = self.recorded.get((tool, hashlib.sha256(args).hexdigest())) if self.uses_record(tool) else None
        return Told(dict(past[min(before, len(past) - 1)]), "recorded") if past else None

    def uses_record(self, tool: str) -> bool:
        return self.reads != "live" or (tool, "") in self.recorded


def load(asked: JSON) -> Rehearsal:
    """The rehearsal that a run was accepted with (`RunInput.rehearsal`), with its book."""
    recorded = book(UUID(asked["of"])) if asked.get("of") else {}
    return Rehearsal(asked["kind"], asked.get("reads", "live"), asked.get("mode", "normal"), tuple(asked.get("results") or ()), recorded)


def book(run_id: UUID) -> dict[tuple[str, str], list[JSON]]:
    """What the calls of a run came to, and those of the run that it took its first steps from. (tool, "") marks each write.

    A call that a person edited is found by what the model asked for as well, because it will ask for the same again.
    """
    found: dict[tuple[str, str], list[JSON]] = defaultdict(list)
    rows = Call.objects.filter(run_id=run_id, ord__gt=0, result__isnull=False, args__isnull=False).order_by("step", "ord")
    for call in rows:
        for args in {bytes(call.args or b""), bytes(call.proposed or call.args or b"")}:
            found[call.name, hashlib.sha256(args).hexdigest()].append(dict(call.result or {}))
        if call.effect != "read":
            found[call.name, ""] = [{}]
    return dict(found)


def of(run_id: UUID) -> JSON | None:
    """What the run was accepted with; None: it is a real one."""
    asked: JSON | None = RunInput.objects.filter(run_id=run_id).values_list("rehearsal", flat=True).first()
    return asked
