"""The final answer before anybody gets it: rules over what the run took in may ask a person, or withhold it."""

from datetime import UTC, datetime
from uuid import UUID

from django.db import transaction

from approvals import gate
from approvals.digest import Sealed, digest, sealed
from approvals.models import Approval
from runs.events import Kind, event
from runs.states import Outcome, RunState
from tools import canonical, policy

from . import asking, facts, rulings
from .flight import JSON, Ending, Flight, Intent, Turn
from .services import Services

REFUSED = {Approval.State.REJECTED: Outcome.APPROVAL_REJECTED, Approval.State.EXPIRED: Outcome.APPROVAL_EXPIRED}


async def check(f: Flight, e: Services, turn: Turn) -> bool:
    """After the run was concluded with this turn's text. True: it waits for a person instead."""
    rules = [rule for rule in f.snapshot.rules if rule.on == "answer"]
    if f.ending is None or f.ending.state is not RunState.SUCCEEDED or not (rules or f.fence > 1):
        return False
    state: str | None = await e.orm(verdict, f.id, turn.step, digest(seal(f, turn))) if f.fence > 1 else None
    if state in REFUSED:  # a person's no stands, also where the rule that asked is gone by now
        f.ending = withheld(REFUSED[Approval.State(state)], "A person did not let it out.")
        return False
    await facts.look_at_day(f, e)
    text, now = (turn.reply or {}).get("text") or "", datetime.now(UTC).isoformat()
    decision = policy.on_answer(text, facts.run(f, turn), rules, facts.sources(f), now, f.day)
    if decision.verdict == "ask" and state != Approval.State.CONSUMED and f.rehearsal is None:
        return await ask(f, e, turn, decision)
    if decision.verdict == "deny":
        because = [{"step": s.step, "tool": s.tool, "brought": s.brought} for s in decision.because]
        data: JSON = {"by": decision.by, "rev": f.snapshot.rev, "of": "answer", "because": because}
        f.say(Kind.POLICY_VIOLATED, step_id=turn.step, result="denied", error_type="policy", data=data)
        f.ending = withheld(Outcome.POLICY_DENIED, decision.why)
    return False


def withheld(outcome: Outcome, why: str) -> Ending:
    return Ending(RunState.FAILED, outcome, error={"error_type": "policy", "message": f"The answer was withheld. {why}"[:500]})


def seal(f: Flight, turn: Turn) -> Sealed:
    return sealed(
        tenant=str(f.tenant), run=str(f.id), call=f"{turn.step}.answer", tool_version="", credential="", policy="",
        args_sha256=rulings.digest_of(shown(turn)), destination="", effect=Approval.Kind.ANSWER, key=None,
    )  # fmt: skip


def shown(turn: Turn) -> bytes:
    return canonical.dumps({"answer": (turn.reply or {}).get("text") or ""})


def verdict(run_id: UUID, step: int, now: str) -> str | None:
    """What became of the request about this answer; an approval is used up. None: nobody was asked yet."""
    with transaction.atomic():
        found = Approval.objects.filter(run_id=run_id, step=step, ord=0, kind=Approval.Kind.ANSWER).order_by("-id").first()
        if found is None or found.state == Approval.State.VOID:
            return None
        return Approval.State.CONSUMED if gate.consume(found, now) else found.state


async def ask(f: Flight, e: Services, turn: Turn, decision: policy.Decision) -> bool:
    """Open the request and let go of the run. False: it was cancelled."""
    f.ending = None
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    evidence = [{"step": t.step, "ord": c.ord, "tool": c.name} for t in f.turns for c in t.calls]
    values = {
        "agent": f.release.agent, "args": shown(turn), "digest": digest(seal(f, turn)),
        "sealed": seal(f, turn), "why": decision.why, "evidence": evidence,
        "needed": decision.approvers, "expires_s": asking.expiry_s(f),
    }  # fmt: skip
    if not await e.orm(open_request, f.id, f.fence, f.entry, turn.step, values):
        f.cancel = True
        return False
    f.entry += 1
    return True


@transaction.atomic
def open_request(run_id: UUID, fence: int, entry: int, step: int, values: JSON) -> bool:
    """False, and nothing is written: a cancel was asked for. Raises Stale."""
    run = asking.held(run_id, fence, entry)
    if run.cancel_requested:
        return False
    approval = gate.request(
        tenant_id=run.tenant_id, run_id=run.id, step=step, ord=0, tool="", tool_version_id=None, effect=Approval.Kind.ANSWER,
        risk="normal", starter_id=run.starter_id, kind=Approval.Kind.ANSWER, **values,
    )  # fmt: skip
    data = {"approval_id": approval.approval_id, "digest": approval.digest, "needed": approval.needed, "of": "answer"}
    parked = {"state": RunState.WAITING_APPROVAL, "reason": "answer"}
    told = [event(Kind.APPROVAL_REQUESTED, step_id=step, ord=0, data=data), event(Kind.RUN_PARKED, step_id=step, data=parked)]
    asking.park(run, RunState.WAITING_APPROVAL, told)
    return True
