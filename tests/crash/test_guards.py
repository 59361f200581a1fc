"""Every guard proven: with it nothing happens, without it a directed scenario (`harms`) shows the harm it prevents.

A guard is switched off by replacing its text or function in this process; the product has no switch for it.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from django.conf import settings

from approvals import gate, people
from console import records
from console.api import runs as api
from runs import failpoints, reconcile
from runs.engine import asking, drive, effects, engine, journal, tool_call
from runs.engine import people as engine_people
from tests.runtime.world import World
from tools import egress

from . import harms, harms_of_approvals
from .figures import figure
from .harms import Stage

shown: dict[str, set[bool]] = {}
spent: list[float] = []  # seconds of each


@pytest.fixture
def stage(world: World, urls: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield Stage(world, urls.owner, monkeypatch)
    failpoints.arm("")


def without(text: str, by: str = "") -> Callable[[Stage], None]:
    def off(s: Stage) -> None:
        assert journal.STATEMENT.count(text) == 1, text
        s.patch.setattr(journal, "STATEMENT", journal.STATEMENT.replace(text, by))

    return off


def replaced(module: Any, name: str, by: Any) -> Callable[[Stage], None]:
    return lambda s: s.patch.setattr(module, name, by)


async def _all_as_ruled(f: Any, e: Any, turn: Any, rulings: Any) -> Any:
    return rulings


async def _nothing(*_: Any) -> None: ...


def no_hold(s: Stage) -> None:
    text = "and (r.hold_until is null or r.hold_until < statement_timestamp() or g.id is null or g.pid = 0)"
    assert text in engine.TAKEOVER
    s.patch.setattr(engine, "TAKEOVER", engine.TAKEOVER.replace(text, ""))


def no_quarantine(s: Stage) -> None:
    for module in (drive, engine):
        s.patch.setattr(module, "QUARANTINE_AFTER", 10**9)


def no_triggers(s: Stage) -> None:
    s.sql("alter table run disable trigger run_moves_u")


_consume, _key, _held = gate.consume, tool_call.idem_key, asking.held
_enough, _dispatch, _sealed = gate._enough, engine_people.consume, asking.sealed


def unsealed(field: str) -> Callable[[Stage], None]:
    """The digest does not cover this field."""
    return replaced(asking, "sealed", lambda **fields: _sealed(**{**fields, field: ""}))


def forgetful(s: Stage) -> None:
    s.patch.setattr(settings, "APPROVAL_EXECUTE_WITHIN_S", 10.0**9)


def blind_to_cancel(*args: Any) -> Any:
    run = _held(*args)
    run.cancel_requested = False
    return run


Scenario = Callable[[Stage], Awaitable[str]]
GUARDS: dict[str, tuple[Callable[[Stage], None], Scenario]] = {
    "the fence in every commit": (without("r.fence = e.fence and "), harms.stale_entry),
    "the number of the entry": (without(" and r.entry = e.entry - 1"), harms.same_entry_twice),
    "the lease check before the socket": (replaced(tool_call, "check_lease", lambda *_: None), harms.frozen_before_the_socket),
    "hold_until": (no_hold, harms.lapsed_with_a_write_in_flight),
    "unknown, not a second send": (
        replaced(drive, "recover", lambda f: f.turn and tool_call.open_calls(f.turn)), harms.taken_over_with_a_write_in_flight,
    ),
    "controls.rev in the dispatch": (
        without(" and exists (select 1 from controls c where c.tenant_id = r.tenant_id and c.rev = e.rev))\n  order", ")\n  order"),
        harms.denied_before_the_dispatch,
    ),
    "a cancel in the dispatch": (
        without("or not r.cancel_requested and exists", "or exists"), harms.cancelled_before_the_dispatch,
    ),
    "a cancel in the consumption": (replaced(asking, "held", blind_to_cancel), harms.cancelled_before_the_consumption),
    "the digest at consumption": (
        replaced(gate, "consume", lambda approval, digest, _: _consume(approval, approval.digest)), harms.changed_after_the_approval,
    ),
    "consumption compares and sets": (replaced(gate, "consume", lambda *_: True), harms.withdrawn_before_the_dispatch),
    "approvers still permitted at dispatch": (replaced(people, "permitted", lambda *_, **__: True), harms.approver_dismissed),
    "policy in the digest": (unsealed("policy"), harms_of_approvals.policy_moved),
    "credential in the digest": (unsealed("credential"), harms_of_approvals.credential_moved),
    "the bytes on the screen at consumption": (replaced(gate, "_as_shown", lambda *_: True), harms_of_approvals.shown_something_else),
    "approver count at consumption": (
        replaced(gate, "_enough", lambda approval, said: approval.state == "approved" or _enough(approval, said)),
        harms_of_approvals.one_of_two_dismissed,
    ),
    "as many approvers as the policy wants by now": (
        replaced(engine_people, "consume", lambda *args: _dispatch(*args[:6], 0, *args[7:])), harms_of_approvals.more_approvers_wanted,
    ),
    "editor alone is not enough": (replaced(gate, "_seconded", lambda *_: True), harms_of_approvals.edited_and_approved_alone),
    "execute within": (forgetful, harms_of_approvals.approved_long_ago),
    "quarantine": (no_quarantine, harms.poison),
    "the address check of egress": (replaced(egress._Guard, "permits", lambda self, address, port: True), harms.private_address),
    "the tenant filter of the API": (replaced(api, "visible", lambda actor: records.RUN_ROWS), harms.foreign_run),
    "one claim per effect": (replaced(effects, "claimed", _all_as_ruled), harms.same_effect_three_times),
    "one key per call": (
        replaced(tool_call, "idem_key", lambda f, turn, c: f"{_key(f, turn, c)[:30]}{c.attempt}"), harms.answer_lost_and_sent_again,
    ),
    "quiescence before 'not applied'": (replaced(reconcile, "quiet", lambda case: True), harms.settled_too_early),
    "the trigger of legal moves": (no_triggers, harms.illegal_move),
    "a failed coroutine's run is given back": (replaced(engine.Engine, "_give_back", _nothing), harms.failed_coroutine),
}  # fmt: skip


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("name", GUARDS)
async def test_each_guard_prevents_what_happens_without_it(stage: Stage, name: str, on: bool) -> None:
    off, scenario = GUARDS[name]
    began = time.monotonic()
    try:
        if not on:
            off(stage)
        harm = await scenario(stage)
    finally:
        stage.sql("alter table run enable trigger run_moves_u")
    assert bool(harm) is not on, harm or "without the guard nothing happened: the scenario proves nothing"
    shown.setdefault(name, set()).add(on)
    spent.append(time.monotonic() - began)


def test_how_many_guards_are_proven() -> None:
    proven = [name for name, sides in shown.items() if len(sides) == 2]
    print(f"\n{len(proven)} of {len(GUARDS)} guards proven")
    figure("T19", "guards proven by a test that goes red without them", n=len(proven), of=len(GUARDS), seconds=sum(spent))
    if os.environ.get("CHAOS"):
        assert len(proven) == len(GUARDS)
