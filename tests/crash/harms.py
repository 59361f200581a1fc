"""The scenarios of the guards: each drives one run into the exact moment a guard is for, and says what harm was done, or nothing."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import failpoints, reconcile, signoff
from runs.engine.journal import Entry, Journal
from runs.models import UnknownWrite
from tenants.errors import Refused
from tenants.models import Controls, Tenant
from tests.console.callers import caller
from tests.runtime.test_journal import claimed, entry
from tests.runtime.world import TEXT, TICKET, World, call, make_people, schema
from tools import catalog, egress
from tools.models import Permission
from tools.spec import ToolSpec

MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}
NOBODY = "00000000-0000-0000-0000-00000000dead"
TAKE_AWAY: LiteralString = f"update run set owner = '{NOBODY}', fence = fence + 1, entry = 0, hold_until = null where owner is not null"


@dataclass
class Stage:
    world: World
    owner: str
    patch: pytest.MonkeyPatch

    def sql(self, statement: LiteralString, **values: Any) -> None:
        """At once and committed, also from inside an engine's coroutine."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            connection.execute(statement, values)

    def before_consumption(self, move: Callable[[], None]) -> None:
        """Between the last check of an approved call and the transaction that dispatches it."""
        failpoints.put("before_consume", move)

    async def sent(self, tool: str) -> int:
        return len([r for r in await self.world.received() if r["target"] == tool])

    async def until_sent(self, tool: str, times: int = 1, seconds: float = 5) -> bool:
        end = time.monotonic() + seconds
        while await self.sent(tool) < times:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.01)
        return True

    async def mail(self, decision: str = "allow", *faults: Any, **options: Any) -> Any:
        """A run that sends one mail; its engine is started by the scenario."""
        await self.world.agent(**options)
        await self.world.permit("send_email", decision, loosen=True)
        return await self.world.script(call("send_email", **MAIL), {"text": "Done."})

    async def approve(self, run: Any) -> None:
        one = await Approval.objects.aget(run_id=run.id, state="pending")
        await sync_to_async(signoff.decide)(self.world.people["approver"], one.id, verdict="approve", digest=one.digest)

    async def effects(self, what: str, most: int = 0) -> str:
        made = len(await self.world.ledger())
        return "" if made <= most else f"{what}: {made} effects"


async def stale_entry(s: Stage) -> str:
    (run,) = await claimed(s.world, 1)
    writer = Journal(s.world.dsn)
    await writer.start()
    s.sql("update run set fence = 2, entry = 0")
    verdict = (await writer.write(entry(run, 1, fence=1))).verdict
    await writer.stop()
    return "" if verdict == "stale" else "a superseded engine wrote into the run"


async def same_entry_twice(s: Stage) -> str:
    (run,) = await claimed(s.world, 1)
    writer = Journal(s.world.dsn)
    await writer.start()
    for _ in range(2):
        await writer.write(Entry(run.id, 1, 1, [("plan_decided", '{"v":1}')], tokens_in=5))
    await writer.stop()
    times = (await s.world.kinds(run)).count("plan_decided")
    return "" if times == 1 else f"an entry that was sent again is in the history {times} times"


async def frozen_before_the_socket(s: Stage) -> str:
    run = await s.mail()
    made = await s.world.engine(ttl_s=2.0)

    def freeze() -> None:
        made.services.lease.confirmed -= 100
        s.sql(TAKE_AWAY)

    failpoints.put("after_dispatch_commit", freeze)
    await s.world.until(run, "succeeded")  # sent once more, by whoever has the run now
    intents = (await s.world.kinds(run)).count("tool_call_started")
    return "" if await s.sent("send_email") < intents else "a mail was sent by an engine that had lost the run"


async def lapsed_with_a_write_in_flight(s: Stage) -> str:
    run = await s.mail()
    await s.world.fault("send_email", "latency", ms=1500)
    await s.world.engine(ttl_s=60.0)
    await s.until_sent("send_email")
    s.sql("update engine set lease_until = now() - interval '1 second'")
    await s.world.engine()
    await asyncio.sleep(0.8)
    s.sql("update engine set lease_until = now() + interval '1 minute'")
    await s.world.until(run, "succeeded", "needs_reconciliation")
    kinds = await s.world.kinds(run)
    done = kinds.index("tool_call_completed") if "tool_call_completed" in kinds else len(kinds)
    return "a run was taken over while its write was on its way" if "run_taken_over" in kinds[:done] else ""


async def taken_over_with_a_write_in_flight(s: Stage) -> str:
    run = await s.mail()
    await s.world.fault("send_email", "latency", ms=300)
    await s.world.engine()
    await s.until_sent("send_email")
    s.sql(TAKE_AWAY)
    await s.world.until(run, "succeeded", "needs_reconciliation")
    return await s.effects("one mail", 1)


async def denied_before_the_dispatch(s: Stage) -> str:
    run = await s.mail()

    def deny() -> None:
        s.sql(f"update {Permission._meta.db_table} set decision = 'deny' where tool_id = 'send_email'")  # type: ignore[arg-type]
        s.sql(f"update {Controls._meta.db_table} set rev = rev + 1")  # type: ignore[arg-type]

    failpoints.put("before_dispatch_commit", deny)
    await s.world.engine()
    await s.world.until(run)
    return await s.effects("a mail that was denied before its dispatch")


async def cancelled_before_the_dispatch(s: Stage) -> str:
    run = await s.mail()
    failpoints.put("before_dispatch_commit", lambda: s.sql("update run set cancel_requested = true"))
    await s.world.engine()
    await s.world.until(run)
    return await s.effects("a mail of a run that was cancelled before its dispatch")


