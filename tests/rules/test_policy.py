"""The decision on one call: defaults, rows, conditions, modes, and everything that fails is a deny."""

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import pytest

from tools.policy import STRICTNESS, Decision, Facts, PermissionRow, RuleRow, decide

RUN: dict[str, Any] = {
    "agent": "support",
    "tenant": "acme",
    "user": {"id": "u1", "attributes": {"role": "admin", "accounts": ["a1"]}},
    "release": "rel_1",
    "step": 1,
    "labels": frozenset({"untrusted"}),
    "writes": 0,
    "cost_usd": 0.0,
    "tools": {},
}
FACTS = Facts("create_ticket", "write", frozenset({"egress"}), {"priority": "urgent"}, RUN, "2026-03-01T09:30:00Z")
ROW = PermissionRow("create_ticket", None, "", "", "allow", 1, "", False, 1)


def verdict(rows: list[PermissionRow], effect: str = "write", **more: Any) -> tuple[str, int]:
    decision = decide(replace(FACTS, effect=effect), rows, **({"offered": True, "enabled": True} | more))
    return decision.verdict, decision.approvers


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(("effect", "expected"), [("read", ("allow", 0)), ("write", ("ask", 1)), ("irreversible", ("ask", 2))])
def test_without_rows_the_effect_decides(effect: str, expected: tuple[str, int]) -> None:
    assert verdict([], effect) == expected


@pytest.mark.mission("P10.1")
def test_a_tool_that_the_release_does_not_list_is_denied_whatever_the_rows_say() -> None:
    decision = decide(FACTS, [replace(ROW, loosen=True)], offered=False, enabled=True)
    assert (decision.verdict, decision.by) == ("deny", "not_listed")


def test_a_tool_that_is_switched_off_is_denied_whatever_the_rows_say() -> None:
    decision = decide(FACTS, [replace(ROW, loosen=True)], offered=True, enabled=False)
    assert (decision.verdict, decision.by) == ("deny", "disabled")


TIGHTENED = {  # effect -> decision of one row (1 approver) -> what comes of it
    "read": {"allow": ("allow", 0), "ask": ("ask", 1), "draft": ("draft", 0), "deny": ("deny", 0)},
    "write": {"allow": ("ask", 1), "ask": ("ask", 1), "draft": ("draft", 0), "deny": ("deny", 0)},
    "irreversible": {"allow": ("ask", 2), "ask": ("ask", 2), "draft": ("draft", 0), "deny": ("deny", 0)},
}
LOOSENED = {effect: {"allow": ("allow", 0), "ask": ("ask", 1), "draft": ("draft", 0), "deny": ("deny", 0)} for effect in TIGHTENED}


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(("effect", "decision", "loosen"), list(product(TIGHTENED, STRICTNESS, (False, True))))
def test_one_row_tightens_and_only_loosen_widens(effect: str, decision: str, loosen: bool) -> None:
    expected = (LOOSENED if loosen else TIGHTENED)[effect][decision]
    assert verdict([replace(ROW, decision=decision, loosen=loosen)], effect) == expected


def test_more_approvers_are_stricter_and_fewer_do_not_count() -> None:
    three = replace(ROW, decision="ask", approvers=3)
    assert verdict([three]) == ("ask", 3)
    assert verdict([three, replace(ROW, decision="ask", approvers=2, id=2)]) == ("ask", 3)
    assert verdict([replace(ROW, decision="ask", approvers=1)], "irreversible") == ("ask", 2)
    assert verdict([replace(ROW, decision="ask", approvers=9), replace(ROW, decision="draft", id=2)]) == ("draft", 0)


