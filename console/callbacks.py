"""What a callback says. State, outcome, seq and time are of the moment when the run got there; the rest never changes, or no more."""

import json
from typing import Any
from uuid import UUID

from runs.models import Run, RunInput
from runs.states import TERMINAL
from runs.tracing import trace_of
from tenants.ids import encode

from . import records

JSON = dict[str, Any]


def body_of(event: str, run_id: UUID | None, moment: JSON) -> bytes:
    """`moment`: the delivery's body, as the trigger wrote it. Output and usage are told of runs that have ended."""
    run = records.RUN_ROWS.filter(id=run_id).first() if run_id else None
    data = {key: value for key, value in moment.items() if key != "at"} | (about(run, moment) if run else {})
    told = {"type": event, "timestamp": moment.get("at"), "data": data}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def trace_headers(run_id: UUID | None) -> dict[str, str]:
    """What is told of a run belongs to its trace."""
    given = RunInput.objects.filter(run_id=run_id).values_list("traceparent", flat=True).first() if run_id else None
    return {} if run_id is None else {"traceparent": trace_of(encode("agt", run_id), given).root_header}


def about(run: Run, moment: JSON) -> JSON:
    asked = {
        "run_id": run.run_id,
        "tenant": run.tenant.slug,
        "agent": run.agent_id,
        "session": run.asked.session or None,
        "metadata": run.asked.metadata,
    }
    if moment.get("state") not in TERMINAL:
        return asked
    record = records.run_records([run])[0]
    return asked | {key: record[key] for key in ("output", "usage", "cost_usd", "tools_called", "last_error", "ended_at")}
