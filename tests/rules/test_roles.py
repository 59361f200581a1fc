"""Who may do what."""

from itertools import pairwise

import pytest

from tenants.roles import NEEDS, ORDER, SCOPES, Role, at_least, may

READS = {"runs:read", "approvals:read", "config:read", "memory:read", "metrics:read"}
OPERATES = READS | {"runs:write", "approvals:decide", "memory:write", "incidents:write"}


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("role", "scopes"),
    [("viewer", READS), ("operator", OPERATES), ("approver", OPERATES), ("admin", set(SCOPES))],
)
def test_each_role_holds_exactly_its_scopes(role: str, scopes: set[str]) -> None:
    assert {scope for scope in SCOPES if may(role, scope)} == scopes


def test_every_scope_names_the_least_role_that_holds_it() -> None:
    assert set(NEEDS) == set(SCOPES)


def test_a_higher_role_holds_everything_that_a_lower_one_holds() -> None:
    for lower, higher in pairwise(ORDER):
        assert {s for s in SCOPES if may(lower, s)} <= {s for s in SCOPES if may(higher, s)}


def test_an_approver_is_more_than_an_operator() -> None:
    assert at_least("approver", Role.APPROVER)
    assert not at_least("operator", Role.APPROVER)


@pytest.mark.parametrize("role", ["", "root", "ADMIN", "admin ", "owner"])
def test_an_unknown_role_holds_nothing(role: str) -> None:
    assert not any(may(role, scope) for scope in SCOPES)
    assert not at_least(role, Role.VIEWER)


@pytest.mark.parametrize("scope", ["", "runs", "runs:*", "*", "config:write ", "RUNS:READ"])
def test_an_unknown_scope_is_held_by_nobody(scope: str) -> None:
    assert not may("admin", scope)
