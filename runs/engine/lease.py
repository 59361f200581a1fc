"""Whether this engine may still send. The lease is the engine's, one for all of its runs."""

import time


class Stale(Exception):
    """Another engine owns this run now, or may: stop, touch nothing."""


class Lease:
    """The engine's own belief about its lease: confirmed at a monotonic time taken before the renewal was sent."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.confirmed = time.monotonic()
        self.over = False  # ended by somebody, or ran out: the engine has a new one, what was claimed under this is lost

    @property
    def holds(self) -> bool:
        """False when somebody may already have taken our runs over."""
        return not self.over and time.monotonic() <= self.confirmed + self.ttl_s * 0.8

    def check(self) -> None:
        """Before every socket. Raises Stale."""
        if not self.holds:
            raise Stale
