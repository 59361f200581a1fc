"""Pause and ask: a run that met a limit waits in `waiting_budget` until a person grants more of it, or does not."""

from uuid import UUID

from django.db import transaction

from approvals import gate
from approvals.digest import digest, sealed
from approvals.models import Approval
from runs import grants
from runs.events import Kind, event
from runs.states import RunState
from tools import canonical

from . import asking, rulings
from .flight import JSON, Flight, Intent
from .services import Services


async def ask(f: Flight, e: Services, entry: JSON) -> bool:
    """Ask for more of the limit that the run met, and let go of it. False: it was cancelled."""
    if f.pending.events or f.pending.changed:
        await f.commit(Intent())
    f.asking, question = None, question_of(f, entry)
    plan = [{"step": t.step, "ord": c.ord, "tool": c.name} for t in f.turns for c in t.calls]
    if not await e.orm(open_request, f.id, f.fence, f.entry, f.release.agent, question, [*f.rungs, entry], plan, asking.expiry_s(f)):
        f.cancel = True
        return False
    f.entry += 1
    return True


def question_of(f: Flight, entry: JSON) -> JSON:
    """What is asked for, beside what was spent. Amounts in USD are decimal strings."""
    limit = entry["limit"]
    value = f.limits.max_cost_micro / 1e6 if limit == "max_cost_usd" else getattr(f.limits, limit)
    used = entry.get("used", entry.get("share", 0) * value)
    spent = {"cost_usd": f"{f.used.cost_micro / 1e6:.6f}", "steps": f.used.steps, "tool_calls": f.used.tool_calls, "writes": f.used.writes}
    add = grants.proposal(limit, value, float(used))
    return {"add": add, "limit": limit, "value": value, "used": used, "spent": spent, "step": entry["step"]}


@transaction.atomic
def open_request(
    run_id: UUID, fence: int, entry: int, agent: str, question: JSON, rungs: list[JSON], plan: list[JSON], expires_s: float
) -> bool:
    """Take the rung (the last of `rungs`) and ask. False, and nothing is written: a cancel was asked for. Raises Stale."""
    run = asking.held(run_id, fence, entry)
    if run.cancel_requested:
        return False
    args = canonical.dumps(question)
    fields = sealed(
        tenant=str(run.tenant_id), run=str(run.id), call=f"{question['step']}.budget", tool_version="", credential="", policy="",
        args_sha256=rulings.digest_of(args), destination="", effect=Approval.Kind.BUDGET, key=str(entry),
    )  # fmt: skip
    approval = gate.request(
        tenant_id=run.tenant_id, run_id=run.id, step=question["step"], ord=0, agent=agent, tool="", tool_version_id=None,
        effect=Approval.Kind.BUDGET, args=args, digest=digest(fields), sealed=fields, risk="normal",
        why=f"The run met {question['limit']}.", evidence=plan,
        starter_id=run.starter_id, needed=1, expires_s=expires_s, kind=Approval.Kind.BUDGET,
    )  # fmt: skip
    data = {"approval_id": approval.approval_id, "digest": approval.digest, "needed": 1, "limit": question["limit"]}
    told = [
        event(Kind.RUNG_ENTERED, step_id=question["step"], result="degraded", data=rungs[-1]),
        event(Kind.APPROVAL_REQUESTED, step_id=question["step"], ord=0, data=data),
        event(Kind.RUN_PARKED, step_id=question["step"], data={"state": RunState.WAITING_BUDGET, "reason": "budget"}),
    ]
    asking.park(run, RunState.WAITING_BUDGET, told, rungs=rungs)
    return True
