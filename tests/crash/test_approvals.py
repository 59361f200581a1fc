"""Approvals under drift and in races: what was approved is what is sent, or nothing is. Long forms under CHAOS=1."""

import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models.functions import Now

from approvals.models import Approval, ApprovalDecision, StandingGrant
from runs import lifecycle, signoff, standing_grants
from runs.models import Call, Run
from tenants.errors import Refused
from tenants.models import Member
from tests.runtime.waiting import at_once, person
from tests.runtime.world import World
from tools import canonical

from .approving import TOOLS, Desk, asked, desk, drift_tool, drive, letter, parked, yes
from .figures import figure
from .oracle import violations
from .test_chaos import size

State = Approval.State

# what is sent -------------------------------------------------------------------------------------------------------------------

OF_A_TOOL = ("credential", "denied", "approvers", "disabled")  # drifts that meet every call of a tool
OF_A_CALL = ("row", "screen", "screen before", "aged")


def approve_somehow(world: World, rnd: random.Random, run: Run, people: list[str]) -> tuple[bytes, bool]:
    """-> the bytes that the last person saw when they said yes, and whether they were edited before."""
    one = asked(run)
    edited = rnd.random() < 0.4
    if edited:
        one = yes(world.people["admin"], one, args=letter(rnd, f"edited {run.run_id}"))
        assert one.state == State.PENDING, "the editor alone was enough"
    seen = bytes(one.args)
    yes(world.people[rnd.choice(people)], one)
    return seen, edited


def tampered(rnd: random.Random, run: Run) -> bytes:
    return canonical.dumps(letter(rnd, f"thief of {run.run_id}"))


def drift(rnd: random.Random, run: Run, kind: str) -> None:
    """One call's own: its row, what its request shows, its age."""
    approvals, calls = Approval.objects.filter(run_id=run.id, state=State.APPROVED), Call.objects.filter(run_id=run.id, ord=1)
    if kind == "row":
        calls.update(args=tampered(rnd, run))
    elif kind == "screen":
        approvals.update(args=tampered(rnd, run))
    elif kind == "aged":
        approvals.update(decided_at=Now() - timedelta(seconds=901))


def decide_all(world: World, rnd: random.Random, runs: list[Run]) -> tuple[dict[str, bytes], Counter[str], Counter[str]]:
    """Approve, then let things drift. -> what has to be sent, by run; how many drifted by kind; edits."""
    moved = dict(zip(rnd.sample(TOOLS, 6), [*OF_A_TOOL, *OF_A_TOOL], strict=False))
    due: dict[str, bytes] = {}
    kinds, edits = Counter[str](), Counter[str]()
    for run in runs:
        kind = rnd.choice(OF_A_CALL) if rnd.random() < 0.25 else ""
        if kind == "screen before":
            Approval.objects.filter(run_id=run.id).update(args=tampered(rnd, run))
        signer = rnd.choices(["approver", "second"], [5, 1])
        seen, edited = approve_somehow(world, rnd, run, signer)
        was_repaired = kind == "screen before" and edited  # the edit was made from the screen, and seen by the other person
        drift(rnd, run, kind)
        tool = Call.objects.get(run_id=run.id, ord=1).name
        why = "" if was_repaired else kind
        why = why or moved.get(tool, "") or ("approver left" if signer == ["second"] else "")
        kinds[why] += 1
        edits["edited"] += edited
        if not why:
            due[run.run_id] = seen
    for tool, kind in moved.items():
        drift_tool(world, tool, kind)
    Member.objects.filter(user=world.people["second"].user).delete()
    return due, kinds, edits


