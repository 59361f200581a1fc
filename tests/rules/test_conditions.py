"""Conditions that people write: refused when they cannot hold, and an error at run time is never false."""

import threading

import pytest

from tenants.errors import Refused
from tools.conditions import MAX_LENGTH, ConditionError, check, holds

FACTS = {
    "args": {"priority": "urgent", "amount": 40, "account_id": "a1", "items": [1, 2, 3], "note": None},
    "call": {"tool": "create_ticket", "effect": "write", "labels": ["egress"]},
    "run": {
        "agent": "support",
        "user": {"id": "u1", "accounts": ["a1", "a2"]},
        "labels": ["untrusted"],
        "writes": 1,
        "cost_usd": 0.01,
        "tools": {"issue_refund": {"count": 2, "sums": {"amount": 170}}},
    },
    "now": "2026-03-01T09:30:00Z",
}


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("args.priority == 'urgent'", True),
        ("args.priority != 'urgent'", False),
        ("args.account_id in run.user.accounts", True),
        ("!(args.account_id in run.user.accounts)", False),
        ("'egress' in call.labels && 'untrusted' in run.labels", True),
        ("call.tool == 'issue_refund' || run.writes > 0", True),
        ("has(args.region)", False),
        ("has(args.region) && args.region == 'eu'", False),
        ("args.note == null", True),
        ("args.items.exists(i, i > 2)", True),
        ("args.items.all(i, i > 2)", False),
        ("size(args.items) == 3", True),
        ("args.account_id.matches('^a[0-9]+$')", True),
        ("timestamp(now).getHours() < 12", True),
        ("run.tools['issue_refund'].sum('amount') + args.amount > 200", True),
        ("run.tools['issue_refund'].sum('fee') == 0", True),
        ("run.tools['issue_refund'].count >= 3", False),
        ("type(args.amount) == int", True),
        ("true", True),
    ],
)
def test_a_condition_is_true_or_false_of_the_facts(expression: str, value: bool) -> None:
    check(expression)
    assert holds(expression, FACTS) is value


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("", "Syntax error"),
        ("args.priority ==", "Syntax error"),
        ("arg.priority == 'urgent'", "unknown name arg"),
        ("args.a == b && x.y", "unknown name b, x"),
        ("[1].exists(i, i == 1) && j == 1", "unknown name j"),
        ("'.map(j, ' != '' && j == 1", "unknown name j"),
        ("lower(args.priority) == 'urgent'", "unknown function lower"),
        ("args.priority.lowerAscii() == 'urgent'", "unknown function lowerAscii"),
        ("args.items.exists(i, args.items.exists(j, i == j))", "a loop inside a loop"),
        ("args.items.filter(i, args.items\n. all ( j , i == j)).size() > 0", "a loop inside a loop"),
        ("[" * 900 + "]" * 900 + " == []", "cannot be used"),
        ("true" + " " * MAX_LENGTH, "longer than"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused_when_it_is_saved(expression: str, part: str) -> None:
    with pytest.raises(Refused) as caught:
        check(expression)
    assert caught.value.code == "bad_condition"
    assert part in caught.value.message


def test_loops_one_after_the_other_and_names_in_texts_are_fine() -> None:
    check("args.items.map(i, i * 2).filter(j, j > 2).size() > 0")
    check("args.note == 'x.exists(y, z.exists(q, true))'")
    check("args.a.exists(i, (i + 1) > 2) || args.b.exists(i, i == ')')")


def test_other_names_may_be_allowed_instead() -> None:
    check("status == 409 && body.code == 'dup'", frozenset({"status", "body"}))
    with pytest.raises(Refused):
        check("args.a == 1", frozenset({"status", "body"}))


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    "expression",
    [
        "args.missing == 1",
        "args.priority > 5",
        "args.priority",
        "args.amount",
        "args",
        "args.amount / 0 == 1",
        "args.items[9] == 1",
        "run.tools['unknown_tool'].sum('amount') > 1",
        "args.items.sum('amount') > 1",
        "nothing == 1",
        "args.priority.matches('[')",
        "!args.priority",
        "args.amount ? true : false",
        "9223372036854775807 + args.amount > 0",
        "args.priority ==",
        "timestamp(args.priority) > timestamp(now)",
    ],
)
def test_what_cannot_be_evaluated_is_an_error_and_never_false(expression: str) -> None:
    with pytest.raises(ConditionError):
        holds(expression, FACTS)


def test_values_that_cannot_be_converted_are_an_error() -> None:
    for value in ("\ud800", object(), {1, 2}):
        with pytest.raises(ConditionError):
            holds("args.x == 'a'", FACTS | {"args": {"x": value}})


def test_an_error_does_not_quote_the_arguments() -> None:
    with pytest.raises(ConditionError) as caught:
        holds("timestamp(args.priority) > timestamp(now)", FACTS)
    assert "urgent" not in str(caught.value)


def test_deep_conditions_and_pathological_patterns_end_in_an_answer_on_any_thread() -> None:
    seen: list[bool] = []

    def ask() -> None:
        seen.append(holds("!" * 1900 + "true", FACTS))
        seen.append(holds("1+" * 900 + "1 > 0", FACTS))
        seen.append(holds("args.x.matches('(a+)+$')", FACTS | {"args": {"x": "a" * 5000 + "b"}}))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [True, True, False]
