"""Answers that cost no model call: what the same question was answered before, and what the reads of this run brought."""

import json
from dataclasses import dataclass, field

from runs.events import encode
from runs.inference.tiers import FROM_STORE
from runs.states import CallState, Outcome, RunState

from .flight import JSON, Ending, Flight, Intent, Turn
from .journal import Changed, Planned

LONGEST = 8000  # characters of one result that are shown
NAMES = {"cached": "earlier_answer", "retrieval_only": "what_was_found"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`source`: where it comes from, for the run's record: references and ages, no text."""

    kind: str
    text: str
    source: JSON = field(default_factory=dict)


def found(f: Flight) -> Answer | None:
    """The results of the run's reads as they are."""
    parts = []
    for turn in f.work:
        for call in turn.calls:
            definition = f.release.tools.get(call.name)
            if call.state == CallState.DONE and call.result and definition and not definition.mutating:
                shown = json.dumps({k: v for k, v in call.result.items() if k != "ok"}, ensure_ascii=False, indent=2)
                parts.append(f"{call.name} (step {turn.step}):\n{shown[:LONGEST]}")
    if not parts:
        return None
    text = "No answer could be written. This is what was found:\n\n" + "\n\n".join(parts)
    return Answer("retrieval_only", text, {"results": len(parts)})


async def give(f: Flight, answer: Answer) -> None:
    """The answer becomes a step of its own, and the run ends with it."""
    step, name = max((turn.step for turn in f.turns if turn.state is not None), default=0) + 1, NAMES[answer.kind]
    f.pending.steps.append((step, FROM_STORE, name, 0))
    await f.commit(Intent(planned=[Planned(step, 0, CallState.DISPATCHED, name, None, "read", attempt=1)]))
    reply = {"text": answer.text, "calls": [], "finish": "stop", "model": name, "estimated": False, "source": answer.source}
    f.turns.append(Turn(step, FROM_STORE, name, CallState.DONE, 1, 1, reply))
    f.pending.changed.append(Changed(step, 0, CallState.DONE, result=encode(reply)))
    f.ending = Ending(RunState.SUCCEEDED, Outcome.COMPLETED_DEGRADED, answer_step=step)
