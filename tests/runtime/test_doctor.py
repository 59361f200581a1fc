"""`doctor` finds nothing after real runs, and exactly the rule that was broken after each kind of damage."""

import io
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command
from django.db import connections, transaction
from django.db.models.functions import Now

from approvals.models import Approval
from console.doctor import examine
from console.doctor_rules import RULES
from runs import ceilings, drafts, lifecycle, signoff
from runs.models import Canary, Run

from .doctor import healthy
from .world import TICKET, World, call

LIVING = """insert into engine(id, host, boot_id, pid, started, lease_until)
    values ('00000000-0000-0000-0000-00000000000a', 'h', 'b', 1, 1, statement_timestamp() + interval '1 hour');"""
LATE = "statement_timestamp() - interval '5 minutes'"


def run(name: str, change: str) -> str:
    return f"update run set {change} where id = %({name})s"


def calls(name: str, change: str, where: str) -> str:
    return f"update call set {change} where run_id = %({name})s and {where}"


def approval(name: str, change: str) -> str:
    return f"update approvals_approval set {change} where run_id = %({name})s"


def event(name: str, where: str) -> str:
    return f"update event set kind = 'plan_decided' where run_id = %({name})s and {where}"


HOUR = "statement_timestamp() - interval '1 hour'"
TELEMETRY = "insert into console_telemetryexport(name, floor, batch, failures, dropped_at)"
WAITS_NO_MORE = "state = 'paused'"
OWN = "state = 'running', owner = '00000000-0000-0000-0000-00000000000a'"
BREAKS = {
    "lost_run": LIVING + run("queued", f"available_at = {LATE}"),
    "stuck_run": LIVING + run("queued", "state = 'running', owner = '00000000-0000-0000-0000-00000000000b'"),
    "run_past_deadline": LIVING + run("queued", f"{OWN}, deadline_at = {LATE}"),
    "no_engine": run("queued", f"available_at = {LATE}"),
    "owner_and_state_disagree": "alter table run drop constraint owned_exactly_while_running;" + run("queued", "owner = id"),
    "event_gap": run("done", "seq = seq + 1"),
    "event_before_acceptance": event("done", "seq = 1"),
    "end_not_told": event("done", "kind = 'run_completed'"),
    "end_without_outcome": run("done", "ended_at = null"),
    "open_call_of_ended_run": calls("cancelled", "state = 'ready'", "ord = 1"),
    "waiting_without_approval": approval("waiting", "state = 'void'"),
    "approval_nobody_needs": approval("cancelled", "state = 'pending'"),
    "approval_overdue": LIVING + approval("waiting", f"expires_at = {LATE}"),
    "approval_never_used": approval("cancelled", "state = 'approved'"),
    "approval_used_for_nothing": approval("cancelled", "state = 'consumed'"),
    "paused_by_nothing": LIVING + run("queued", "state = 'paused', paused_by = id"),
    "pause_and_state_disagree": run("queued", "paused_by = id"),
    "budget_nobody_can_grant": approval("asking", "state = 'void'"),
    "draft_sent": calls("drafted", "state = 'done'", "ord = 1"),
    "billed_without_a_model": "update step set role = 'store' where run_id = %(done)s",
    "effect_without_decision": approval("done", "state = 'rejected'"),
    "sent_and_forgotten": calls("waiting", "state = 'dispatched'", "ord = 0"),
    "unknown_and_passed_over": run("unknown", "state = 'waiting_budget'")
    + f"; {approval('asking', 'run_id = %(unknown)s')}; {run('asking', WAITS_NO_MORE)}",
    "nothing_to_reconcile": calls("unknown", "state = 'failed_not_applied'", "state = 'unknown'"),
    "write_without_key": calls("done", "idem_key = null", "ord = 1"),
    "fence_behind": calls("done", "fence = fence + 9", "ord = 1"),
    "no_answer": run("done", "answer_step = 99"),
    "money": run("done", "cost_micro = cost_micro + 1"),
    "money_kept_back": run("done", "reserved_micro = 1"),
    "tokens": run("done", "tokens_out = tokens_out + 1"),
    "counters": run("done", "writes = writes + 1"),
    "held_and_reserved_disagree": "update tenants_spending set reserved_micro = reserved_micro + 1",
    "held_after_the_end": "insert into tenants_reservation (run_id, spending_id, micro) select %(done)s, id, 0 from tenants_spending",
    "no_controls": "delete from controls",
    "foreign_release": "insert into runs_agent(name, tenants, live_id) select 'other', '{}', live_id from runs_agent limit 1",
    "foreign_tenant": "update step set tenant_id = run_id where run_id = %(done)s",
    "audit_chain_broken": "update tenants_audithead set seq = seq + 1",
    "jobs_silent": "delete from runs_canary",
    "telemetry_behind": f"{TELEMETRY} values ('otlp', {HOUR}, 1, 3, null); {run('done', f'ended_at = {HOUR}')}",
    "telemetry_dropped": f"{TELEMETRY} values ('otlp', {LATE}, 1, 0, {LATE})",
    "serving_role_too_strong": "",  # a setting, see below
    "web_sees_all_tenants": "",  # so is this
    "tenants_unguarded": "alter table run disable row level security",
    "history_writable": "grant update on event to {web}",
    "triggers_missing": "alter table event disable trigger event_append_only",
}


