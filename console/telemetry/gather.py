"""The rows of a run -> what its spans are made of."""

import json
import logging
from uuid import UUID

from django.conf import settings

from console import records
from runs.models import Call, Event, ModelDefinition, Run
from tenants import credentials
from tools.redaction import Redactor

from . import spans
from .content import Content
from .spans import About, Span

log = logging.getLogger(__name__)


def spans_of(run_ids: list[UUID]) -> tuple[list[tuple[UUID, list[Span]]], list[UUID]]:
    """-> (run and spans, in the order given; runs that cannot be told, or are gone). One bad run keeps no other back."""
    rows = {run.id: run for run in Run.objects.select_related("tenant", "asked").filter(id__in=run_ids)}
    providers = dict(ModelDefinition.objects.values_list("name", "provider"))
    made, bad = [], [run_id for run_id in run_ids if run_id not in rows]
    for run_id in run_ids:
        if run_id not in rows:
            continue
        try:
            made.append((run_id, of_run(rows[run_id], providers)))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.exception("telemetry: run %s cannot be told and is passed over", rows[run_id].run_id)
            bad.append(run_id)
    return made, bad


def of_run(run: Run, providers: dict[str, str]) -> list[Span]:
    content = content_of(run) if settings.OTEL_CONTENT else None
    about = About(run.run_id, run.tenant.slug, run.asked.traceparent, providers, content)
    events = [records.event_record(event) for event in Event.objects.filter(run_id=run.id).order_by("seq")]
    calls = [records.call_record(run.run_id, call, []) for call in Call.objects.filter(run_id=run.id).order_by("step", "ord")]
    return spans.of_run(about, events, calls)


def content_of(run: Run) -> Content:
    redactor = Redactor(credentials.open_all(run.tenant_id).values())
    asked = run.asked
    question = asked.text if asked.data is None else asked.text + "\n\n" + json.dumps(asked.data, ensure_ascii=False)
    return Content(question, asked.session, lambda value: redactor.value(value)[0])