@pytest.mark.mission("X2")
async def test_the_bytes_that_were_approved_are_sent_or_nothing_is(world: World) -> None:
    many, rnd, began = size(1000, 60), random.Random(20), time.monotonic()
    async with desk(world, TOOLS) as made:
        runs = await parked(world, [rnd.choice(TOOLS) for _ in range(many)], rnd)
        due, kinds, edits = await sync_to_async(decide_all)(world, rnd, runs)
        await drive(world)
        assert {run: bodies for run, bodies in made.got.items() if bodies} == {run: [seen] for run, seen in due.items()}
        await sync_to_async(consumed_is_sent)(made)
        void = [why async for why in Approval.objects.filter(state=State.VOID, void_reason="").values_list("tool", flat=True)]
        assert not void and not (wrong := await violations(world)), wrong
        again = await Approval.objects.filter(state=State.PENDING).acount()
    sent = kinds.pop("")
    assert sent and len(kinds) >= size(8, 5), f"vacuous: {kinds}"
    refused = {f"drift_{kind.replace(' ', '_')}": count for kind, count in sorted(kinds.items())}
    figure("T20", "approved calls, edited before and drifting after: the bytes that were approved are sent, or nothing is", n=many, seed=20,
           seconds=time.monotonic() - began, sent=sent, not_sent=many - sent, **edits, **refused, asked_again=again)  # fmt: skip


def consumed_is_sent(made: Desk) -> None:
    """Every body that came is the bytes of the one approval that was used up for it."""
    used = {one.run_id: bytes(one.args) for one in Approval.objects.filter(state=State.CONSUMED)}
    runs = {run.run_id: used.get(run.id) for run in Run.objects.all()}
    assert {run: bodies for run, bodies in made.got.items() if bodies} == {run: [args] for run, args in runs.items() if args is not None}


# races --------------------------------------------------------------------------------------------------------------------------


class Race:
    """Two moves at once on one request; `late` delays one of them a little, so that each comes first sometimes."""

    def __init__(self, world: World, rnd: random.Random, nth: int) -> None:
        self.world, self.rnd, self.nth = world, rnd, nth
        self.approver = world.people["approver"]

    def pair(self, kind: str, run: Run, one: Approval) -> tuple[Any, Any]:
        approve = lambda: yes(self.approver, one)
        if kind == "approve+reject":
            return approve, lambda: signoff.decide(self.world.people["admin"], one.id, verdict="reject", digest=one.digest)
        if kind == "double click":
            return approve, approve
        if kind == "approve+cancel":
            return approve, lambda: lifecycle.cancel(self.world.people["operator"], run.id)
        if kind == "approve+expire":
            Approval.objects.filter(pk=one.pk).update(expires_at=Now() + timedelta(milliseconds=100))
            return delayed(approve, self.rnd.uniform(0, 0.1)), self.expire
        leaving = person(self.world.tenant, f"leaving-{self.nth}", "approver")
        return lambda: yes(leaving, one), lambda: Member.objects.filter(user=leaving.user).delete()

    def expire(self) -> int:
        end = time.monotonic() + 5
        while not (closed := signoff.expire_due()) and time.monotonic() < end:
            if not Approval.objects.filter(pk=self.one.pk, state=State.PENDING).exists():
                break
            time.sleep(0.001)
        return closed

    def run(self, kind: str, run: Run) -> tuple[str, str]:
        """-> (state of the request, which of the two came first)"""
        self.one = one = asked(run)
        first, second = self.pair(kind, run, one)
        pause = self.rnd.choice([0.0, 0.0, 0.002, 0.005])
        late = self.rnd.random() < 0.5
        answer, other = at_once(delayed(first, pause if late else 0), delayed(second, 0 if late else pause))
        one.refresh_from_db()
        check(kind, one, answer, other)
        return one.state, "approve" if not isinstance(answer, Exception) else "the other"


def delayed(move: Any, seconds: float) -> Any:
    def go() -> Any:
        time.sleep(seconds)
        return move()

    return go