async def worked(world: World) -> dict[str, Any]:
    """Real runs at rest: one that wrote after an approval, and one that waits, is unknown, was cancelled and is queued each."""
    await world.agent()
    await sync_to_async(ceilings.put)(None, world.tenant, "", "cost_usd_per_day", 10**9)
    engine = await world.engine()
    ticket, done = call("create_ticket", **TICKET), {"text": "Done."}
    runs = {name: await world.script(ticket, done) for name in ("done", "waiting", "cancelled")}
    for one in runs.values():
        await world.until(one, "waiting_approval")
    asked = await Approval.objects.aget(run_id=runs["done"].id)
    await sync_to_async(signoff.decide)(world.people["approver"], asked.id, verdict="approve", digest=asked.digest)
    await sync_to_async(lifecycle.cancel)(world.people["operator"], runs["cancelled"].id)
    await world.permit("send_email", "allow", loosen=True)
    await world.fault("send_email", "drop_after")
    runs["unknown"] = await world.script(call("send_email", to="a@example.com", subject="s", body="b"), done)
    await world.until(runs["done"], "succeeded")
    await world.until(runs["unknown"], "needs_reconciliation")
    runs |= await limited(world)
    engine.stop()
    await world.engines[0][1]
    runs["queued"] = await world.submit("later")
    await Run.objects.filter(id=runs["queued"].id).aupdate(available_at=Now() + (runs["queued"].deadline_at - runs["queued"].created_at))
    await Canary.objects.acreate(name="jobs", at=Now())
    return {name: one.id for name, one in runs.items()}


async def limited(world: World) -> dict[str, Any]:
    """Runs that met a limit: one that waits for more, one that was granted it, one that kept a write, and the one that made it later."""
    await world.agent("short", tools=("search_docs",), budget={"max_tool_calls": 1}, ladder=[{"on": "budget_exceeded", "do": "ask"}])
    searches = [call("search_docs", query=word) for word in ("a", "b")]
    runs = {name: await world.script(*searches, {"text": "Done."}, agent="short") for name in ("asking", "granted")}
    for one in runs.values():
        await world.until(one, "waiting_budget")
    asked = await Approval.objects.aget(run_id=runs["granted"].id)
    await sync_to_async(signoff.decide)(world.people["approver"], asked.id, verdict="approve", digest=asked.digest)
    await world.permit("create_ticket", "allow", loosen=True)
    runs["drafted"] = await world.script(call("create_ticket", **TICKET), {"text": "Done."}, mode="draft")
    for name in ("granted", "drafted"):
        await world.until(runs[name], "succeeded")
    runs["acted"] = await sync_to_async(drafts.carry_out)(world.people["operator"], runs["drafted"].id, 1, 1)
    await world.until(runs["acted"], "succeeded")
    return runs


def found_after(statement: str, runs: dict[str, Any]) -> set[str]:
    """Damage done by the owner with the triggers off, what `doctor` says about it, and all of it undone."""
    owner = connections["owner"]
    triggers = "; ".join(f"alter table {table} {{0}} trigger user" for table in ("run", "call", "event"))
    with transaction.atomic(using="owner"):
        with owner.cursor() as cursor:
            if statement.startswith(("alter table event", "grant")):
                cursor.execute(statement.format(web=settings.DATABASES["default"]["USER"]))
            elif statement:
                cursor.execute("set constraints all immediate; " + triggers.format("disable"))
                for part in statement.split(";"):
                    cursor.execute(part, runs)
                cursor.execute(triggers.format("enable"))
        found = {one.name for one in examine(owner)}
        transaction.set_rollback(True, using="owner")
    return found


@pytest.mark.forged("damage of every kind")
@pytest.mark.mission("X1")
async def test_nothing_is_wrong_after_real_runs_and_each_kind_of_damage_has_its_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await worked(world)
    await healthy()
    assert await sync_to_async(found_after)("", runs) == set()
    assert set(BREAKS) == {rule.name for rule in RULES}
    found = {name: await sync_to_async(found_after)(damage, runs) for name, damage in BREAKS.items() if damage}
    with monkeypatch.context() as patch:
        patch.setattr(settings, "WEB_URL", settings.ENGINE_URL)
        found["web_sees_all_tenants"] = await sync_to_async(found_after)("", runs)
    monkeypatch.setattr(settings, "WEB_URL", settings.OWNER_URL)
    found["serving_role_too_strong"] = await sync_to_async(found_after)("", runs)
    assert found == {name: {name} for name in BREAKS}
    await healthy()


def command() -> tuple[int, dict[str, Any]]:
    out, code = io.StringIO(), 0
    try:
        call_command("doctor", "--json", stdout=out)
    except SystemExit as ended:
        code = int(str(ended.code))
    return code, json.loads(out.getvalue())


async def test_the_command_fails_on_violations_only_and_names_at_most_twenty(world: World) -> None:
    await world.agent()
    code, said = await sync_to_async(command)()
    assert (code, said["violations"], [one["name"] for one in said["findings"]]) == (0, 0, ["jobs_silent"])
    runs = [await world.submit("later") for _ in range(25)]
    await Run.objects.filter(id__in=[one.id for one in runs]).aupdate(reserved_micro=1)
    code, said = await sync_to_async(command)()
    kept = next(one for one in said["findings"] if one["name"] == "money_kept_back")
    assert (code, said["violations"], len(kept["ids"])) == (1, 1, 20)
    assert set(kept["ids"]) <= {one.run_id for one in runs}
