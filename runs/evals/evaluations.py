"""Evaluations: a suite as it was, against a release, within a ceiling. A move is one guarded UPDATE; runs start through a seam."""

from collections.abc import Callable
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Now

from runs import lifecycle
from runs.intake import place, usable
from runs.limits import Limits
from runs.models import Case, Evaluation, Release, Run, RunInput, Score, Suite
from runs.spec import ReleaseSpec, limits
from runs.states import TERMINAL, RunState
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import Tenant
from tools.catalog import need_platform_admin

from . import scoring, suites
from .cases import CaseSpec
from .checks import VERSION
from .summary import Scored, summed

IN_FLIGHT = 20  # runs of one evaluation at a time
AT_ONCE = 200  # runs that are scored in one go
MOST_REPETITIONS = 20
LATER = (423, 429)  # a switch is on, or a quota is used up: what cannot be started now is started later
State = Evaluation.State
Launch = Callable[[Evaluation, Case], Run]


@transaction.atomic
def start(
    actor: Actor, suite: Suite, release: Release, tenant: Tenant, *, repetitions: int = 1, ceiling_micro: int, reason: str = ""
) -> Evaluation:
    """Accept it; `advance` does the rest. Its runs act with the credentials of `tenant`, and none of them changes anything.

    Refuses: platform_admin_needed 403, not_found 404; empty_suite, not_for_tenant 409; bad_repetitions, bad_ceiling 422.
    """
    need_platform_admin(actor)
    if not 1 <= repetitions <= MOST_REPETITIONS:
        raise Refused("bad_repetitions", f"Each case is run 1 to {MOST_REPETITIONS} times.", 422, field="repetitions")
    if ceiling_micro <= 0:
        raise Refused("bad_ceiling", "Give what the evaluation may cost at most, in USD.", 422, field="max_cost_usd")
    held = Suite.objects.select_for_update(no_key=True).get(pk=suite.pk)
    check_tenant(held, tenant)
    total = suites.current(held).count() * repetitions
    if not total:
        raise Refused("empty_suite", f"{held.name} has no cases yet. Add one first.", 409)
    made = Evaluation.objects.create(
        suite=held, revision=held.revision, suite_sha256=suites.digest(held), release=release, tenant=tenant, repetitions=repetitions,
        ceiling_micro=ceiling_micro, total=total, started_by=actor.user,
    )  # fmt: skip
    told = {"suite": f"{held.name}@{made.suite_sha256[:12]}", "release": release.release_id, "runs": total, "ceiling_micro": ceiling_micro}
    audit.append(actor, "evaluation.started", "evaluation", made, None, told, reason, tenant=None)
    return made


def check_tenant(suite: Suite, tenant: Tenant) -> None:
    """What a tenant's people wrote is not run as another tenant."""
    if suite.tenants and tenant.slug not in suite.tenants:
        names = ", ".join(suite.tenants)
        raise Refused("not_for_tenant", f"{suite.name} is for {names} alone. Run it as one of them.", 409, tenants=suite.tenants)


def launch(evaluation: Evaluation, case: Case) -> Run:
    """A run of the release that changes nothing, with the results that the case gives. In the transaction of its Score."""
    spec = CaseSpec.model_validate(case.spec)
    tenant, _, now = usable(evaluation.tenant, evaluation.release.agent_id)
    reads = "live" if spec.tools.how == "live" else "recorded"
    given = [each.model_dump(mode="json", exclude_none=True) for each in spec.tools.given]
    asked = RunInput(
        text=spec.input.text, data=spec.input.data, user=spec.input.user, limits=limits_of(evaluation.release).model_dump(mode="json"),
        metadata={"evaluation": str(evaluation), "case": case.key},
        rehearsal={"kind": "eval", "reads": reads, "results": given},
    )  # fmt: skip
    return place(asked, tenant=tenant, release=evaluation.release, starter=evaluation.started_by, mode="eval", now=now)


def limits_of(release: Release) -> Limits:
    return limits(ReleaseSpec.model_validate(release.spec))


def advance(evaluation: Evaluation, starts: Launch = launch, in_flight: int = IN_FLIGHT) -> bool:
    """Score what has ended, start what there is room for, end it when all is scored. -> whether it is still open.

    Safe to repeat and for two at once: a case is started once for each repetition, whoever tries.
    """
    if not mine(evaluation).filter(state__in=Evaluation.OPEN).update(state=State.RUNNING):
        return False
    settled = scoring.settle(list(unscored(evaluation).select_related("case")[:AT_ONCE]))
    mine(evaluation).update(done=F("done") + settled)
    try:
        while unscored(evaluation).count() < in_flight and launch_next(evaluation, starts):
            pass
    except Refused as refused:
        if refused.status not in LATER:
            end(evaluation, State.FAILED, {"message": refused.message})
        return refused.status in LATER
    if unscored(evaluation).exists():
        return True
    if Score.objects.filter(evaluation=evaluation).count() < evaluation.total:  # nothing runs, and nothing could be started
        message = f"Its ceiling has no room for the next run: {usd(spent_of(evaluation))} USD are spent. Start another one with more."
        end(evaluation, State.FAILED, result_of(evaluation) | {"message": message})
    else:
        end(evaluation, State.DONE, result_of(evaluation))
    return False


