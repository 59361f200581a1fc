"""Ten thousand runs chosen, frozen as a list and cancelled: part of `python -m tests.bench.pages`. Nothing is asserted.

The list is frozen by ids, as the console posts them, and worked off by one process, as one task does it, for a while. All in a process
that has the settings already.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.bench.report import tell

MANY = 10_000
WORKED_S = 20
T = TypeVar("T")


def measured(client: Any, username: str) -> None:
    """Rows of a bulk by this person, who is a platform admin."""
    from console import bulk_work, bulks
    from console.api.identity import actor_for
    from tenants.models import User
    from tenants.scope import ALL, tenant_scope

    with tenant_scope(ALL):
        actor, ids = actor_for(User.objects.get(username=username), None), waiting()
        made, froze_s = took(lambda: bulks.draft_of(actor, "cancel", ids))
    tell("S12", f"a list of {MANY:,} chosen runs, frozen", f"{froze_s * 1000:.0f} ms")
    _, shown_s = took(lambda: client.get(f"/runs/bulk/{made}/"))
    with tenant_scope(ALL):
        bulks.start(actor, made, "bench")
        until = time.monotonic() + WORKED_S
        _, worked_s = took(lambda: bulk_work.advance(made, lambda: time.monotonic() > until))
        done = bulks.tally(made)[bulks.Outcome.DONE]
    _, told_s = took(lambda: client.get(f"/runs/bulk/{made}/"))
    tell("S12", "its page before it is started, and when it is under way", f"{shown_s * 1000:.0f}, {told_s * 1000:.0f} ms", "p95 150 ms",
         max(shown_s, told_s) / 0.150)  # fmt: skip
    tell("S12", f"cancelling them, each in its own transaction ({done:,} in this row)", f"{worked_s / done * 1000:.1f} ms each")


def took(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def waiting() -> list[str]:
    """As many runs that nobody will take: like one of the past, but queued for tomorrow."""
    from datetime import timedelta

    from django.db.models.functions import Now

    from runs.models import Run, RunInput
    from tenants.ids import new_id

    like = Run.objects.filter(outcome="completed").order_by("-id")[0]
    asked = RunInput.objects.get(pk=like.pk)
    changed = {"state": "queued", "outcome": "", "ended_at": None, "owner": None, "available_at": Now() + timedelta(days=1)}
    runs, inputs = fields_of(like) | changed, fields_of(asked)
    ids = [new_id() for _ in range(MANY)]
    made = Run.objects.bulk_create([Run(**{**runs, "id": one}) for one in ids], batch_size=1000)
    RunInput.objects.bulk_create([RunInput(**{**inputs, "run_id": one}) for one in ids], batch_size=1000)
    return [run.run_id for run in made]


def fields_of(row: Any) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
