"""Kill switches at the dispatch: whether one covers the run, or a call that it wants, and what follows."""

from runs import stops
from runs.budgets import Stop
from runs.states import Outcome, RunState
from runs.stops import SwitchOn
from tenants.ids import encode
from tools.definitions import ToolDefinition

from .flight import Ending, Flight, ToolCall


def over(f: Flight) -> SwitchOn | None:
    """The switch that the run has met. It counts for the whole run, or for the call that is its one next move."""
    whole = stops.of_run(f.snapshot.switches, f.tenant, f.release.agent)
    return stops.strictest(s for s in (whole, f.halt) if s)


def of_call(f: Flight, call: ToolCall, definition: ToolDefinition) -> SwitchOn | None:
    return stops.of_call(f.snapshot.switches, f.tenant, call.name, mutating=definition.mutating)


def ending(f: Flight) -> Ending | None:
    """How the run ends if the switch says stop."""
    met = over(f)
    if met is None or met.then != stops.STOP:
        return None
    return Ending(RunState.FAILED, Outcome.STOPPED_BY_SWITCH, Stop("switch", 0, 1, encode("swi", met.id)))