def check(kind: str, one: Approval, answer: Any, other: Any) -> None:
    """Exactly one outcome, and both learn the same."""
    said = list(ApprovalDecision.objects.filter(approval=one).values_list("verdict", flat=True))
    refused = answer.code if isinstance(answer, Refused) else answer if isinstance(answer, Exception) else ""
    assert not isinstance(other, Exception) or isinstance(other, Refused), other
    if kind == "approve+reject":
        lost = [x.code for x in (answer, other) if isinstance(x, Refused)]
        assert (one.state, said, lost) in [(s, [v], ["already_decided"]) for s, v in (("approved", "approve"), ("rejected", "reject"))]
    elif kind == "double click":
        assert (one.state, said, answer.state, other.state) == ("approved", ["approve"], "approved", "approved")
    elif kind == "approve+cancel":
        assert one.state == "void" and (said == ["approve"]) is (not refused)
        assert refused in ("", "approval_void", "run_not_waiting")
    elif kind == "approve+expire":
        assert (one.state, said, refused) in [("approved", ["approve"], ""), ("expired", [], "approval_expired")]
    else:
        assert (one.state, said, refused) in [("approved", ["approve"], ""), ("pending", [], "role_missing")]


RACES = ("approve+reject", "double click", "approve+cancel", "approve+expire", "approve+revoke")


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize("kind", RACES)
async def test_of_two_moves_at_once_one_counts_and_nothing_is_sent_against_it(world: World, kind: str) -> None:
    many, rnd, began = size(200, 15), random.Random(21), time.monotonic()
    async with desk(world, TOOLS[:2]) as made:
        runs = await parked(world, [TOOLS[n % 2] for n in range(many)], rnd)
        ends = [await sync_to_async(Race(world, rnd, nth).run)(kind, run) for nth, run in enumerate(runs)]
        await drive(world)
        sends = {run.run_id: len(made.got[run.run_id]) for run in runs}
        may = state_allows(kind)
        wrong = [(run.run_id, end) for run, end in zip(runs, ends, strict=True) if sends[run.run_id] != (end[0] in may)]
        assert not wrong and not (broken := await violations(world)), (wrong, broken)
        await sync_to_async(consumed_is_sent)(made)
    first = Counter(who for _, who in ends)
    states = Counter(state for state, _ in ends)
    assert len(first) == 2 or kind == "double click" or many < 100, f"vacuous: {first}"
    against = sum(sends[run.run_id] for run, (state, _) in zip(runs, ends, strict=True) if state not in may)
    figure("T21", f"{kind} at once: one outcome, nothing sent after a no", n=many, seed=21, seconds=time.monotonic() - began,
           **states, approve_came_first=first["approve"], other_came_first=first["the other"], sent=sum(sends.values()),
           sent_against_it=against)  # fmt: skip


def state_allows(kind: str) -> tuple[str, ...]:
    """The states of a request after the race in which its call is sent. Who approved and left since approved nothing."""
    return () if kind == "approve+revoke" else (State.APPROVED,)


@pytest.mark.mission("X4")
async def test_forty_calls_at_once_use_a_standing_grant_for_five_five_times(world: World) -> None:
    many, rnd, began = 40, random.Random(5), time.monotonic()
    async with desk(world, TOOLS[:1]) as made:
        soon = datetime.now(UTC) + timedelta(hours=1)
        give = {"tenant": world.tenant, "agent": "clerk", "tool": TOOLS[0], "most": 5, "expires_at": soon, "reason": "routine"}
        await sync_to_async(standing_grants.give)(world.people["approver"], **give)
        for number in range(many):
            turn = {"calls": [{"name": TOOLS[0], "arguments": letter(rnd, f"{number:05d}")}]}
            await world.script(turn, {"text": "Done."}, agent="clerk")
        await drive(world, engines=2)
        sent = sum(map(len, made.got.values()))
        waiting = await Approval.objects.filter(state=State.PENDING).acount()
        grant = await StandingGrant.objects.aget()
        assert (sent, grant.used, waiting, await ApprovalDecision.objects.acount()) == (5, 5, many - 5, 0)
        await sync_to_async(consumed_is_sent)(made)
        assert not (wrong := await violations(world)), wrong
    figure("T21", "calls at once, on two engines, under a standing grant for five", n=many, seed=5, seconds=time.monotonic() - began,
           sent_without_people=sent, waiting_for_people=waiting)  # fmt: skip
