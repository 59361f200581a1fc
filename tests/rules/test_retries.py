"""Whether a failed send is tried again: the whole table."""

import itertools
import math

import pytest

from runs.retries import MAX_SENDS, decide
from tools.definitions import ErrorClass, RetryPolicy

AS_PASTED = RetryPolicy.from_json(
    {
        "max_attempts": 2,
        "backoff_ms": [200, 800],
        "retry_on": ["timeout", "rate_limit", "transient_upstream"],
        "do_not_retry_on": ["validation", "authorization", "duplicate_request"],
    }
)
GENEROUS = RetryPolicy(max_attempts=10, backoff_ms=(200, 800))
EVERYTHING = RetryPolicy(max_attempts=10, retry_on=frozenset(item.value for item in ErrorClass), do_not_retry_on=frozenset())

# class: (read, write with a key, write without a key)
TABLE = {
    "not_sent": (True, True, True),
    "policy": (False, False, False),
    "rate_limit": (True, True, True),
    "authorization": (False, False, False),
    "validation": (False, False, False),
    "conflict": (True, False, False),
    "duplicate_request": (False, False, False),
    "timeout": (True, True, False),
    "transient_upstream": (True, True, False),
    "unknown": (False, False, False),
    "invalid_output": (True, False, False),
}
CALLS = {"read": (False, False), "keyed write": (True, True), "bare write": (True, False)}
CASES = [(error, call, allowed) for error, row in TABLE.items() for call, allowed in zip(CALLS, row, strict=True)]
LAYERS = list(itertools.product([1, 2, 3], [1, 2, 4, 10], [0, 1, 3, 9]))


def ask(policy=AS_PASTED, error="timeout", attempt=1, call="read", after=None, left=60.0, draw=1.0, **purse):
    mutating, keyed = CALLS[call]
    return decide(policy, error, attempt, mutating=mutating, keyed=keyed, retry_after_s=after, left_s=left, rnd=lambda: draw, **purse)


def test_the_table_names_every_class():
    assert set(TABLE) == {item.value for item in ErrorClass}


@pytest.mark.mission("P3.2")
@pytest.mark.mission("P3.3")
@pytest.mark.parametrize(("error", "call", "allowed"), CASES)
@pytest.mark.parametrize("policy", [AS_PASTED, RetryPolicy(), GENEROUS, EVERYTHING], ids=["pasted", "default", "ten", "all"])
def test_each_class_of_error_is_retried_as_the_table_says(policy, error, call, allowed):
    assert (ask(policy, error, call=call) is not None) is allowed


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize("error", ["validation", "authorization", "policy", "unknown", "duplicate_request"])
def test_a_policy_cannot_ask_for_what_is_never_retried(error):
    assert ask(EVERYTHING, error) is None


@pytest.mark.parametrize("error", ["", "Timeout", "timeout ", "weather", "None"])
def test_an_unknown_class_is_not_retried_even_when_listed(error):
    assert ask(RetryPolicy(retry_on=frozenset({error})), error) is None


@pytest.mark.parametrize("error", ["timeout", "rate_limit", "transient_upstream", "conflict", "invalid_output"])
def test_what_the_policy_refuses_is_not_retried(error):
    assert ask(RetryPolicy(do_not_retry_on=frozenset({error})), error) is None


@pytest.mark.parametrize("error", ["timeout", "rate_limit", "transient_upstream"])
def test_what_the_policy_does_not_list_is_not_retried(error):
    assert ask(RetryPolicy(retry_on=frozenset()), error) is None


def test_not_sent_is_retried_whatever_the_policy_lists():
    policy = RetryPolicy(retry_on=frozenset(), do_not_retry_on=frozenset({"not_sent"}))
    assert ask(policy, "not_sent", call="bare write") is not None


def test_an_unusable_answer_is_asked_for_once_more_only():
    assert ask(GENEROUS, "invalid_output", attempt=1) is not None
    assert ask(GENEROUS, "invalid_output", attempt=2) is None


@pytest.mark.parametrize(("attempts", "attempt", "allowed"), [(1, 1, False), (2, 1, True), (2, 2, False), (3, 2, True), (10, 7, False)])
def test_max_attempts_counts_sends_and_the_purse_counts_more(attempts, attempt, allowed):
    assert (ask(RetryPolicy(max_attempts=attempts), "not_sent", attempt) is not None) is allowed


@pytest.mark.parametrize(("attempt", "most"), [(1, 0.2), (2, 0.8), (3, 0.8), (5, 0.8)])
@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999])
def test_the_wait_is_drawn_between_nothing_and_the_backoff(attempt, most, draw):
    assert ask(GENEROUS, attempt=attempt, draw=draw) == pytest.approx(most * draw)


def test_a_policy_without_backoff_retries_at_once():
    assert ask(RetryPolicy(backoff_ms=())) == 0


@pytest.mark.parametrize(
    ("after", "left", "wait"),
    [
        (3.0, 60.0, 3.0),  # longer than the backoff
        (0.0, 60.0, 0.2),
        (-5.0, 60.0, 0.2),
        (math.nan, 60.0, 0.2),
        (60.0, 60.0, None),  # nothing would be left
        (61.0, 60.0, None),
        (math.inf, 60.0, None),
        (math.inf, math.inf, None),
        (None, 0.2, None),
        (None, 0.21, 0.2),
        (None, 0.0, None),
        (None, -1.0, None),
        (None, math.nan, None),
    ],
)
def test_retry_after_is_honoured_and_never_beyond_what_is_left(after, left, wait):
    assert ask(error="rate_limit", after=after, left=left) == wait


@pytest.mark.mission("P3.1")
@pytest.mark.parametrize(("transport", "attempts", "takeovers"), LAYERS)
@pytest.mark.parametrize("error", ["timeout", "not_sent", "rate_limit"])
def test_three_layers_never_send_more_than_the_purse(transport, attempts, takeovers, error):
    policy, sends = RetryPolicy(max_attempts=attempts, backoff_ms=(0,)), 0
    for _ in range((takeovers + 1) * attempts * transport):  # as often as the layers, left alone, would send
        if sends == 0 or ask(policy, error, attempt=sends, call="keyed write") is not None:
            sends += 1
    assert sends == min(MAX_SENDS, attempts)


@pytest.mark.mission("P3.1")
def test_a_retried_run_has_what_the_first_one_left():
    assert ask(GENEROUS, attempt=1, max_sends=2) is not None
    assert ask(GENEROUS, attempt=2, max_sends=2) is None
    assert ask(GENEROUS, attempt=1, max_sends=0) is None
