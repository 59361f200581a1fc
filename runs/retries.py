"""Whether a failed send is tried again, and after how long. Pure; asked before every send of a call but its first.

One purse: `attempt` counts all sends of the call, over attempts, takeovers and restarts, so that layers cannot multiply.
"""

from collections.abc import Callable

from tools.definitions import ErrorClass, RetryPolicy

MAX_SENDS = 6

NEVER = frozenset({"unknown", "validation", "authorization", "duplicate_request", "policy"})
AMBIGUOUS = frozenset({"timeout", "transient_upstream"})  # it may have been applied
KNOWN = frozenset(item.value for item in ErrorClass)


def decide(
    policy: RetryPolicy,
    error_class: str,
    attempt: int,
    *,
    mutating: bool,
    keyed: bool,
    retry_after_s: float | None,
    left_s: float,
    rnd: Callable[[], float],
    max_sends: int = MAX_SENDS,
) -> float | None:
    """Seconds to wait before the next send, or None: do not send again.

    `attempt`: sends so far, 1 after the first. `keyed`: the other side knows a repeated send by its key. `left_s`: seconds
    that the run has left. `rnd`: uniform in [0, 1). `max_sends`: the purse; a retried run passes what the first one left.
    """
    if attempt >= min(policy.max_attempts, max_sends):
        return None
    if not _may_repeat(policy, error_class, attempt, mutating=mutating, keyed=keyed):
        return None
    wait = _backoff_s(policy, attempt) * rnd()
    if retry_after_s is not None and retry_after_s > wait:
        wait = retry_after_s
    return wait if wait < left_s else None  # also None when nothing is left, or when a number is not one


def _may_repeat(policy: RetryPolicy, error_class: str, attempt: int, *, mutating: bool, keyed: bool) -> bool:
    if error_class == "not_sent":
        return True
    if error_class in NEVER or error_class not in KNOWN or error_class in policy.do_not_retry_on:
        return False
    if error_class == "conflict":
        return not mutating
    if error_class == "invalid_output":
        return not mutating and attempt == 1
    if error_class in AMBIGUOUS and mutating and not keyed:
        return False  # tools call this `unknown` already; a second lock on the same door
    return error_class in policy.retry_on


def _backoff_s(policy: RetryPolicy, attempt: int) -> float:
    waits = policy.backoff_ms
    return waits[min(attempt - 1, len(waits) - 1)] / 1000 if waits else 0.0
