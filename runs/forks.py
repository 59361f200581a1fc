"""A new run that goes on from a step of another one: with what came before as it was, and something changed.

The steps before are copied as rows that were never sent; nothing of them is asked, paid or done again. From there on the fork changes
nothing either (`runs.rehearsals`), unless a person says `writes: live`: then its calls pass policy and people like any other.
"""

from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import past
from tools.models import ToolVersion

from .intake import ActsFor, Question, Text, pinned_release, place, usable
from .limits import Limits, Strict
from .models import Call, Release, Run, RunInput, Step
from .rehearsals import COPIED, REHEARSED, UNSENT, Reads
from .spec import ReleaseSpec, limits
from .states import CallState

JSON = dict[str, Any]


class Result(Strict):
    """What a call before the fork is said to have come to instead."""

    step: int
    ord: int
    result: JSON


class Changes(Strict):
    """`reads`: sent where the first run holds no result (both), always sent (live), never (recorded)."""

    input: Text | Question | None = None
    user: ActsFor | None = None
    release: str | None = None
    result: Result | None = None
    writes: Literal["recorded", "live"] = "recorded"
    reads: Reads = "both"


@transaction.atomic
def fork(actor: Actor, run_id: UUID, step: int, changes: Changes) -> Run:
    """Steps before `step` are kept, it and all later ones are taken anew; 1: all of them.

    Refuses: scope_missing, tenant_inactive 403, not_found 404, history_deleted, not_forkable 409, fork_step_missing, call_missing 422, and
    as intake does.
    """
    actor.need("runs:write")
    run = Run.objects.select_for_update(no_key=True).select_related("tenant").filter(pk=run_id).first()
    if run is None or not actor.sees(run.tenant_id):
        raise NotFound("run")
    first = forkable(run, step)
    tenant, agent, now = usable(run.tenant, run.agent_id)
    release = pinned_release(agent, changes.release) if changes.release else Release.objects.get(pk=run.release_id)
    asked = asked_anew(first, changes, run, step, release)
    if changes.writes == "live":
        asked.retry_of = run.id  # a write that the first run made is not made again
    else:
        asked.rehearsal = {"kind": "fork", "of": str(run.id), "reads": changes.reads, "mode": real_mode(run, first)}
    mode = "fork" if asked.rehearsal else real_mode(run, first)
    made = place(asked, tenant=tenant, release=release, starter=actor.user, mode=mode, now=now)
    copy(run, made, step, changes.result)
    return made


def forkable(run: Run, step: int) -> RunInput:
    first = RunInput.objects.filter(pk=run.pk).first()
    if first is None:
        raise Refused("history_deleted", "What this run was asked was deleted: there is nothing to start from.", 409)
    if first.action is not None:
        raise Refused("not_forkable", "A person named the one call of this run, so it has no path to take anew.", 409)
    kept = Step.objects.filter(run_id=run.id).aggregate(last=Max("step"))["last"] or 0
    if run.step and not kept:
        raise Refused("history_deleted", "The steps of this run were deleted: there is nothing to start from.", 409)
    if not 1 <= step <= kept + 1:
        raise Refused(
            "fork_step_missing", f"The run has steps 1 to {kept}. Fork it at one of them, or at {kept + 1} to go on.", 422, last=kept
        )
    open_calls = Call.objects.filter(run_id=run.id, step__lt=step, result__isnull=True)
    if open_calls.exists():
        raise Refused(
            "fork_step_missing", f"Not every call before step {step} has an answer yet. Fork it earlier, or wait.", 422, last=kept
        )
    return first


def asked_anew(first: RunInput, changes: Changes, run: Run, step: int, release: Release) -> RunInput:
    question = Question(text=changes.input) if isinstance(changes.input, str) else changes.input
    within = first.limits if release.id == run.release_id else limits(ReleaseSpec.model_validate(release.spec)).model_dump(mode="json")
    return RunInput(
        text=question.text if question else first.text, data=question.data if question else first.data,
        user=changes.user.model_dump(mode="json") if changes.user else first.user, session=first.session,
        metadata={**first.metadata, "fork_of": run.run_id}, limits=Limits(**within).model_dump(mode="json"),
        fork={"of": str(run.id), "step": step, "labels": sorted(labels_before(run, first, step))},
    )  # fmt: skip


def labels_before(run: Run, first: RunInput, step: int) -> set[str]:
    """What the kept steps brought in: a fork begins as tainted as its first run was there."""
    calls = Call.objects.filter(run_id=run.id, ord__gt=0, step__lt=step, tool_version_id__isnull=False)
    heard = [call for call in calls if call.attempt or call.error_class in UNSENT]
    versions = ToolVersion.objects.filter(id__in={call.tool_version_id for call in heard if call.tool_version_id})
    found = {label for labels in versions.values_list("labels", flat=True) for label in labels}
    found |= {label for call in heard for label in past.carried(call.name, call.result)}
    return found | set((first.fork or {}).get("labels", ()))


def real_mode(run: Run, first: RunInput) -> str:
    """That of the run at the root: a fork of a fork of a read-only run stays read-only."""
    return str(first.rehearsal.get("mode", "normal")) if first.rehearsal else run.mode


def copy(run: Run, made: Run, step: int, changed: Result | None) -> None:
    """The rows before `step`: answered, never sent, nothing spent."""
    steps = list(Step.objects.filter(run_id=run.id, step__lt=step).order_by("step"))
    calls = list(Call.objects.filter(run_id=run.id, step__lt=step).order_by("step", "ord"))
    if changed and (changed.step, changed.ord) not in {(call.step, call.ord) for call in calls if call.ord}:
        message = f"There is no tool call {changed.step}.{changed.ord} before step {step}."
        raise Refused("call_missing", message, 422, step=changed.step, ord=changed.ord)
    Step.objects.bulk_create(
        [Step(run_id=made.id, step=s.step, tenant_id=made.tenant_id, role=s.role, model=s.model, calls=s.calls) for s in steps]
    )
    Call.objects.bulk_create([copied(call, made, changed) for call in calls])
    rungs = [rung for rung in run.rungs if rung.get("step", 0) < step]
    Run.objects.filter(pk=made.pk).update(step=steps[-1].step if steps else 0, rungs=rungs)


def copied(call: Call, made: Run, changed: Result | None) -> Call:
    result = changed.result if changed and (changed.step, changed.ord) == (call.step, call.ord) else call.result
    return Call(
        run_id=made.id, step=call.step, ord=call.ord, tenant_id=made.tenant_id, state=CallState.BLOCKED, name=call.name,
        tool_version_id=call.tool_version_id, effect=call.effect, provider_id=call.provider_id, args=call.args, proposed=call.proposed,
        decision=call.decision, fence=0, result=result, error_class=COPIED if call.error_class in (None, REHEARSED) else call.error_class,
    )  # fmt: skip
