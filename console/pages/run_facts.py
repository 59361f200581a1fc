"""What the page of one run says about it as a whole: rows in, words and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse

from approvals.models import Approval, ApprovalDecision
from console import limits, retention
from console.api import runs as api
from console.status import look
from console.switch_words import sentence
from console.templatetags.signalbox import byte_count
from console.tracks import Call, Event
from console.waterfall import Waterfall, draw
from runs.models import Call as CallRow
from runs.models import Run, Step, Switch, UnknownWrite
from runs.states import TERMINAL, CallState, RunState
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import decode

from . import run_limits

SHOWN = 8 * 1024  # characters of a payload on the page; the rest is behind "Load full"
TITLE = 90
COLUMNS = ("step", "ord", "name", "effect", "state", "error_class", "decision", "tokens_in", "tokens_out")


@dataclass(frozen=True, slots=True)
class Callout:
    """Templates show `strong` and `text` through `visible`: messages of tools and models are in them."""

    tone: str
    icon: str
    strong: str
    text: str
    expires: datetime | None = None
    url: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Payload:
    """Foreign text or a JSON value, cut to SHOWN characters. `size` in bytes of the whole."""

    text: str
    size: int
    cut: bool
    of: str
    value: Any = None
    is_json: bool = False

    @property
    def size_text(self) -> str:
        return byte_count(self.size)


def find(actor: Actor, run_id: str) -> Run:
    """Raises NotFound for another tenant's and for what is no id. The release's instructions are not read."""
    try:
        rows = api.visible(actor).select_related("starter").defer("release__spec", "release__tools")
        run = rows.filter(id=decode("agt", run_id)).first()
    except ValueError:
        run = None
    if run is None:
        retention.refuse_deleted(actor, run_id)
        raise NotFound("run")
    return run


def events_of(run: Run) -> list[Event]:
    return [Event(*row) for row in run.events.order_by("seq").values_list("seq", "kind", "at", "payload")]


def waterfall_of(run: Run, events: list[Event], now: datetime) -> Waterfall:
    steps = {step.step: step for step in Step.objects.filter(run_id=run.id)}
    rows = CallRow.objects.filter(run_id=run.id).values(*COLUMNS)
    calls = [
        Call(
            row["step"],
            row["ord"],
            row["name"],
            row["effect"],
            row["state"],
            row["error_class"],
            row["decision"],
            row["tokens_in"] + row["tokens_out"],
            steps[row["step"]].calls if row["step"] in steps and row["ord"] == 0 else 0,
        )
        for row in rows
    ]
    roles = {number: step.role for number, step in steps.items()}
    return draw(calls, roles, events, began=run.created_at, until=run.ended_at or now, over=run.state in TERMINAL)


def title_of(text: str) -> str:
    """The first line that says something, short enough for a heading."""
    line = next((line.strip() for line in text[:4000].splitlines() if line.strip()), "Untitled run")
    return line if len(line) <= TITLE else line[: TITLE - 1].rstrip() + "…"


def text_payload(text: str, of: str) -> Payload:
    return Payload(text[:SHOWN], len(text.encode(errors="replace")), len(text) > SHOWN, of)


def json_payload(value: Any, of: str) -> Payload:
    text = indented(value)
    return Payload(text[:SHOWN], len(text.encode(errors="replace")), len(text) > SHOWN, of, value, is_json=True)


def indented(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return "(nested too deeply to show)"


def answer_of(run: Run) -> Payload | None:
    if run.answer_step is None:
        return None
    result = CallRow.objects.filter(run_id=run.id, step=run.answer_step, ord=0).values_list("result", flat=True).first()
    return text_payload(str(result.get("text", "")), "answer") if isinstance(result, dict) else None


# what people must know first ------------------------------------------------------------------------------------------


def callouts(run: Run, actor: Actor) -> list[Callout]:
    if run.state == RunState.WAITING_APPROVAL:
        return [*asking(run, actor), *unknown_writes(run)] or [waiting(run)]
    if run.state == RunState.FAILED:
        return [failure(run), *unknown_writes(run)]
    if run.state == RunState.NEEDS_RECONCILIATION:
        return unknown_writes(run) or [waiting(run)]
    paused = run.paused_by if run.state == RunState.PAUSED else None
    if paused and (switch := Switch.objects.select_related("tenant", "by").filter(pk=paused).first()):
        return [held(switch), *unknown_writes(run)]
    if run.state in (RunState.WAITING_BUDGET, RunState.WAITING_TIMER, RunState.QUARANTINED, RunState.PAUSED):
        return [asking_for_more(run, actor) or waiting(run)]
    if run.state == RunState.CANCELLED:
        return [Callout("idle", "ban", "Cancelled", by_whom(run)), *unknown_writes(run)]
    if run.cancel_requested and run.state not in TERMINAL:
        return [Callout("idle", "ban", "Cancelling.", "The call in progress ends first; nothing new is sent.")]
    return []


def asking(run: Run, actor: Actor) -> Iterable[Callout]:
    said_yes = Count("decisions", filter=Q(decisions__verdict=ApprovalDecision.Verdict.APPROVE))
    pending = Approval.objects.filter(run_id=run.id, state=Approval.State.PENDING).defer("args", "evidence")
    for approval in pending.annotate(yes=said_yes).order_by("expires_at")[:5]:
        words = [approval.why.rstrip(".") + "." if approval.why else "A person must decide before it is sent."]
        if approval.needed > 1:
            words.append(f"{approval.yes} of {approval.needed} people have approved.")
        if run.starter_id == actor.user.pk and not actor.platform_admin:
            words.append("You started this run, so somebody else must decide.")
        strong = f"Step {approval.step} wants to call {approval.tool}."
        url = reverse("approval", args=[approval.approval_id])
        yield Callout("wait", "hand", strong, " ".join(words), approval.expires_at, url, "Review approval")


def asking_for_more(run: Run, actor: Actor) -> Callout | None:
    """What the run has spent, and the way to the request."""
    found = run_limits.request_of(run) if run.state == RunState.WAITING_BUDGET else None
    if found is None:
        return None
    approval, question = found
    strong, text = run_limits.asked_words(question)
    if run.starter_id == actor.user.pk and not actor.platform_admin:
        text += " You started this run, so somebody else must decide."
    return Callout("wait", "wallet", strong, text, approval.expires_at, reverse("approval", args=[approval.approval_id]), "Review request")


def unknown_writes(run: Run) -> list[Callout]:
    """Each leads to the case that is open on it, or to the call while nobody has opened one."""
    found = CallRow.objects.filter(run_id=run.id, state=CallState.UNKNOWN).order_by("step", "ord")
    rows = list(found.values_list("step", "ord", "name")[:5])
    open_cases = UnknownWrite.objects.filter(run_id=run.id, result="") if rows else ()
    cases = {(case.step, case.ord): reverse("unknown", args=[case.unknown_id]) for case in open_cases}
    text = "It was sent, and no certain answer came. It is not sent again until a person, or the tool's own check, settles it."
    return [
        Callout(
            "fail",
            "circle-question-mark",
            f"It is not known whether {name} in step {step} was applied.",
            text,
            url=cases.get((step, ord_), f"?sel={step}.{ord_}#call-{step}.{ord_}"),
            action="Settle it" if (step, ord_) in cases else "Show the call",
        )
        for step, ord_, name in rows
    ]


def waiting(run: Run) -> Callout:
    shown = look("run", run.state)
    return Callout(shown.tone, shown.icon, f"{shown.label}.", shown.description)


def held(switch: Switch) -> Callout:
    text = f"{sentence(switch)} by {switch.by.get_username()}: {switch.reason} The run goes on when the switch is lifted."
    return Callout("wait", "circle-pause", "Paused by a kill switch.", text, None, reverse("switch", args=[str(switch)]), "Show the switch")


def failure(run: Run) -> Callout:
    shown = look("outcome", run.outcome or "failed")
    if run.stop and run.stop.get("limit") == "switch":
        where = f"Met in step {run.stop['step']}. " if run.stop.get("step") else ""
        url = reverse("switch", args=[run.stop["by"]])
        text = f"{where}Calls that were on their way ended first."
        return Callout("fail", "power-off", f"{shown.label}.", text, None, url, "Show the switch")
    words = [limits.words(run.stop)] if run.stop and run.stop.get("limit") else []
    if run.last_error:
        words.append(error_words(run.last_error))
    return Callout("fail", "octagon-x", f"{shown.label}.", " ".join(words) or shown.description)


def error_words(error: dict[str, Any]) -> str:
    kind = str(error.get("error_type") or "error").replace("_", " ")
    source = f" from {error['tool']}" if error.get("tool") else ""
    where = f" in step {error['step']}" if error.get("step") else ""
    message = str(error.get("message") or "")
    return f"Last error: {kind}{source}{where}" + (f": {message[:300]}" if message else ".")


def by_whom(run: Run) -> str:
    stop = run.stop or {}
    who = f"by {stop['by']}" if stop.get("by") else "by a person"
    return f"{who} in step {stop['step']}." if stop.get("step") else f"{who}."
