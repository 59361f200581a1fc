"""Putting runs that waited for people back into the queue, their deadlines moved on by the wait."""

from uuid import UUID

from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, F
from django.db.models.functions import Coalesce, Now

from .events import Kind, event
from .history import DUE, MOVED, append, hint, notify
from .models import Run, RunInput
from .states import RunState

# Paused runs and the seconds until each is due, all locked by the caller. Until then its deadline stands still.
REQUEUE = """
with moved as (
  update run r set state = 'queued', seq = r.seq + 1, paused_by = null, waiting_since = null,
      available_at = statement_timestamp() + make_interval(secs => x.after),
      deadline_at = case when coalesce((i.limits->>'count_waiting')::bool, false) then r.deadline_at
          else r.deadline_at + make_interval(secs => x.after)
              + (statement_timestamp() - coalesce(r.waiting_since, statement_timestamp())) end
  from unnest(%(runs)s::uuid[], %(after)s::float8[]) as x(id, after) join run_input i on i.run_id = x.id
  where r.id = x.id and r.state = 'paused'
  returning r.id, r.seq, r.tenant_id
)
insert into event(run_id, seq, tenant_id, kind, payload, at)
select id, seq, tenant_id, 'run_resumed', '{"v":1}', clock_timestamp() from moved
"""


def requeue(run: Run, events: list[tuple[str, str]]) -> None:
    """Under the run's lock: write the events and `run_resumed`, and wake an engine."""
    append(run, [*events, event(Kind.RUN_RESUMED)])
    waited = Now() - Coalesce(F("waiting_since"), Now())
    moved_on = ExpressionWrapper(F("deadline_at") + waited, output_field=DateTimeField())
    Run.objects.filter(pk=run.pk, state=run.state).update(
        seq=run.seq,
        state=RunState.QUEUED,
        available_at=Now(),
        waiting_since=None,
        paused_by=None,
        deadline_at=F("deadline_at") if _counts_waiting(run) else moved_on,
    )
    notify(DUE, run.id)


def requeue_paused(due: list[tuple[UUID, float]]) -> None:
    """Many at once, each with the seconds until it is due. The caller has locked them."""
    if not due:
        return
    with connection.cursor() as cursor:
        cursor.execute(REQUEUE, {"runs": [run for run, _ in due], "after": [after for _, after in due]})
    hint(DUE)
    hint(MOVED, [run for run, _ in due])


def _counts_waiting(run: Run) -> bool:
    asked = RunInput.objects.filter(pk=run.pk).values_list("limits", flat=True).first()
    return bool(asked and asked.get("count_waiting"))
