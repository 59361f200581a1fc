"""Which role takes a turn, and which models may serve it. Pure: the history comes in as facts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runs.spec import Models, RoleModel

PLANNER: Final = "planner"
REFORMULATION: Final = "reformulation"
SYNTHESIS: Final = "synthesis"
CRITIQUE: Final = "critique"
ACTION: Final = "action"  # no model: a person named the call
FROM_STORE: Final = "store"  # no model: an earlier answer, or what the reads brought
REFORMULATIONS_IN_A_ROW: Final = 2

Holds = Callable[[str], bool]  # evaluates a role's `when`; False when it does not hold, and also when it cannot tell


@dataclass(frozen=True, slots=True)
class Turn:
    """A past turn: the role that took it, and whether one of its reads came back empty or invalid (`came_back_poor`)."""

    role: str
    poor_read: bool


def role_for(models: Models, turns: Sequence[Turn], holds: Holds) -> str:
    """The role of the next turn; the last few `turns`, oldest first, are enough."""
    if turns and turns[-1].poor_read and _in_a_row(turns) < REFORMULATIONS_IN_A_ROW and _is_set(models.reformulation, holds):
        return REFORMULATION
    return PLANNER


def closing_role(models: Models, holds: Holds) -> str | None:
    """The role that writes the answer after the planner ended without calls. None: the planner's text is the answer."""
    return SYNTHESIS if _is_set(models.synthesis, holds) else None


def critique_for(models: Models, what: str, holds: Holds) -> bool:
    """Whether the critique checks this: `answer` or `writes`."""
    return models.critique is not None and what in models.critique.checks and _is_set(models.critique, holds)


def model_for(models: Models, role: str) -> RoleModel:
    """A missing role means the planner. Its candidates are `(chosen.model, *chosen.fallback)`, in this order."""
    chosen = {REFORMULATION: models.reformulation, SYNTHESIS: models.synthesis, CRITIQUE: models.critique}.get(role)
    return chosen or models.planner


def came_back_poor(data: Mapping[str, Any]) -> bool:
    """Whether a read's `{"ok": …}` is worth asking for in other words: arguments refused, answer unusable, or nothing found.

    Outages and refusals are not: other words do not cure them. Numbers and booleans count as nothing only beside an
    empty list, object or text: `{"results": [], "total": 0}` is empty, `{"balance": 0}` is an answer.
    """
    if data.get("ok") is not True:
        return data.get("error_type") in ("validation", "invalid_output")
    values = [value for key, value in data.items() if key != "ok"]
    if values and all(isinstance(value, bool | int | float) for value in values):
        return False
    return all(_is_empty(value) for value in values)


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return all(_is_empty(inner) for inner in value.values()) if isinstance(value, dict) else not value


def _in_a_row(turns: Sequence[Turn]) -> int:
    count = 0
    for turn in reversed(turns):
        if turn.role != REFORMULATION:
            break
        count += 1
    return count


def _is_set(role: RoleModel | None, holds: Holds) -> bool:
    return role is not None and (role.when is None or holds(role.when))
