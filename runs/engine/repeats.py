"""Calls that a run has made before, each time with the same answer."""

from runs import loops
from runs.inference.tiers import CRITIQUE

from .flight import JSON, Flight, ToolCall, Turn


def times(f: Flight, call: ToolCall) -> int:
    """How often this very question was answered alike before; 0: it may be asked (again)."""
    remember(f)
    key = key_of(call)
    found = loops.answers_alike(((key, result) for result in f.answers.get(key, ())), key)
    return found if found >= loops.SEEN else 0


def remember(f: Flight) -> None:
    """The answers of turns that were settled since it was last looked. The turn of an open call is none of them."""
    for turn in f.turns[f.answered : f.behind] if f.turn else ():
        for call in turn.calls if turn.role != CRITIQUE else ():
            if call.result is not None and call.error != "loop":
                f.answers.setdefault(key_of(call), []).append(call.result)
    f.answered = f.behind


def key_of(call: ToolCall) -> str:
    if not call.key:
        call.key = loops.key(call.name, call.args)
    return call.key


def hint(f: Flight, turn: Turn, call: ToolCall, found: int) -> JSON:
    """What the model is told instead: where its answer already is."""
    seen = max(t.step for t in f.work if t is not turn and any(key_of(c) == key_of(call) for c in t.calls))
    message = f"Not sent: this call was answered {found} times, each time alike. Use that answer, ask for something else, or answer now."
    return {"ok": False, "error_type": "loop_detected", "message": message, "step": seen, "times": found}
