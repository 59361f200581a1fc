"""Deciding the past again: what each call saw of the calls before it, of its day, and of a policy that is only proposed. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from console import matrix
from tools import conditions, examples, policy, policy_diff
from tools.policy import PermissionRow, RuleRow
from tools.replay import Pair, PastCall, PastRun, Policy, Written, replay

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OPEN = PermissionRow("pay", None, "", "", "allow", 1, "", True, 1)


def call(step: int, ord_: int = 1, tool: str = "pay", args: bytes = b'{"amount": 10}', **more: Any) -> PastCall:
    read = {"read": "read"}.get(tool, "write")
    given: dict[str, Any] = {"at": NOON + timedelta(minutes=step), "sent_at": NOON, "heard": True, "applied": True, "done": True}
    return PastCall(step, ord_, tool, read, more.pop("labels", frozenset()), args, recorded={}, **(given | more))


def run(*calls: PastCall, number: int = 1, **more: Any) -> PastRun:
    return PastRun(UUID(int=number), "acme", "clerk", 3, {}, ("pay", "read"), calls=calls, **more)


def rule(when: str, decision: str = "deny") -> Policy:
    return Policy((OPEN,), (RuleRow("r", "call", decision, 1, when),))


def decided(past: PastRun, then: Policy, now: Policy | None = None, written: tuple[Written, ...] = ()) -> list[str]:
    """Oldest first: the decision under `then`."""
    pairs = replay([past], written, {"acme": (now or Policy((OPEN,)), then)}, lambda run, call: True, every=True)
    return [pair.now.verdict for pair in pairs if pair is not None][::-1]


@pytest.mark.mission("X5")
@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("run.tools['pay'].sum('amount') + args.amount > 25", ["allow", "allow", "deny"]),
        ("run.tools['pay'].count >= 1", ["allow", "deny", "deny"]),
        ("run.step == 2", ["allow", "deny", "allow"]),
        ("run.writes >= 2", ["allow", "allow", "deny"]),
        ("run.cost_usd > 0.15", ["allow", "deny", "deny"]),
        ("run.release == 3", ["deny", "deny", "deny"]),
        ("'paid' in run.labels", ["allow", "deny", "deny"]),
        ("args.nothing == 1", ["deny", "deny", "deny"]),
    ],
)
def test_each_call_sees_what_its_run_did_before_it(when: str, told: list[str]) -> None:
    args = (b'{"amount": 10}', b'{"amount": 11}', b'{"amount": 12}')
    calls = [call(step, args=args[step - 1], labels=frozenset({"paid"})) for step in (1, 2, 3)]
    assert decided(run(*calls, costs=((1, 100_000), (2, 100_000), (3, 100_000))), rule(when)) == told


def test_within_a_step_only_what_was_answered_before_counts() -> None:
    early = call(1, 1, "read", labels=frozenset({"private"}), started=3, answered=5)
    late = call(1, 2, args=b'{"amount": 1}', moment=6, started=6)
    at_once = call(1, 3, args=b'{"amount": 2}', moment=4)
    assert decided(run(early, late, at_once), rule("'private' in run.labels")) == ["allow", "deny", "allow"]


def test_what_was_refused_or_never_heard_of_brings_nothing() -> None:
    silent = call(1, heard=False, applied=False, done=False, labels=frozenset({"private"}))
    failed = call(2, applied=False, done=False, args=b'{"amount": 99}')
    assert decided(run(silent, failed, call(3)), rule("'private' in run.labels || run.tools['pay'].sum('amount') > 0")) == ["allow"] * 3


def test_a_day_ends_at_midnight_and_is_the_tenants_own() -> None:
    morning = Written(NOON - timedelta(hours=11), "acme", "pay", b'{"amount": 90}')
    yesterday = Written(NOON - timedelta(hours=13), "acme", "pay", b'{"amount": 900}')
    theirs = Written(NOON - timedelta(hours=1), "globex", "pay", b'{"amount": 900}')
    later = Written(NOON + timedelta(hours=1), "acme", "pay", b'{"amount": 900}')
    held = rule("day.tools['pay'].sum('amount') + args.amount > 99.5")
    assert decided(run(call(1)), held, written=(yesterday, theirs, later)) == ["allow"]
    assert decided(run(call(1)), held, written=(yesterday, theirs, later, morning)) == ["deny"]


def test_the_same_write_twice_is_asked_about_as_the_engine_asks() -> None:
    same = (call(1), call(2))
    assert decided(run(*same), Policy((OPEN,))) == ["allow", "ask"]
    assert decided(run(call(1), call(2, has_effect_key=True)), Policy((OPEN,))) == ["allow", "allow"]
    assert decided(run(call(1, asks_writes=True)), Policy((OPEN,))) == ["ask"]
    assert decided(run(call(1, mode="read_only")), Policy((OPEN,))) == ["deny"]
    assert decided(run(call(1), by_hand=True), rule("true", "draft")) == ["ask"]
    assert decided(run(call(1, offered=False)), Policy((OPEN,))) == ["deny"]


def test_the_newest_run_comes_first_and_what_is_not_concerned_is_not_decided() -> None:
    runs = [run(call(1), number=n) for n in (1, 3, 2)]
    policies = {"acme": (Policy((OPEN,)), rule("true"))}
    pairs = list(replay(runs, (), policies, lambda run, call: run.id.int != 2))
    assert [pair.run.id.int if pair else None for pair in pairs] == [3, None, 1]
    assert all(isinstance(pair, Pair) and pair.differs for pair in pairs if pair)


@pytest.mark.parametrize("when", ["args.amount > 10", "args.nothing > 1", "'paid' in run.labels", "call.tool == 'read'", "true"])
@pytest.mark.parametrize("decision", ["ask", "deny"])
def test_what_is_skipped_would_not_have_differed(when: str, decision: str) -> None:
    calls = (call(1, labels=frozenset({"paid"})), call(2, args=b'{"amount": 11}'), call(3, tool="read"), call(4, args=b"{}"))
    pair = (Policy((OPEN,), rule("args.amount > 20", "ask").rules), rule(when, decision))
    every, quick = (list(replay([run(*calls)], (), {"acme": pair}, lambda run, call: True, every=each)) for each in (True, False))
    assert [bool(each and each.differs) for each in every] == [bool(each and each.differs) for each in quick]
    row = PermissionRow("pay", "acme", "clerk", "", decision, 2, when, False, 9)
    moved = (Policy((OPEN,)), Policy((OPEN, row)))
    every, quick = (list(replay([run(*calls)], (), {"acme": moved}, lambda run, call: True, every=each)) for each in (True, False))
    assert [bool(each and each.differs) for each in every] == [bool(each and each.differs) for each in quick]


def test_numbers_of_both_kinds_meet_in_a_condition() -> None:
    when = "run.tools['pay'].sum('amount') + args.amount > 200"
    for sums, amount, told in (
        ({}, 19.5, False),
        ({"amount": 100.5}, 100, True),
        ({"amount": 100}, 99.99, False),
        ({"amount": 1}, 2, False),
    ):
        facts = {"run": {"tools": {"pay": {"count": 1, "sums": sums}}}, "args": {"amount": amount}}
        assert conditions.holds(when, facts) is told
    with pytest.raises(conditions.ConditionError):
        conditions.holds(when, {"run": {"tools": {"pay": {"count": 1, "sums": {}}}}, "args": {"amount": "much"}})


def test_a_difference_between_versions_names_rows_by_their_place() -> None:
    row = {"tool_id": "pay", "agent": "clerk", "user_role": "", "when": "", "decision": "ask", "approvers": 1, "loosen": False}
    one = {"permissions": [row], "rules": [{"name": "r", "when": "true", "enabled": True}]}
    two = {"permissions": [row | {"decision": "deny"}, row | {"when": "args.x > 1"}], "rules": []}
    found = [(each.action, each.name, each.fields) for each in policy_diff.diff(one, two)]
    assert found[0] == ("changed", "pay for clerk", (("decision", "ask", "deny"),))
    assert found[1][:2] == ("added", "pay for clerk, when args.x > 1") and ("loosen", None, False) not in found[1][2]
    assert found[2][:2] == ("removed", "r")
    assert policy_diff.diff(one, one) == []


def test_a_cell_counts_what_a_condition_could_change_and_never_loosens_by_it() -> None:
    rows = [
        PermissionRow("pay", None, "", "", "ask", 2, "", False, 1), PermissionRow("pay", "acme", "clerk", "", "allow", 1, "", False, 2),
        PermissionRow("pay", "acme", "clerk", "boss", "deny", 1, "", False, 3),
        PermissionRow("read", None, "", "", "deny", 1, "", False, 4),
    ]  # fmt: skip
    made = matrix.cell(matrix.Kind("pay", "write"), "clerk", "acme", rows)
    assert (made.decision, made.approvers, made.inherited, made.conditions) == ("ask", 2, False, 1)
    assert matrix.cell(matrix.Kind("pay", "write"), "clerk", None, rows).inherited
    effects = matrix.cell(matrix.Kind("peek", "read", frozenset({policy.SIDE_EFFECTS})), "clerk", "acme", rows)
    assert effects.decision == "ask" and "side effects" in effects.lines[0]
    assert matrix.cell(matrix.Kind("pay", "nonsense"), "clerk", "acme", rows).decision == "deny"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "string"}}, "required": ["a"]}, {"a": "x"}),
        ({"properties": {"n": {"type": "integer", "minimum": 5}, "m": {"type": "number", "maximum": 0.5}}}, {"n": 5, "m": 0.5}),
        ({"type": "array"}, []),
        ({"type": ["null", "string"]}, None),
        ({"const": 3}, 3),
        ({"default": [1]}, [1]),
    ],
)
def test_an_example_begins_with_what_a_schema_asks_for(schema: dict[str, Any], value: Any) -> None:
    assert examples.example(schema) == value
