"""The callbacks of a run's page: what was told to its caller, and what the other side answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from console.models import Delivery
from runs.models import Run
from tenants.actors import Actor

MOST = 50
WORDS: Mapping[str, str] = {  # error of an attempt -> what a person reads
    "refused": "Not sent: the address is not allowed",
    "connect": "No connection",
    "timeout": "No answer in time",
    "reset": "Connection broken off",
    "too_large": "Answer too large",
    "encoding": "Answer cannot be read",
    "secret_missing": "Not sent: the secret is missing",
    "secret_unusable": "Not sent: the secret cannot be used",
    "url_unusable": "Not sent: the address cannot be used",
    "kind_unknown": "Not sent: nobody knows how",
    "channel_gone": "Not sent: the channel was deleted",
    "subject_gone": "Not sent: what it was about is gone",
    "mail_refused": "The mail server refused it",
}


@dataclass(frozen=True, slots=True)
class Line:
    delivery: Delivery
    answer: str
    answered_at: datetime | None

    @property
    def waits(self) -> bool:
        return self.delivery.state == Delivery.State.PENDING

    @property
    def again(self) -> str:
        """What the button says."""
        return "Send now" if self.waits else "Redeliver"


def of(run: Run, actor: Actor) -> dict[str, Any]:
    """`callbacks`: the last ones, newest first; None for a run whose caller asked for none."""
    if not run.asked.callback:
        return {"callbacks": None}
    rows = Delivery.objects.filter(run_id=run.id, kind="callback").order_by("-id")[:MOST]
    lines = [line(row) for row in rows]
    return {"callbacks": lines, "callbacks_wait": any(one.waits for one in lines), "may_redeliver": actor.can("runs:write")}


def line(delivery: Delivery) -> Line:
    last = delivery.log[-1] if delivery.log else {}
    status = f"HTTP {last['status']}" if last.get("status") else ""
    answer = status or WORDS.get(last.get("error") or "", str(last.get("error") or ""))
    return Line(delivery, answer, parse_datetime(last["at"]) if last.get("at") else None)
