"""The path of a run from its rows, its score, and the scores of a share of what production did."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from approvals.models import Approval
from runs import loops
from runs.events import Kind
from runs.inference.tiers import CRITIQUE
from runs.models import Call, Event, Run, Score, Step
from runs.rehearsals import MODES, REHEARSED
from runs.states import TERMINAL, CallState
from tenants.ids import first_at

from .cases import Expectations
from .checks import VERSION, Measure, failing
from .checks import score as checked
from .paths import Path, ToolCall, Turn

JSON = dict[str, Any]
SAID_YES = (Approval.State.APPROVED, Approval.State.CONSUMED)
SHARE = 0.2  # of the runs of production that have ended
LATELY = timedelta(hours=24)  # a run that started before is scored no more
AT_ONCE = 500  # scores of one go
BATCH = 50  # runs whose rows are held in memory together
# The last 16 bits of an id are random: the same runs are chosen however often it is asked.
SAMPLE = """
select r.id from run r
where r.id >= %(first)s and r.state = any(%(terminal)s) and r.mode <> all(%(rehearsals)s)
  and get_byte(uuid_send(r.id), 14) * 256 + get_byte(uuid_send(r.id), 15) < %(share)s * 65536
  and not exists (select from runs_score s where s.run_id = r.id and s.checks_version = %(version)s)
  and exists (select from run_input i where i.run_id = r.id and i.fork is null and i.action is null)
order by r.id desc limit %(most)s
"""


def path_of(run: Run) -> Path:
    return paths_of([run])[run.pk]


def paths_of(runs: Iterable[Run]) -> dict[UUID, Path]:
    """Four queries for all of them. A critique is no step of the path; what it cost is."""
    held = {run.pk: run for run in runs}
    calls: dict[UUID, dict[int, list[Call]]] = {pk: defaultdict(list) for pk in held}
    for call in Call.objects.filter(run_id__in=held).order_by("run_id", "step", "ord"):
        calls[call.run_id][call.step].append(call)
    roles = {(row.run_id, row.step): row.role for row in Step.objects.filter(run_id__in=held)}
    said = {row.pk for row in Approval.objects.filter(run_id__in=held, state__in=SAID_YES)}
    denied = defaultdict(set)
    kept: dict[UUID, int] = {}
    for event in Event.objects.filter(run_id__in=held, kind=Kind.POLICY_VIOLATED):
        step, ord_ = event.payload.get("step_id"), event.payload.get("ord")
        if ord_ is None:
            kept[event.run_id] = step
        else:
            denied[event.run_id].add((step, ord_))
    return {
        pk: Path(
            tuple(
                turn(step, roles.get((pk, step), "planner"), rows, said, denied[pk])
                for step, rows in calls[pk].items()
                if roles.get((pk, step)) != CRITIQUE
            ),
            answer_of(run, calls[pk]), run.cost_micro, kept.get(pk),
        )
        for pk, run in held.items()
    }  # fmt: skip


def turn(step: int, role: str, rows: list[Call], said: set[UUID], denied: set[tuple[int, int]]) -> Turn:
    of_model = next((row for row in rows if row.ord == 0), None)
    calls = tuple(tool_call(row, row.approval_id in said, (step, row.ord) in denied) for row in rows if row.ord)
    return Turn(step, role, of_model.attempt if of_model else 0, calls)


def tool_call(row: Call, approved: bool, denied: bool) -> ToolCall:
    """A call that was rehearsed stands for one that was sent: nobody was to be asked, and a write counts as made unless its answer says
    otherwise."""
    rehearsed, result = row.error_class == REHEARSED, row.result if isinstance(row.result, dict) else {}
    failed = result.get("ok") is False
    error = "" if rehearsed and not failed else (str(result.get("error_type") or "") if failed else "") or row.error_class or ""
    if error in ("duplicate_request", "invalid_output") and row.state == CallState.DONE:
        error = ""  # the write is made
    ended = row.state in (CallState.DONE, CallState.BLOCKED, CallState.FAILED_NOT_APPLIED) and row.result is not None
    made = row.state == CallState.DONE or (rehearsed and not failed) or bool(result.get("already_applied"))
    args = json.loads(bytes(row.args)) if row.args is not None else None
    decision = row.decision or {}
    return ToolCall(
        row.step, row.ord, row.name, hashed(loops.key(row.name, None if row.args is None else bytes(row.args))), args, row.effect,
        loops.digest(row.result)[:16] if ended else "", error, applied=row.effect != "read" and made, denied=denied,
        asked=decision.get("decision") == "ask" and not rehearsed, approved=approved, sends=row.attempt,
    )  # fmt: skip


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def answer_of(run: Run, steps: dict[int, list[Call]]) -> str | None:
    for call in steps.get(run.answer_step or 0, ()):
        if call.ord == 0 and isinstance(call.result, dict):
            return str(call.result.get("text") or "")
    return None


def score(run: Run, expect: Expectations | None = None) -> dict[str, Measure]:
    return checked(path_of(run), expect)


def stored(measures: dict[str, Measure]) -> JSON:
    return {name: measure.as_json() for name, measure in measures.items() if measure.n}


def sweep(share: float = SHARE, most: int = AT_ONCE) -> int:
    """Score runs of production that have ended and were chosen; how many. Safe to repeat, and for two at once: one of them wins."""
    with connection.cursor() as cursor:
        first = first_at(timezone.now() - LATELY)
        given: JSON = {"first": first, "terminal": [state.value for state in TERMINAL], "rehearsals": list(MODES), "share": share}
        cursor.execute(SAMPLE, given | {"version": VERSION, "most": most})
        chosen = [pk for (pk,) in cursor.fetchall()]
    made = 0
    for start in range(0, len(chosen), BATCH):
        runs = list(Run.objects.filter(pk__in=chosen[start : start + BATCH]))
        made += len(Score.objects.bulk_create(production_scores(runs), ignore_conflicts=True))
    return made


def production_scores(runs: list[Run]) -> list[Score]:
    found = []
    for pk, path in paths_of(runs).items():
        tenant = next(run.tenant_id for run in runs if run.pk == pk)
        found.append(Score(tenant_id=tenant, run_id=pk, checks_version=VERSION, measures=stored(checked(path))))
    return found


def settle(scores: list[Score]) -> int:
    """Score the runs of an evaluation that have ended; how many. `scores`: with `case`, not settled yet."""
    ended = {run.pk: run for run in Run.objects.filter(Q(state__in=TERMINAL), pk__in=[row.run_id for row in scores])}
    paths, ready = paths_of(ended.values()), [row for row in scores if row.run_id in ended]
    for row in ready:
        assert row.case is not None
        measures = checked(paths[row.run_id], Expectations.model_validate(row.case.spec.get("expect", {})))
        row.measures, row.failing, row.checks_version = stored(measures), list(failing(measures)), VERSION
    Score.objects.bulk_update(ready, ["measures", "failing", "checks_version"])
    return len(ready)
