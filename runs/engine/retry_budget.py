"""At most one retry for ten first sends to a host, and three a second always: a host in trouble is not buried in retries."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

SHARE = 0.1
FLOOR_PER_S = 3.0
BURST = 30.0


class RetryBudget:
    """Tokens per host. A first send earns a tenth of a retry, time earns three a second; a retry costs one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tokens: dict[str, tuple[float, float]] = {}  # host:port -> (tokens, when)

    def sent(self, url: str) -> None:
        self._set(url, SHARE)

    def may_retry(self, url: str) -> bool:
        """Takes a token if there is one."""
        return self._set(url, -1.0)

    def _set(self, url: str, change: float) -> bool:
        host = urlsplit(url).netloc
        now = self.clock()
        held, when = self.tokens.get(host, (BURST, now))
        held = min(BURST, held + (now - when) * FLOOR_PER_S) + change
        allowed = held >= 0
        self.tokens[host] = (min(BURST, held) if allowed else held - change, now)
        return allowed
