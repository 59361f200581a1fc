"""What must hold after any trouble: the rows, the events, and what the other side received, compared."""

import json
from collections import Counter, defaultdict
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

from console.sandbox.world import args_sha256
from runs.models import Call, Event, Run, UnknownWrite
from runs.retries import MAX_SENDS
from runs.states import CallState
from tests.runtime.world import TOOLS, World

HELD = ("succeeded", "failed", "cancelled", "needs_reconciliation", "quarantined")
MAY_BE_SENT = (CallState.DISPATCHED, CallState.DONE, CallState.UNKNOWN, CallState.FAILED_NOT_APPLIED)
KEYED = {name for name, tool in TOOLS.items() if tool.get("idempotency") == "key"}
WRITES = {name for name, tool in TOOLS.items() if tool["effect"] != "read"}


async def violations(world: World) -> list[str]:
    """Everything that is wrong; each run of the test has arguments of its own, so that a write is known by their hash."""
    ledger, received = await world.ledger(), await world.received()
    return await sync_to_async(compare)(ledger, received)


def compare(ledger: list[dict[str, Any]], received: list[dict[str, Any]]) -> list[str]:
    calls = {(c.name, args_sha256(json.loads(bytes(c.args)))): c for c in Call.objects.filter(ord__gt=0, args__isnull=False)}
    return [*of_effects(ledger, calls), *of_sends(received, calls), *of_runs(), *of_database()]


def of_effects(ledger: list[dict[str, Any]], calls: dict[tuple[str, str], Call]) -> list[str]:
    wrong = []
    effects = Counter((e["tool"], e["args_sha256"]) for e in ledger)
    for place, times in effects.items():
        call = calls.get(place)
        if times > 1:
            wrong.append(f"{place[0]} was applied {times} times")
        if call is None or call.state not in MAY_BE_SENT:
            wrong.append(f"{place[0]} was applied without a durable intent ({call and call.state})")
        elif call.state == CallState.FAILED_NOT_APPLIED:
            wrong.append(f"{place[0]} was applied, the record says it was not")
    for place, call in calls.items():
        if call.name in WRITES and call.state == CallState.DONE and place not in effects:
            wrong.append(f"{call.name} is done in the record, and was never applied")
    return wrong


def of_sends(received: list[dict[str, Any]], calls: dict[tuple[str, str], Call]) -> list[str]:
    wrong = []
    sends: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for request in received:
        if request["target"] in TOOLS:
            sends[request["target"], request["args_sha256"]].append(request["key"])
    for place, keys in sends.items():
        if len(keys) > MAX_SENDS:
            wrong.append(f"{place[0]} was sent {len(keys)} times")
        if place[0] in WRITES and place[0] not in KEYED and len(keys) > 1:
            wrong.append(f"{place[0]} has no key and was sent {len(keys)} times")
        if place[0] in KEYED and len(set(keys)) > 1:
            wrong.append(f"{place[0]} was sent under {len(set(keys))} keys")
        if place not in calls:
            wrong.append(f"{place[0]} was sent, and no row knows of it")
    return wrong


def of_runs() -> list[str]:
    wrong = []
    seqs: dict[Any, list[int]] = defaultdict(list)
    ended: Counter[Any] = Counter()
    for run_id, seq, kind in Event.objects.order_by("run_id", "seq").values_list("run_id", "seq", "kind"):
        seqs[run_id].append(seq)
        ended[run_id] += kind == "run_completed"
    open_calls = set(Call.objects.filter(state=CallState.UNKNOWN).values_list("run_id", "step", "ord"))
    open_cases = set(UnknownWrite.objects.filter(result="").values_list("run_id", "step", "ord"))
    wrong += [f"an open case on a call that is settled: {place}" for place in open_cases - open_calls]
    unknown, cases = {place[0] for place in open_calls}, {place[0] for place in open_cases}
    for run in Run.objects.all():
        if seqs[run.id] != list(range(1, run.seq + 1)):
            wrong.append(f"{run.run_id}: events {seqs[run.id]}, seq {run.seq}")
        if ended[run.id] != (run.state in ("succeeded", "failed", "cancelled")):
            wrong.append(f"{run.run_id}: {run.state} with {ended[run.id]} endings")
        if run.state in HELD and run.owner is not None:
            wrong.append(f"{run.run_id}: {run.state}, and still owned")
        if run.state == "needs_reconciliation" and not (run.id in unknown and run.id in cases):
            wrong.append(f"{run.run_id}: needs reconciliation without an open case")
        if run.state == "succeeded" and run.id in unknown:
            wrong.append(f"{run.run_id}: succeeded, and the outcome of a call is unknown")
    return wrong


def of_database() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("select deadlocks from pg_stat_database where datname = current_database()")
        (deadlocks,) = cursor.fetchone()
    return [f"{deadlocks} deadlocks"] if deadlocks else []
