"""Putting a run that waited for people back into the queue, its deadline moved on by the wait."""

from django.db.models import DateTimeField, ExpressionWrapper, F
from django.db.models.functions import Coalesce, Now

from .events import Kind, event
from .history import DUE, append, notify
from .models import Run, RunInput
from .states import RunState


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
        deadline_at=F("deadline_at") if _counts_waiting(run) else moved_on,
    )
    notify(DUE, run.id)


def _counts_waiting(run: Run) -> bool:
    asked = RunInput.objects.filter(pk=run.pk).values_list("limits", flat=True).first()
    return bool(asked and asked.get("count_waiting"))
