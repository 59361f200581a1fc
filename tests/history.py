"""What every test with real runs ends on: each event that they wrote is of the catalogue, and each run follows from its events."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs

from runs.event_catalogue import schema_of
from runs.events import Kind

MOST = 200  # runs of one test; those of a storm are alike


@cache
def validator(kind: str) -> Any:
    return jsonschema_rs.Draft202012Validator(schema_of(Kind(kind), strict=True), validate_formats=True)


def faults(*tenants: str) -> list[str]:
    """One line for each event or run (of these tenants, or of all) that is not as it must be."""
    from console import records
    from runs.models import Call, Event
    from tenants.scope import ALL, tenant_scope

    with tenant_scope(ALL):
        held = records.RUN_ROWS.filter(tenant__slug__in=tenants) if tenants else records.RUN_ROWS
        runs = list(held.order_by("-id")[:MOST])
        ids = [run.id for run in runs]
        events, calls = defaultdict(list), defaultdict(list)
        for event in Event.objects.filter(run_id__in=ids).order_by("run_id", "seq"):
            events[event.run_id].append(records.event_record(event))
        for call in Call.objects.filter(run_id__in=ids).order_by("run_id", "step", "ord"):
            calls[call.run_id].append(call)
        rows = {run.id: row for run, row in zip(runs, records.run_records(runs), strict=True)}
    return [fault for run in runs for fault in of_run(rows[run.id], events[run.id], calls[run.id])]


def of_run(row: dict[str, Any], events: list[dict[str, Any]], calls: list[Any]) -> Iterator[str]:
    from console import records
    from console.rebuild import differences, rebuild

    for event in events:
        for error in validator(event["event"]).iter_errors(event):
            yield f"{event['run_id']} {event['seq']} {event['event']}: {'/'.join(map(str, error.instance_path))}: {error.message} {event}"
    if events:  # a row that a test made by hand has none
        differ = differences(rebuild(events, [records.call_record(row["run_id"], call, []) for call in calls]), row)
        if differ:
            yield f"{row['run_id']} {[event['event'] for event in events]}: {differ}"
