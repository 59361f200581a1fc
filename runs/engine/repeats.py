"""Calls that a run has made before, each time with the same answer."""

from runs import loops

from .flight import JSON, Flight, ToolCall, Turn


def times(f: Flight, call: ToolCall) -> int:
    """How often this very question was answered alike before; 0: it may be asked (again)."""
    past = [turn for turn in f.work if call not in turn.calls]
    if len(past) < loops.SEEN:
        return 0
    settled = ((key_of(c), c.result) for t in past for c in t.calls if c.result is not None and c.error != "loop")
    found = loops.answers_alike(settled, key_of(call))
    return found if found >= loops.SEEN else 0


def key_of(call: ToolCall) -> str:
    if not call.key:
        call.key = loops.key(call.name, call.args)
    return call.key


def hint(f: Flight, turn: Turn, call: ToolCall, found: int) -> JSON:
    """What the model is told instead: where its answer already is."""
    seen = max(t.step for t in f.work if t is not turn and any(key_of(c) == key_of(call) for c in t.calls))
    message = f"Not sent: this call was answered {found} times, each time alike. Use that answer, ask for something else, or answer now."
    return {"ok": False, "error_type": "loop_detected", "message": message, "step": seen, "times": found}
