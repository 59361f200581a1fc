"""More of a run's limits, granted once by a person: what is asked for, and what granting it does. The run waits in `waiting_budget`."""

import json
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any
from uuid import UUID

from django.db.models.functions import Now
from pydantic import Field, model_validator

from approvals import gate
from approvals.models import Approval
from tenants import quotas
from tenants.errors import Refused

from .events import Kind, event
from .limits import Strict
from .models import Run, RunInput

COUNTS = ("max_steps", "max_tool_calls", "max_writes", "max_input_tokens", "max_output_tokens")
GRANTABLE = (*COUNTS, "max_cost_usd")
CENT = Decimal("0.01")


class More(Strict):
    """How much is added to each limit."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_writes: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_input_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=6)] | None = None

    @model_validator(mode="after")
    def asks_for_something(self) -> "More":
        if not self.model_fields_set:
            raise ValueError("add names no limit")
        return self


def proposal(limit: str, value: float, used: float) -> dict[str, Any]:
    """What is asked for: half of the limit again, and at least what the next call needs."""
    if limit == "max_cost_usd":
        more = max(Decimal(str(value)) / 2, Decimal(str(used)) - Decimal(str(value)), CENT)
        return {limit: str(more.quantize(CENT, rounding=ROUND_CEILING))}
    return {limit: max(int(value) // 2, int(used) - int(value), 1)}


def grant(run: Run, approval: Approval, by: str, add: More | None = None) -> tuple[str, str]:
    """Under the run's lock: raise its limits, and what it holds of the ceilings. -> the event. Refuses ceiling_reached 402."""
    more = add or More.model_validate(json.loads(bytes(approval.args))["add"])
    asked = RunInput.objects.get(pk=run.pk)
    before = dict(asked.limits)
    if more.max_cost_usd is not None:
        micro = int(more.max_cost_usd * 1_000_000)
        quotas.more(run.id, micro)
        asked.limits["max_cost_micro"] += micro
    for name in COUNTS:
        asked.limits[name] += getattr(more, name) or 0
    asked.save(update_fields=["limits"])
    gate.use_up(approval)
    changed = {name: {"from": before[name], "to": value} for name, value in asked.limits.items() if before[name] != value}
    data = {"approval_id": approval.approval_id, "by": by, "limits": changed}
    return event(Kind.BUDGET_GRANTED, step_id=approval.step, result="ok", data=data)


def waiting(run_id: UUID) -> Approval:
    """The open request of a run that waits for more. Refuses run_not_waiting 409."""
    found = Approval.objects.filter(run_id=run_id, kind=Approval.Kind.BUDGET, state=Approval.State.PENDING, expires_at__gt=Now()).first()
    if found is None:
        message = "This run does not wait for more of its budget. Only a run whose ladder asks for more can be extended."
        raise Refused("run_not_waiting", message, 409)
    return found