@pytest.mark.parametrize("effect", TIGHTENED)
def test_the_strictest_of_all_rows_wins_in_any_order_and_rows_never_widen(effect: str) -> None:
    rows = [replace(ROW, decision=d, id=n) for n, d in enumerate(STRICTNESS)]
    for some in (rows[:n] for n in range(len(rows) + 1)):
        outcomes = {verdict(list(order), effect) for order in permutations(some)}
        assert len(outcomes) == 1
        assert STRICTNESS[outcomes.pop()[0]] >= STRICTNESS[verdict([], effect)[0]]


def test_tightening_rows_still_apply_after_a_row_that_loosens() -> None:
    free = replace(ROW, decision="allow", loosen=True, id=1)
    assert verdict([free, replace(ROW, decision="ask", approvers=1, id=2)], "irreversible") == ("ask", 1)
    assert verdict([free, replace(ROW, decision="deny", id=2)], "irreversible") == ("deny", 0)


def test_of_two_rows_that_loosen_the_stricter_applies() -> None:
    rows = [replace(ROW, decision="allow", loosen=True, id=1), replace(ROW, decision="ask", loosen=True, id=2)]
    assert verdict(rows, "irreversible") == verdict(rows[::-1], "irreversible") == ("ask", 1)


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"tenant": "acme"}, True),
        ({"tenant": "globex"}, False),
        ({"tenant": ""}, False),
        ({"agent": "support"}, True),
        ({"agent": "billing"}, False),
        ({"user_role": "admin"}, True),
        ({"user_role": "guest"}, False),
        ({"tool": "issue_refund"}, False),
        ({"when": "args.priority == 'urgent'"}, True),
        ({"when": "args.priority == 'low'"}, False),
        ({"tenant": "acme", "agent": "support", "user_role": "admin", "when": "'egress' in call.labels"}, True),
        ({"tenant": "acme", "agent": "billing", "when": "args.nothing == 1"}, False),
    ],
)
def test_a_row_applies_where_tool_tenant_agent_role_and_condition_all_match(change: dict[str, Any], matches: bool) -> None:
    assert verdict([replace(ROW, decision="deny", **change)])[0] == ("deny" if matches else "ask")


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ("args.priority in ['urgent']", True),
        ("call.tool == 'create_ticket' && call.effect == 'write'", True),
        ("run.agent == 'support' && run.tenant == 'acme'", True),
        ("'a1' in run.user.accounts", True),
        ("run.user.id == 'u1'", True),
        ("'untrusted' in run.labels", True),
        ("timestamp(now) > timestamp('2026-01-01T00:00:00Z')", True),
        ("run.writes > 0 || run.cost_usd > 1.0", False),
    ],
)
def test_conditions_see_the_facts(when: str, matches: bool) -> None:
    assert verdict([replace(ROW, decision="deny", when=when)])[0] == ("deny" if matches else "ask")


def test_an_attribute_cannot_take_the_place_of_the_users_id() -> None:
    run = RUN | {"user": {"id": "u1", "attributes": {"id": "root"}}}
    rows = [replace(ROW, decision="deny", when="run.user.id == 'root'")]
    assert decide(replace(FACTS, run=run), rows, offered=True, enabled=True).verdict == "ask"


@pytest.mark.parametrize("user", [None, {"id": "u1"}, {"id": "u1", "attributes": None}])
def test_a_run_without_a_user_or_role_matches_no_row_for_a_role(user: Any) -> None:
    facts = replace(FACTS, run=RUN | {"user": user})
    rows = [replace(ROW, decision="allow", loosen=True, user_role="admin")]
    assert decide(facts, rows, offered=True, enabled=True).verdict == "ask"


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("loosen", [False, True])
@pytest.mark.parametrize(
    "broken",
    [
        {"when": "args.missing == 1"},
        {"when": "args.priority"},
        {"when": "args.priority =="},
        {"when": "nobody == 1"},
        {"decision": "maybe"},
        {"decision": "ask", "approvers": 0},
    ],
)
def test_a_row_that_cannot_be_read_denies_and_is_named(broken: dict[str, Any], loosen: bool) -> None:
    rows = [replace(ROW, decision="allow", loosen=True, id=1), replace(ROW, id=7, loosen=loosen, **broken)]
    decision = decide(FACTS, rows, offered=True, enabled=True)
    assert (decision.verdict, decision.by) == ("deny", "error:7")
    assert "urgent" not in decision.why


