"""A run whose one call a person named: a draft carried out, or an action undone. No model takes part; policy and people do."""

from runs.states import CallState, Outcome, RunState

from . import tool_call
from .flight import Ending, Flight

REFUSED = {
    "approval_rejected": Outcome.APPROVAL_REJECTED,
    "approval_expired": Outcome.APPROVAL_EXPIRED,
    "denied": Outcome.POLICY_DENIED,
}


def follow(f: Flight) -> None:
    """Open the only turn, or end with what its call came to."""
    if not f.turns:
        turn = f.acting()
        f.turns.append(turn)
        f.pending.steps.append((turn.step, turn.role, turn.model, 1))
        tool_call.open_calls(turn)
        return
    call = f.turns[0].calls[0]
    if call.state == CallState.DONE:
        f.ending = Ending(RunState.SUCCEEDED, Outcome.COMPLETED)
        return
    said = call.result or {}
    outcome = REFUSED.get(str(said.get("error_type")), Outcome.TOOL_ERROR)
    error = {"error_type": call.error or said.get("error_type"), "message": str(said.get("message"))[:500]}
    f.ending = Ending(RunState.FAILED, outcome, error=error)
