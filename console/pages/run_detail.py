"""The inspector of a run's page: everything about one step or call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.db.models import F
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Left

from approvals.models import Approval
from console import records
from console.captions import verdict_words
from runs.drafts import DRAFTED
from runs.inference import tiers
from runs.models import Call, Run, Step
from runs.verdicts import verdict_of
from tenants.ids import encode

from .run_facts import SHOWN, Payload, indented, json_payload, text_payload

TABS = ("summary", "args", "result", "policy", "raw")
EFFECTS = {"read": "Read", "write": "Write", "irreversible": "Write that cannot be undone"}


@dataclass(frozen=True, slots=True)
class Detail:
    """`key`: "9" for a step, "9.2" for a tool call. A step is shown through its model call."""

    key: str
    tab: str
    call: Call
    step: Step | None
    asks: list[dict[str, Any]]
    args: Payload | None
    result: Payload | None
    said: str
    approvals: list[Approval]

    @property
    def is_step(self) -> bool:
        return "." not in self.key

    @property
    def state(self) -> str:
        return "drafted" if self.call.error_class == DRAFTED else self.call.state

    @property
    def unbilled(self) -> bool:
        """A turn that no model took."""
        return self.step is not None and self.step.role in records.UNBILLED

    @property
    def critique(self) -> dict[str, Any] | None:
        """The verdict of a critique and its reasons, as the engine reads them."""
        if self.step is None or self.step.role != tiers.CRITIQUE:
            return None
        verdict, reasons = verdict_of(self.call.result)
        return {"verdict": verdict, "title": verdict_words(verdict), "reasons": reasons}

    @property
    def kind(self) -> str:
        return "model" if self.call.ord == 0 else "read" if self.call.effect == "read" else "write"

    @property
    def effect(self) -> str:
        return EFFECTS.get(self.call.effect, self.call.effect)

    @property
    def error(self) -> str:
        return (self.call.error_class or "").replace("_", " ")

    @property
    def refusal(self) -> str:
        """What a call that did not succeed told the model."""
        result = self.call.result if self.call.ord else None
        return str(result.get("message", ""))[:500] if isinstance(result, dict) and result.get("ok") is False else ""

    @property
    def tabs(self) -> tuple[str, ...]:
        return TABS

    @property
    def link(self) -> str:
        """app.js puts the page's address before what begins with #."""
        return f"#{self.anchor}"

    @property
    def anchor(self) -> str:
        return f"step-{self.key}" if self.is_step else f"call-{self.key}"

    @property
    def raw(self) -> Payload:
        return json_payload(raw_record(self.call), "raw")


def parsed(selection: str) -> tuple[int, int] | None:
    """ "9" -> (9, 0), "9.2" -> (9, 2); None for anything else."""
    step, dot, ord_ = selection.partition(".")
    parts = (step, ord_) if dot else (step, "0")
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def find(run: Run, selection: str) -> Call | None:
    """The step of a call that a person named has no model call: it is shown through that call."""
    place = parsed(selection)
    if place is None:
        return None
    calls = Call.objects.filter(run_id=run.id, step=place[0])
    return calls.filter(ord=place[1]).first() or (calls.filter(ord=1).first() if not place[1] else None)


def detail(run: Run, selection: str, tab: str) -> Detail | None:
    call = find(run, selection)
    if call is None:
        return None
    result = call.result if isinstance(call.result, dict) else None
    approvals = Approval.objects.filter(run_id=run.id, step=call.step, ord=call.ord).defer("args", "evidence").order_by("id")
    return Detail(
        key=selection if call.ord == (parsed(selection) or (0, 0))[1] else f"{call.step}.{call.ord}",
        tab=tab if tab in TABS else "summary",
        call=call,
        step=Step.objects.filter(run_id=run.id, step=call.step).first() if call.ord == 0 else None,
        asks=asked(result) if call.ord == 0 else [],
        args=json_payload(asked(result), "args") if call.ord == 0 and result else args_payload(call),
        result=shown_result(call, result),
        said=said(run, call.step) if call.ord else "",
        approvals=list(approvals.prefetch_related("decisions__user")) if call.ord else [],
    )


def asked(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    calls = (result or {}).get("calls")
    return [ask for ask in calls if isinstance(ask, dict)] if isinstance(calls, list) else []


def args_payload(call: Call) -> Payload | None:
    return None if call.args is None else json_payload(args_value(call), "args")


def args_value(call: Call) -> Any:
    try:
        return json.loads(bytes(call.args or b"null"))
    except (ValueError, RecursionError):
        return bytes(call.args or b"").decode(errors="replace")


def shown_result(call: Call, result: dict[str, Any] | None) -> Payload | None:
    if call.ord == 0:
        return text_payload(str(result.get("text", "")), "result") if result else None
    return None if call.result is None else json_payload(call.result, "result")


def said(run: Run, step: int) -> str:
    """What the model wrote beside its calls, cut."""
    text = Left(KeyTextTransform("text", F("result")), SHOWN // 4)
    rows = Call.objects.filter(run_id=run.id, step=step, ord=0).annotate(words=text).values_list("words", flat=True)
    return rows.first() or ""


def raw_record(call: Call) -> dict[str, Any]:
    """The row, with arguments that may be no JSON as text."""
    names = ("name", "effect", "state", "error_class", "decision", "attempt", "latency_ms", "tokens_in", "tokens_out", "cost_micro")
    return {
        "call_id": records.call_id(encode("agt", call.run_id), call.step, call.ord),
        **{name: getattr(call, name) for name in names},
        "idempotency_key": call.idem_key,
        "approval_id": call.approval_id and encode("apr", call.approval_id),
        "dispatched_at": records.time(call.dispatched_at),
        "ended_at": records.time(call.ended_at),
        "args": None if call.args is None else args_value(call),
        "result": call.result,
    }


def whole(run: Run, of: str, selection: str) -> str | None:
    """The full text of one payload, for text/plain. None: there is none."""
    if of == "input":
        return run.asked.text
    if of == "data":
        return indented(run.asked.data)
    call = find(run, str(run.answer_step) if of == "answer" else selection)
    if call is None:
        return None
    if of in ("answer", "result") and call.ord == 0:
        return str((call.result or {}).get("text", ""))
    values = {"args": args_value(call) if call.ord else asked(call.result), "result": call.result, "raw": raw_record(call)}
    return indented(values[of]) if of in values else None