def test_a_broken_row_of_another_place_is_not_evaluated() -> None:
    rows = [replace(ROW, tenant="globex", when="args.missing == 1"), replace(ROW, tool="other", decision="maybe")]
    assert verdict(rows) == ("ask", 1)


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, effect="unheard_of"),
        replace(FACTS, run={}),
        replace(FACTS, run=RUN | {"user": "u1"}),
        replace(FACTS, run=RUN | {"user": {"id": "u1", "attributes": "admin"}}),
        replace(FACTS, args=None),  # type: ignore[arg-type]
    ],
)
def test_facts_that_cannot_be_read_deny(facts: Facts) -> None:
    decision = decide(facts, [replace(ROW, loosen=True)], offered=True, enabled=True)
    assert decision.verdict == "deny"
    assert decision.by.startswith("error:")


def test_an_unknown_mode_denies_even_a_read() -> None:
    facts = replace(FACTS, effect="read")
    assert decide(facts, [], offered=True, enabled=True, mode="dry").verdict == "deny"  # type: ignore[arg-type]


MODES = {  # mode -> effect -> (without rows, with a row that denies, with one that loosens to allow)
    "normal": {"read": ("allow", "deny", "allow"), "write": ("ask", "deny", "allow"), "irreversible": ("ask", "deny", "allow")},
    "read_only": {"read": ("allow", "deny", "allow"), "write": ("deny",) * 3, "irreversible": ("deny",) * 3},
    "draft": {
        "read": ("allow", "deny", "allow"),
        "write": ("draft", "deny", "draft"),
        "irreversible": ("draft", "deny", "draft"),
    },
}


@pytest.mark.parametrize(("mode", "effect"), [(mode, effect) for mode in MODES for effect in MODES[mode]])
def test_the_mode_of_the_run_only_tightens(mode: str, effect: str) -> None:
    deny, free = replace(ROW, decision="deny"), replace(ROW, decision="allow", loosen=True)
    assert tuple(verdict(rows, effect, mode=mode)[0] for rows in ([], [deny], [free])) == MODES[mode][effect]


def test_a_decision_names_what_decided() -> None:
    assert decide(FACTS, [], offered=True, enabled=True).by == "effect:write"
    assert decide(FACTS, [replace(ROW, decision="deny", id=9)], offered=True, enabled=True).by == "permission:9"
    assert decide(FACTS, [], offered=True, enabled=True, mode="draft") == Decision(
        "draft", "The run only drafts what it would change.", "mode:draft", 0
    )


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize(
    ("rows", "rules", "group", "approvers"),
    [
        ([{"group": "desk"}], [], "desk", 1),
        ([{"group": "desk"}, {"group": "heads", "approvers": 2}], [], "heads", 2),
        ([{"group": "desk"}, {"approvers": 2}], [], "desk", 2),
        ([{"group": "desk"}], [2], "desk", 2),
        ([], [2], "", 2),
        ([{"group": "desk"}, {"decision": "deny"}], [], "", 0),
        ([{"group": "desk", "loosen": True}], [], "desk", 1),
    ],
)
def test_the_group_of_the_strictest_row_that_names_one_decides_and_no_rule_widens_it(
    rows: list[dict[str, Any]], rules: list[int], group: str, approvers: int
) -> None:
    made = [replace(ROW, **({"decision": "ask", "approvers": 1, "id": n} | each)) for n, each in enumerate(rows, 1)]
    ruled = [RuleRow("two", "call", "ask", number, "true") for number in rules]
    decision = decide(FACTS, made, ruled, offered=True, enabled=True)
    assert (decision.group, decision.approvers) == (group, approvers)
