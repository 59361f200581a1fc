"""Events from people's transactions (engines write theirs through the journal), and the hints that wake engines and pages."""

import json
import uuid
from collections.abc import Iterable

from django.db import connection

from .models import Event, Run

DUE = "signalbox_due"  # a run became claimable: engines listen
MOVED = "signalbox_moved"  # a run has new events: web processes listen
HINT_BYTES = 7900  # of a NOTIFY at most


def append(run: Run, events: Iterable[tuple[str, str]]) -> None:
    """Number and insert events under the lock of `run` (select_for_update(no_key=True)); the caller saves `run` with its seq."""
    rows = []
    for kind, payload in events:
        run.seq += 1
        rows.append(Event(run_id=run.id, seq=run.seq, tenant_id=run.tenant_id, kind=kind, payload=json.loads(payload)))
    Event.objects.bulk_create(rows)
    notify(MOVED, run.id)


def notify(channel: str, run_id: uuid.UUID) -> None:
    """A hint, delivered when the transaction commits. Rows are the truth: nothing is lost when it is."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, %s)", [channel, run_id.hex])


def hint(channel: str, runs: Iterable[uuid.UUID] = ()) -> None:
    """The same for many runs. None, or more than a message holds: whoever listens looks at everything."""
    payload = ",".join(run.hex for run in runs)
    with connection.cursor() as cursor:
        cursor.execute("select pg_notify(%s, %s)", [channel, payload if len(payload) < HINT_BYTES else ""])
