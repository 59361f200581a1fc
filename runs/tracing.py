"""Where the work of a run stands in a trace (W3C Trace Context). Ids are derived, never stored: what a request carries now is what
telemetry tells of it later. Pure, and cheap: one hash for each request.

A run belongs to the caller's trace, or without one to a trace of its own, whose id is the run's. Each send of a call is a span of its
own; what is asked beside the calls (a preview, a probe, a callback) hangs under the run's span.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

from tenants import ids

ROOT = (0, 0, 0)  # step, ord, attempt: no call has step 0
SAMPLED = "01"
_GIVEN = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trace:
    """`parent`: the caller's span, 16 hexadecimal digits; empty where the trace begins with the run."""

    run_id: str
    id: str
    parent: str = ""
    flags: str = SAMPLED

    def span(self, step: int, ord_: int, attempt: int) -> str:
        return sha256(f"{self.run_id}.{step}.{ord_}.{attempt}".encode()).hexdigest()[:16]

    @property
    def root(self) -> str:
        return self.span(*ROOT)

    def header(self, step: int, ord_: int, attempt: int) -> str:
        """The traceparent of a request: its own span is the parent of whatever the other side does."""
        return f"00-{self.id}-{self.span(step, ord_, attempt)}-{self.flags}"

    @property
    def root_header(self) -> str:
        return self.header(*ROOT)


def trace_of(run_id: str, traceparent: str | None) -> Trace:
    """`run_id`: `agt_…`. A traceparent that is none is passed over."""
    given = _GIVEN.fullmatch(traceparent or "")
    return Trace(run_id, *given.groups()) if given else Trace(run_id, ids.decode("agt", run_id).hex)


def accepted(traceparent: str | None) -> str:
    """What is kept with a run of what its caller sent: a valid traceparent, or nothing."""
    return traceparent if traceparent and _GIVEN.fullmatch(traceparent) else ""