async def approved_and(s: Stage, meanwhile: Callable[[], None], point: str, what: str) -> str:
    run = await s.mail("ask")
    await s.world.engine()
    await s.world.until(run, "waiting_approval")
    if point:
        failpoints.put(point, meanwhile)
    else:
        meanwhile()
    await s.approve(run)
    await s.world.until(run, "waiting_approval", "succeeded", "failed", "cancelled")  # or people are asked again
    return await s.effects(what)


async def changed_after_the_approval(s: Stage) -> str:
    other = b'{"body":"b","subject":"s","to":"thief@example.com"}'
    return await approved_and(s, lambda: s.sql("update call set args = %(a)s where ord = 1", a=other), "", "a mail nobody approved")


async def withdrawn_before_the_dispatch(s: Stage) -> str:
    table = Approval._meta.db_table
    void: Any = f"update {table} set state = 'void'"
    return await approved_and(s, lambda: s.sql(void), "before_consume", "a mail whose approval was withdrawn")


async def approver_dismissed(s: Stage) -> str:
    dismiss = "delete from tenants_member where user_id = %(u)s"
    user = s.world.people["approver"].user.pk
    return await approved_and(s, lambda: s.sql(dismiss, u=user), "before_consume", "a mail approved by somebody who no longer may")


async def cancelled_before_the_consumption(s: Stage) -> str:
    cancel: Any = "update run set cancel_requested = true"
    return await approved_and(s, lambda: s.sql(cancel), "before_consume", "an approved mail of a cancelled run")


async def poison(s: Stage) -> str:
    await s.world.agent(deadlines={"tool_call_s": 30, "step_s": 60, "run_s": 60})
    await s.world.fault("search_docs", "hang", times=-1)
    run = await s.world.script(call("search_docs", query="x"), {"text": "Done."})
    await s.world.engine()
    times = 0
    while times < 5 and await s.until_sent("search_docs", times + 1, 2):
        s.sql(TAKE_AWAY)
        times += 1
    await s.world.http("DELETE", "/faults")
    state = (await s.world.until(run, "quarantined", "succeeded", "failed")).state
    return "" if state == "quarantined" and times < 5 else f"a run took engines down {times} times"


async def private_address(s: Stage) -> str:
    door = egress.Egress()
    try:
        await door.exchange(egress.build_request("GET", s.world.url + "/healthz", headers={}), allow=frozenset(), timeout_s=2)
    except egress.EgressFailure as failure:
        return "" if failure.reason == "refused" else str(failure)
    finally:
        await door.aclose()
    return "a private address that nobody listed was reached"


async def foreign_run(s: Stage) -> str:
    await s.world.agent()
    run = await s.world.submit("hello")

    def look() -> int:
        people = make_people(Tenant.objects.create(slug="other"))
        return int(caller(people["admin"]).get(f"/runs/{run.run_id}").status_code)

    return "" if await sync_to_async(look)() == 404 else "a run of another tenant was shown"


async def same_effect_three_times(s: Stage) -> str:
    spec = {
        "adapter": {"kind": "http", "url": f"{s.world.url}/desk/tickets"}, "description": "Open a ticket", "effect": "write",
        "idempotency": "key", "effect_key": "ticket:{account_id}",
        "input_schema": schema(account_id=TEXT, priority={"enum": ["low", "normal", "urgent"]}, summary=TEXT),
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "create_ticket", ToolSpec.model_validate(spec))
    await s.world.agent()
    await s.world.permit("create_ticket", "allow", loosen=True)
    again = [call("create_ticket", **{**TICKET, "summary": f"said {n} times"}) for n in range(3)]
    run = await s.world.script(*again, {"text": "Done."})
    await s.world.engine()
    await s.world.until(run)
    return await s.effects("one ticket asked for three times", 1)


async def answer_lost_and_sent_again(s: Stage) -> str:
    await s.world.agent()
    await s.world.permit("create_ticket", "allow", loosen=True)
    await s.world.fault("create_ticket", "drop_after")
    run = await s.world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await s.world.engine()
    await s.world.until(run)
    return await s.effects("one ticket, its first answer lost", 1)


async def settled_too_early(s: Stage) -> str:
    run = await s.mail()
    await s.world.fault("send_email", "latency", ms=1000)
    await s.world.engine()
    await s.until_sent("send_email")
    s.sql(TAKE_AWAY)
    await s.world.until(run, "needs_reconciliation")
    while (case := await UnknownWrite.objects.filter(run_id=run.id).afirst()) is None:
        await asyncio.sleep(0.02)
    try:
        await sync_to_async(reconcile.resolve)(s.world.people["operator"], case.id, result="not_applied", evidence="I saw nothing.")
    except Refused as refused:
        return "" if refused.code == "too_early" else refused.code
    return "a write was settled as not applied while it was on its way"


async def illegal_move(s: Stage) -> str:
    run = await s.mail()
    await s.world.fault("send_email", "drop_after")
    await s.world.engine()
    await s.world.until(run, "needs_reconciliation")
    try:
        s.sql("update run set state = 'succeeded', outcome = 'completed'")
    except psycopg.errors.DatabaseError as error:
        return "" if error.sqlstate == "SBX01" else str(error)
    return "a run succeeded over an unknown write"


async def failed_coroutine(s: Stage) -> str:
    def fail() -> None:
        raise RuntimeError("a fault of ours")

    run = await s.mail()
    failpoints.put("before_model_socket", fail)
    await s.world.engine()
    try:
        await s.world.until(run, seconds=2.5)
    except AssertionError:
        s.sql("update run set owner = null, state = 'queued', fence = fence + 1, entry = 0")
        return "a run stayed for ever with an engine that does not drive it"
    return ""
