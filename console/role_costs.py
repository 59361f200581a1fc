"""What the model calls of a run came to, by the role that made them and the model that served it."""

from dataclasses import dataclass
from typing import Any

from runs.models import Call, Event, Run

from . import records

SUMS = ("tokens_in", "tokens_out", "cost_micro")


@dataclass(slots=True)
class Spent:
    """Millionths of a USD. `unknown`: calls of it had no price, so the cost is a lower bound, or nothing at all."""

    role: str
    model: str
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micro: int = 0
    unknown: bool = False


def of(run: Run) -> list[Spent]:
    """In the order in which they came to work. A call whose model was changed counts for the last one; lost and failed calls count too."""
    started = Event.objects.filter(run_id=run.id, kind="model_call_started").values_list("payload__step_id", "payload__data__role")
    roles = {step: role for step, role in started if role}
    spent: dict[tuple[str, str], Spent] = {}
    rows = Call.objects.filter(run_id=run.id, ord=0, step__in=roles).order_by("step").values_list("step", "name", *SUMS)
    for step, name, tokens_in, tokens_out, cost in rows:
        one = spent.setdefault((roles[step], name), Spent(roles[step], name))
        one.calls += 1
        one.tokens_in += tokens_in
        one.tokens_out += tokens_out
        one.cost_micro += cost
        one.unknown = one.unknown or (run.unpriced and not cost and bool(tokens_in or tokens_out))
    return list(spent.values())


def record(run: Run) -> list[dict[str, Any]]:
    """`cost_usd` null: not known."""
    return [
        {
            "role": one.role,
            "model": one.model,
            "calls": one.calls,
            "input_tokens": one.tokens_in,
            "output_tokens": one.tokens_out,
            "cost_usd": None if one.unknown else records.usd(one.cost_micro),
        }
        for one in of(run)
    ]
