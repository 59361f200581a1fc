"""Retries of one host are bounded however many calls fail."""

from runs.engine.retry_budget import BURST, FLOOR_PER_S, RetryBudget

URL = "http://127.0.0.1:9/x"


def test_a_dead_host_gets_a_burst_and_then_three_a_second() -> None:
    now = [0.0]
    budget = RetryBudget(lambda: now[0])
    assert sum(budget.may_retry(URL) for _ in range(1000)) == BURST
    now[0] = 10.0
    assert sum(budget.may_retry(URL) for _ in range(1000)) == 10 * FLOOR_PER_S


def test_first_sends_earn_a_tenth_of_a_retry_each() -> None:
    budget = RetryBudget(lambda: 0.0)
    while budget.may_retry(URL):
        pass
    for _ in range(100):
        budget.sent(URL)
    assert sum(budget.may_retry(URL) for _ in range(1000)) in (9, 10)


def test_hosts_do_not_share_their_budgets() -> None:
    budget = RetryBudget(lambda: 0.0)
    while budget.may_retry(URL):
        pass
    assert budget.may_retry("http://127.0.0.1:10/x")
