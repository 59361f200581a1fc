"""Back-tests against a real engine: the calls of the past are decided again exactly as they were decided then."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from approvals.models import Approval
from console import backtests, tasks
from console.models import PolicyBacktest
from runs import past_calls, signoff
from runs.models import Call, Run
from tenants.ids import encode
from tenants.models import Tenant
from tools import proposals, rules
from tools.proposals import PermissionProposal, RuleProposal
from tools.replay import Pair, replay

from .test_rules import EXFILTRATION, MAIL, loosened, relabelled
from .world import TICKET, World, call

MANY: dict[str, str] = {  # name -> condition, each over another kind of fact
    "combination": EXFILTRATION,
    "labels": "call.tool == 'fetch_account' && 'untrusted' in run.labels",
    "count": "call.tool == 'create_ticket' && run.tools['create_ticket'].count >= 2",
    "step": "call.tool == 'search_docs' && run.step >= 4",
    "writes": "call.tool == 'send_email' && run.writes >= 2",
    "cost": "call.tool == 'fetch_account' && run.cost_usd > 0.004",
    "day": "call.tool == 'create_ticket' && day.tools['create_ticket'].count >= 5",
    "user": "call.tool == 'send_email' && run.user.plan == 'trial'",
    "args": "call.tool == 'create_ticket' && args.priority == 'low'",
}


def turn(*calls: dict[str, Any]) -> dict[str, Any]:
    """Several calls of one turn."""
    return {"calls": [each for one in calls for each in one["calls"]]}


def ticket(n: int, **more: Any) -> dict[str, Any]:
    return call("create_ticket", **(TICKET | {"summary": f"s{n}"} | more))


STORIES: tuple[tuple[Any, ...], ...] = (
    (call("search_docs", query="a"), call("fetch_account", account_id="acct_1001"), call("send_email", **MAIL), {"text": "x"}),
    (turn(call("search_docs", query="a"), call("send_email", **MAIL), call("fetch_account", account_id="acct_1001")), {"text": "x"}),
    (turn(ticket(1), ticket(2), ticket(3), call("search_docs", query="b")), ticket(4), call("search_docs", query="c"), {"text": "x"}),
    (ticket(1, priority="low"), ticket(1, priority="low"), call("send_email", **MAIL), call("search_docs", query="z"), {"text": "x"}),
    (call("nothing_of_ours", a=1), turn(ticket(7), ticket(7), call("fetch_account", account_id="acct_1002")), {"text": "x"}),
    (turn(ticket(8), ticket(9)), turn(call("send_email", **MAIL), call("send_email", **(MAIL | {"body": "c"}))), {"text": "x"}),
)


async def told(world: World) -> list[Run]:
    """Every story to its end, one after another: the day's totals depend on the order. People approve all that they are asked."""
    done = []
    for n, story in enumerate(STORIES):
        user = {"id": f"u{n}", "attributes": {"plan": "trial" if n % 2 else "paid"}}
        run = await world.script(*story, user=user)
        found = await world.until(run, "waiting_approval", "succeeded", "failed")
        while found.state == "waiting_approval":
            async for approval in Approval.objects.filter(run_id=run.id, state="pending"):
                said = {"verdict": "approve", "digest": approval.digest, "reason": "fine"}
                await sync_to_async(signoff.decide)(world.people["approver"], approval.id, **said)
            found = await world.until(run, "waiting_approval", "succeeded", "failed")
            if await Approval.objects.filter(run_id=run.id, state="pending").aexists():
                continue
        done.append(found)
    return done


def again(tenant: Tenant, proposal: Any = None) -> list[Pair]:
    since = timezone.now() - timedelta(days=1)
    runs, _ = past_calls.load(tenant.id, since)
    pairs = replay(
        runs, past_calls.written(tenant.id, since), proposals.policies([tenant], proposal), lambda run, call: True, every=proposal is None
    )
    return [pair for pair in pairs if pair is not None]


def recorded(pair: Pair) -> tuple[str, str, int]:
    kept = pair.call.recorded
    return kept["decision"], kept["by"], kept.get("approvers", 0)


def said(decision: Any) -> tuple[str, str, int]:
    return decision.verdict, decision.by, decision.approvers


@pytest.mark.mission("X5")
@pytest.mark.parametrize("verdict", ["deny", "ask", "draft"])
async def test_calls_are_decided_again_as_the_engine_decided_them(world: World, verdict: str) -> None:
    await sync_to_async(relabelled)()
    await loosened(world, "send_email", "create_ticket")
    for name, when in MANY.items():
        await sync_to_async(rules.set_rule)(None, name, None, decision=verdict, when=when)
    await world.agent()
    await world.engine()
    await told(world)
    pairs = await sync_to_async(again)(world.tenant)
    assert len(pairs) >= 15
    assert [(pair.call.tool, *said(pair.was)) for pair in pairs] == [(pair.call.tool, *recorded(pair)) for pair in pairs]
    wanted = {"rule:args", "rule:labels", "rule:day", "not_listed"} | ({"rule:combination", "rule:count"} if verdict == "ask" else set())
    assert {pair.was.by for pair in pairs} >= wanted


