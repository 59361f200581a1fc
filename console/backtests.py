"""Back-tests: what a proposed change of the policy would have decided about the calls of the last days, counted."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet
from django.utils import timezone
from django_q.tasks import async_task
from pydantic import TypeAdapter

from approvals.models import Approval
from runs import past_calls
from runs.models import Canary
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import Tenant
from tools import proposals
from tools.proposals import Proposal
from tools.replay import Pair, PastCall, PastRun, replay

from .models import PolicyBacktest

JSON = dict[str, Any]
log = logging.getLogger(__name__)
PROPOSAL: TypeAdapter[Proposal] = TypeAdapter(Proposal)
INLINE = 2_000  # calls that a request may wait for
LISTED = 200
BUDGET_S = 45.0  # of the minute that a job may take
EVERY = 500  # calls between two signs of progress
OPEN_EACH = 3
DAYS = range(1, 31)
SIGN_OF_LIFE = timedelta(minutes=3)  # of the jobs cluster
KEPT = timedelta(days=30)
PAST = timedelta(days=30)  # approvals that tell how long people take
State = PolicyBacktest.State


@dataclass(slots=True)
class Tally:
    """`was` and `now` of the differing ones are verdicts with the number of people; newest first, the first 200."""

    counts: Counter[str] = field(default_factory=Counter)
    differing: list[JSON] = field(default_factory=list)
    asks_added: int = 0
    asks_spared: int = 0

    def add(self, pair: Pair | None) -> None:
        if pair is None or not pair.differs:
            self.counts["unchanged"] += 1
            return
        self.counts[f"would_{pair.now.verdict}"] += 1
        self.asks_added += pair.now.verdict == "ask" and pair.was.verdict != "ask"
        self.asks_spared += pair.was.verdict == "ask" and pair.now.verdict != "ask"
        if len(self.differing) < LISTED:
            self.differing.append(told(pair))

    def as_json(self, **more: Any) -> JSON:
        counts = {f"would_{verdict}": self.counts[f"would_{verdict}"] for verdict in ("deny", "ask", "draft", "allow")}
        changed = sum(counts.values())
        return {
            **counts, "unchanged": self.counts["unchanged"], "changed": changed, "calls": changed + self.counts["unchanged"],
            "asks_added": self.asks_added, "asks_spared": self.asks_spared, "differing": self.differing, **more,
        }  # fmt: skip


def told(pair: Pair) -> JSON:
    run, call = pair.run, pair.call
    return {
        "run_id": encode("agt", run.id), "step": call.step, "ord": call.ord, "tool": call.tool, "agent": run.agent, "tenant": run.tenant,
        "at": call.at.isoformat(), "was": {"decision": pair.was.verdict, "approvers": pair.was.approvers, "by": pair.was.by},
        "now": {"decision": pair.now.verdict, "approvers": pair.now.approvers, "by": pair.now.by, "why": pair.now.why,
                "because": [asdict(source) for source in pair.now.because]},
    }  # fmt: skip


def start(actor: Actor, proposal: Proposal, days: int) -> PolicyBacktest:
    """A small one is done at once, a larger one by the jobs cluster. Refuses what saving the proposal would refuse; bad_days 422,
    too_many 409."""
    if days not in DAYS:
        raise Refused("bad_days", "A back-test looks at 1 to 30 days.", 422, field="days")
    proposals.check_calls_only(proposal)
    scope = proposals.checked(actor, proposal)
    if PolicyBacktest.objects.filter(started_by=actor.user, state__in=PolicyBacktest.OPEN).count() >= OPEN_EACH:
        raise Refused("too_many", f"{OPEN_EACH} of your back-tests are not done yet. Wait for one, or cancel it.", 409)
    PolicyBacktest.objects.filter(at__lt=timezone.now() - KEPT).delete()
    total = past_calls.count(scope.id if scope else None, timezone.now() - timedelta(days=days))
    made = PolicyBacktest.objects.create(
        tenant=scope, proposal=proposal.model_dump(mode="json"), days=days, total=min(total, past_calls.MOST), started_by=actor.user
    )
    if total <= INLINE:
        run(made)
    else:
        async_task("console.tasks.backtest", str(made.id))
    made.refresh_from_db()
    return made


def run(backtest: PolicyBacktest) -> None:
    """Whoever runs it twice only counts again. One that was cancelled stays so."""
    mine = PolicyBacktest.objects.filter(pk=backtest.pk, state__in=PolicyBacktest.OPEN)
    if not mine.update(state=State.RUNNING, done=0):
        return
    try:
        result = counted(backtest)
    except Exception as error:
        log.exception("back-test %s failed", backtest)
        why = error.message if isinstance(error, Refused) else "It could not be counted. It was logged under its id."
        mine.update(state=State.FAILED, result={"message": why})
        return
    if result is not None:
        mine.update(state=State.DONE, done=result["calls"], total=result["calls"], result=result)


def counted(backtest: PolicyBacktest) -> JSON | None:
    """None: it was cancelled meanwhile."""
    until = monotonic() + BUDGET_S
    proposal = PROPOSAL.validate_python(backtest.proposal)
    scope = backtest.tenant
    since = timezone.now() - timedelta(days=backtest.days)
    runs, cut = past_calls.load(scope.id if scope else None, since)
    tenants = [scope] if scope else list(Tenant.objects.all())
    policies = proposals.policies(tenants, proposal)

    def concerned(past: PastRun, call: PastCall) -> bool:
        return proposals.concerns(proposal, past, call)

    tally, total = Tally(), sum(len(past.calls) for past in runs)
    written = past_calls.written(scope.id if scope else None, since)
    for n, pair in enumerate(replay(runs, written, policies, concerned), 1):
        tally.add(pair)
        if n % EVERY == 0 and not PolicyBacktest.objects.filter(pk=backtest.pk, state=State.RUNNING).update(done=n, total=total):
            return None
        if monotonic() > until:
            cut = True
            break
    return tally.as_json(since=since.isoformat(), cut=cut, median_s=median_s(scope))


def median_s(scope: Tenant | None) -> float | None:
    """Seconds until people decided about a call, the median of the last month. None: nobody has decided anything."""
    took = ExpressionWrapper(F("decided_at") - F("created_at"), output_field=DurationField())
    said = ("approved", "consumed", "rejected")
    rows = Approval.objects.filter(decided_at__gte=timezone.now() - PAST, kind=Approval.Kind.CALL, state__in=said)
    found = sorted((rows if scope is None else rows.filter(tenant=scope)).annotate(took=took).values_list("took", flat=True)[:5000])
    return round(found[len(found) // 2].total_seconds(), 1) if found else None


def cancel(actor: Actor, backtest: PolicyBacktest) -> bool:
    """False: it was over already."""
    return bool(PolicyBacktest.objects.filter(pk=backtest.pk, state__in=PolicyBacktest.OPEN).update(state=State.CANCELLED))


def visible(actor: Actor) -> "QuerySet[PolicyBacktest]":
    seen = Q() if actor.platform_admin else Q(tenant=actor.tenant)
    return PolicyBacktest.objects.select_related("tenant", "started_by").filter(seen).order_by("-at")


def find(actor: Actor, text: str) -> PolicyBacktest:
    try:
        found = visible(actor).filter(id=decode("pbt", text)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("back-test")
    return found


def jobs_run() -> bool:
    """Whether the jobs cluster gave a sign of life lately."""
    return Canary.objects.filter(name="jobs", at__gte=timezone.now() - SIGN_OF_LIFE).exists()