@transaction.atomic
def launch_next(evaluation: Evaluation, starts: Launch) -> bool:
    """False: all are started, or there is no room under the ceiling now, or it is over. The row is the lock of its launches."""
    held = Evaluation.objects.select_for_update(no_key=True, of=("self",)).select_related("suite", "release", "tenant", "started_by")
    row = held.filter(pk=evaluation.pk, state=State.RUNNING).first()
    if row is None or not has_room(row):
        return False
    following = next_case(row)
    if following is None:
        return False
    repetition, case = following
    run = starts(row, case)
    Score.objects.create(tenant_id=run.tenant_id, run_id=run.pk, evaluation=row, case=case, repetition=repetition, checks_version=VERSION)
    return True


def next_case(evaluation: Evaluation) -> tuple[int, Case] | None:
    """The suite once through, then again: after the last one that was started."""
    last = Score.objects.filter(evaluation=evaluation).order_by("-repetition", "-case_id").values_list("repetition", "case_id").first()
    repetition, after = last or (1, None)
    rows = suites.as_of(evaluation.suite, evaluation.revision).order_by("id")
    found = (rows.filter(id__gt=after) if after else rows).first()
    if found is None and repetition < evaluation.repetitions:
        repetition, found = repetition + 1, rows.first()
    return (repetition, found) if found else None


def has_room(evaluation: Evaluation) -> bool:
    """Whether the next run fits even if it and those in flight cost all that they may."""
    each = limits_of(evaluation.release).max_cost_micro
    open_ = Score.objects.filter(evaluation=evaluation, measures__isnull=True).values("run_id")
    in_flight = Run.objects.filter(pk__in=open_).exclude(state__in=TERMINAL).count()
    return spent_of(evaluation, ended=True) + (in_flight + 1) * each <= evaluation.ceiling_micro


def spent_of(evaluation: Evaluation, *, ended: bool = False) -> int:
    rows = Run.objects.filter(pk__in=Score.objects.filter(evaluation=evaluation).values("run_id"))
    found = (rows.filter(state__in=TERMINAL) if ended else rows).aggregate(sum=Sum("cost_micro"))["sum"]
    return int(found or 0)


def usd(micro: int) -> str:
    return f"{micro / 1_000_000:.4f}"


def result_of(evaluation: Evaluation) -> dict[str, object]:
    rows = Score.objects.filter(evaluation=evaluation, measures__isnull=False).select_related("case").order_by("id")
    states = dict(Run.objects.filter(pk__in=rows.values("run_id")).values_list("pk", "state"))
    scores = (
        Scored(
            encode("agt", row.run_id), row.measures or {}, tuple(row.failing), row.case.key if row.case else "",
            states.get(row.run_id) == RunState.SUCCEEDED,
        )
        for row in rows.iterator(chunk_size=500)
    )  # fmt: skip
    return summed(scores) | {"checks_version": VERSION, "cost_micro": spent_of(evaluation)}


def end(evaluation: Evaluation, state: str, result: dict[str, object] | None = None) -> bool:
    """False: it was over already."""
    return bool(mine(evaluation).filter(state__in=Evaluation.OPEN).update(state=state, result=result, ended_at=Now()))


def cancel(actor: Actor, evaluation: Evaluation, reason: str = "") -> bool:
    """False: it was over already. Its runs are cancelled with it; what they cost is spent. Refuses platform_admin_needed 403."""
    need_platform_admin(actor)
    with transaction.atomic():
        if not end(evaluation, State.CANCELLED):
            return False
        audit.append(actor, "evaluation.cancelled", "evaluation", evaluation, None, None, reason, tenant=None)
    for run_id in unscored(evaluation).values_list("run_id", flat=True):
        lifecycle.cancel(actor, run_id)
    return True


def mine(evaluation: Evaluation) -> "QuerySet[Evaluation]":
    return Evaluation.objects.filter(pk=evaluation.pk)


def unscored(evaluation: Evaluation) -> "QuerySet[Score]":
    return Score.objects.filter(evaluation=evaluation, measures__isnull=True).order_by("id")


def find(actor: Actor, text: str) -> Evaluation:
    try:
        pk: UUID | None = decode("evl", text)
    except ValueError:
        pk = None
    found = Evaluation.objects.select_related("suite", "release", "tenant", "started_by").filter(pk=pk).first() if pk else None
    if found is None or not actor.sees(found.tenant_id):
        raise NotFound("evaluation")
    return found


def sweep() -> int:
    """Advance every evaluation that is open; how many are left. A fault in one must not keep the others."""
    left = 0
    for row in Evaluation.objects.filter(state__in=Evaluation.OPEN).select_related("suite", "release", "tenant", "started_by"):
        left += advance(row)
    return left
