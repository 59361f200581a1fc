"""What changes between the yes and the dispatch: the approval is void, the reason is named, nothing is sent. Long forms under CHAOS=1."""

import random
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs.models import Run
from tenants import controls
from tenants.models import Member
from tests.runtime.world import World
from tools import catalog, rules
from tools.models import Permission, Rule

from .approving import TOOLS, asked, before_consumption, desk, drift_tool, parked, stop, yes
from .figures import figure
from .oracle import violations
from .test_chaos import size


async def approved_while(world: World, run: Run, move: Any) -> Approval:
    """Approved; `move` happens when the engine has checked everything and is about to dispatch. -> the request as it is then."""
    one = await sync_to_async(asked)(run)
    before_consumption(move)
    await sync_to_async(yes)(world.people["approver"], one)
    await world.until(run, "waiting_approval", "succeeded", "failed")
    await one.arefresh_from_db()
    return one


@pytest.mark.mission("X2")
async def test_who_may_no_longer_approve_when_it_is_sent_did_not_approve(world: World) -> None:
    many, rnd, began = size(200, 15), random.Random(23), time.monotonic()
    approver = world.people["approver"]
    again = 0
    async with desk(world, TOOLS[:2]) as made:
        runs = await parked(world, [TOOLS[n % 2] for n in range(many)], rnd)
        await world.engine(slots=20)
        for run in runs:
            one = await approved_while(world, run, lambda: Member.objects.filter(user=approver.user).delete())
            assert (one.state, one.void_reason) == ("void", "Somebody who approved this may no longer decide it.")
            again += await Approval.objects.filter(run_id=run.id, replaces=None, state="pending").acount()
            await Member.objects.acreate(tenant=world.tenant, user=approver.user, role="approver")
        await stop(world)
        sent = sum(map(len, made.got.values()))
        assert (sent, again) == (0, many) and not (wrong := await violations(world)), (sent, again, wrong)
    figure("T23", "the approver's membership ends between the yes and the dispatch", n=many, seed=23, seconds=time.monotonic() - began,
           void=many, asked_again=again, sent=sent)  # fmt: skip


def set_rule(world: World, enabled: bool) -> None:
    said = {"decision": "ask", "when": "args.amount > 10", "enabled": enabled}
    rules.set_rule(None, "large-amounts", world.tenant, **said)


def end_tool(world: World) -> None:
    catalog.set_enabled(None, TOOLS[0], False)


def new_credential(world: World) -> None:
    """Of a tool of its own: a version is never taken back."""
    drift_tool(world, TOOLS[1], "credential")


def add_rule(world: World) -> None:
    set_rule(world, True)


def deny(world: World) -> None:
    drift_tool(world, TOOLS[0], "denied")


def want_two(world: World) -> None:
    drift_tool(world, TOOLS[0], "approvers")


def as_before(world: World) -> None:
    catalog.set_enabled(None, TOOLS[0], True)
    Permission.objects.filter(tool_id=TOOLS[0]).delete()
    Rule.objects.all().delete()
    controls.bump(world.tenant)


# what changes -> (what the approval says about it, whether the call is denied instead of asked about again)
CHANGES: dict[Any, tuple[str, bool]] = {
    end_tool: ("The tool is switched off.", True),
    new_credential: ("What would be sent has changed: credential.", False),
    add_rule: ("What would be sent has changed: policy.", False),
    deny: ("Permission", True),
    want_two: ("What would be sent has changed: policy (now 2 people).", False),
}


@pytest.mark.mission("X2", "P10.1")
async def test_what_changes_after_the_yes_voids_it_and_is_named(world: World) -> None:
    rnd, began = random.Random(24), time.monotonic()
    each = size(100, 8)
    shares = {end_tool: each, new_credential: each, add_rule: each // 3, deny: each // 3, want_two: each - 2 * (each // 3)}
    todo = [change for change, count in shares.items() for _ in range(count)]
    denied = again = 0
    async with desk(world, TOOLS[:2]) as made:
        runs = await parked(world, [TOOLS[change is new_credential] for change in todo], rnd)
        await world.engine(slots=20)
        for run, change in zip(runs, todo, strict=True):
            one = await approved_while(world, run, lambda change=change: change(world))
            reason, closed = CHANGES[change]
            assert one.state == "void" and reason in one.void_reason, (change.__name__, one.state, one.void_reason)
            (sent,) = [c for c in await world.calls(run) if c.ord == 1]
            new = await Approval.objects.filter(run_id=run.id, state="pending").afirst()
            if closed:
                assert reason in sent.result["message"] and sent.state == "blocked" and new is None
            else:
                assert new and new.digest != one.digest and new.needed == (2 if change is want_two else 1)
            denied, again = denied + closed, again + (new is not None)
            await sync_to_async(as_before)(world)
        await stop(world)
        assert not sum(map(len, made.got.values())) and not (wrong := await violations(world)), wrong
    figure("T24", "tool, credential or policy changed between the yes and the dispatch: void, and the reason names what changed",
           n=len(todo), seed=24, seconds=time.monotonic() - began, tool=each, credential=each, policy=each, denied=denied,
           asked_again=again, sent=0)  # fmt: skip