@pytest.mark.mission("X5")
async def test_a_proposed_rule_finds_the_calls_that_it_denies_once_it_is_saved(world: World) -> None:
    await sync_to_async(relabelled)()
    await loosened(world, "send_email", "create_ticket")
    await world.agent()
    await world.engine()
    await told(world)
    proposal = RuleProposal(name="no-mail", tenant="acme", decision="deny", when="call.tool == 'send_email' && 'private' in run.labels")
    before = await sync_to_async(again)(world.tenant, proposal)
    foretold = [pair.call.args for pair in reversed(before) if pair.differs]
    assert foretold
    assert all(pair.now.by == "rule:no-mail" and pair.now.because for pair in before if pair.differs)
    await sync_to_async(rules.set_rule)(None, "no-mail", world.tenant, decision="deny", when=proposal.when)
    await told(world)
    denied = [c async for c in Call.objects.filter(decision__by="rule:no-mail").order_by("run_id", "step", "ord")]
    assert [bytes(c.args) for c in denied] == foretold


@pytest.mark.mission("X5")
async def test_a_back_test_counts_and_lists_what_would_have_differed(world: World) -> None:
    await loosened(world, "create_ticket")
    await world.agent()
    await world.engine()
    run = await world.script(ticket(1), call("search_docs", query="x"), ticket(2, priority="low"), {"text": "done"})
    await world.until(run)
    admin, start = world.people["admin"], sync_to_async(backtests.start)
    when = "args.priority == 'low'"
    made = await start(admin, PermissionProposal(tool="create_ticket", tenant="acme", decision="deny", when=when), 7)
    assert made.state == "done"
    wanted = {"would_deny": 1, "would_ask": 0, "would_draft": 0, "would_allow": 0, "unchanged": 2, "calls": 3, "cut": False}
    assert made.result is not None and made.result | wanted == made.result
    [one] = made.result["differing"]
    assert (one["run_id"], one["step"], one["tool"]) == (encode("agt", run.id), 3, "create_ticket")
    assert (one["was"]["decision"], one["now"]["decision"]) == ("allow", "deny")
    asked = await start(admin, RuleProposal(name="see-tickets", tenant="acme", when="call.tool == 'create_ticket'"), 7)
    assert asked.result is not None and (asked.result["would_ask"], asked.result["asks_added"]) == (2, 2)
    await sync_to_async(rules.set_rule)(None, "see-tickets", world.tenant, decision="ask", when="call.tool == 'create_ticket'")
    gone = await start(admin, RuleProposal(name="see-tickets", tenant="acme", remove=True), 7)
    assert gone.result is not None and (gone.result["would_allow"], gone.result["asks_spared"]) == (2, 2)


@pytest.mark.mission("X5")
async def test_a_large_back_test_is_left_to_the_jobs_and_can_be_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.agent(tools=("search_docs",))
    await world.engine()
    run = await world.script(*[call("search_docs", query=f"q{n}") for n in range(4)], {"text": "done"})
    await world.until(run)
    monkeypatch.setattr(backtests, "INLINE", 2)
    monkeypatch.setattr(backtests, "EVERY", 1)
    proposal = PermissionProposal(tool="search_docs", tenant="acme", decision="deny")
    one, other = [await sync_to_async(backtests.start)(world.people["admin"], proposal, 1) for _ in range(2)]
    assert (one.state, one.total, one.result) == ("queued", 4, None)
    await sync_to_async(tasks.backtest)(str(one.id))
    await one.arefresh_from_db()
    assert one.result is not None and (one.state, one.done, one.result["would_deny"]) == ("done", 4, 4)
    assert await sync_to_async(backtests.cancel)(world.people["admin"], other)
    await sync_to_async(tasks.backtest)(str(other.id))
    await other.arefresh_from_db()
    assert (other.state, other.result) == ("cancelled", None)
    assert not await sync_to_async(backtests.cancel)(world.people["admin"], one)
    monkeypatch.setattr(past_calls, "MOST", 2)
    cut = await PolicyBacktest.objects.acreate(tenant=world.tenant, proposal=one.proposal, days=1, started_by_id=one.started_by_id)
    await sync_to_async(tasks.backtest)(str(cut.id))
    await cut.arefresh_from_db()
    assert cut.result is not None and cut.result["cut"] is True
