"""What a write would change, as its tool says: read when people are asked, and again just before it is sent. A read, bounded.

It never holds up a question: what cannot be read is told to whoever decides. What was shown and is no longer so is asked about again.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from approvals.models import Approval
from tools import canonical, conditions
from tools.definitions import CallContext, Effect, RetryPolicy, ToolDefinition

from . import tool_call
from .flight import JSON, Flight, ToolCall, Turn
from .services import Services

BYTES_MAX = 16 * 1024  # of what is shown
VALUE_MAX = 40  # characters of a value in a reason
UNREADABLE = "What it would change could not be read again before it was sent."


@dataclass(frozen=True, slots=True)
class Moved:
    """Why an approval does not count any more: `reason` for people, `fields` for the events (names alone, no values).

    `final`: it was the same the last time, so that nobody is asked again.
    """

    reason: str
    fields: str
    final: bool = False


async def look(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition) -> JSON | None:
    """`{at, before, after}` or `{at, error}`; None: the tool has no preview. Never raises for what a tool does."""
    spec = definition.preview
    if spec is None:
        return None
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    args = json.loads(call.args or b"{}")
    try:
        asked = canonical.dumps({name: conditions.value(expression, {"args": args}) for name, expression in spec["args"].items()})
    except (conditions.ConditionError, ValueError):
        return {"at": at, "error": "its arguments could not be made"}
    if lacking := tool_call.missing_credential(f, call.name):
        return {"at": at, "error": lacking}
    context = CallContext(
        run_id=f.run_id, step=turn.step, idem_key=None, timeout_s=f.left_for(turn, float(spec["timeout_s"])), allow=f.snapshot.allow,
        credential=tool_call.credential(f, call.name), traceparent=f.trace.root_header, redactor=f.snapshot.redactor,
    )  # fmt: skip
    result = await e.tools.invoke(read(definition, spec), asked, context)
    if not result.ok:
        return {"at": at, "error": f"{result.data.get('error_type')}: {str(result.data.get('message'))[:200]}"}
    return {"at": at} | shown(spec, args, result.data)


def read(definition: ToolDefinition, spec: Any) -> ToolDefinition:
    return ToolDefinition(
        version_id=uuid5(definition.version_id, "preview"), name=f"{definition.name}.preview", description="", effect=Effect.READ,
        idempotency="none", adapter=spec["adapter"], input_schema={"type": "object"}, output_schema=None,
        timeout_s=float(spec["timeout_s"]), retry=RetryPolicy(max_attempts=1), labels=frozenset(),
    )  # fmt: skip


def shown(spec: Any, args: JSON, result: JSON) -> JSON:
    """`{before, after}`, or `{error}` where an expression gives nothing that can be shown."""
    facts, made = {"args": args, "result": result}, {}
    try:
        for side in ("before", "after"):
            made[side] = {label: conditions.value(expression, facts) for label, expression in spec[side].items()}
        made, size = canonical.clean(made)[0], len(canonical.dumps(made))
    except (conditions.ConditionError, ValueError):
        return {"error": "its answer does not say what is asked of it"}
    return made if size <= BYTES_MAX else {"error": f"it says more than {BYTES_MAX} bytes"}


async def moved(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition) -> Moved | None:
    """Read again what the approver was shown. None: it is so still, or nobody was shown anything."""
    if definition.preview is None or call.approval_id is None:
        return None
    before, tried = await e.orm(was_shown, call.approval_id)
    if before is None:
        return None
    now = await look(f, e, turn, call, definition) or {}
    if "before" not in now:
        return Moved(UNREADABLE, "target (not readable)", final=tried)
    return drift(before, now["before"])


def was_shown(approval_id: UUID) -> tuple[JSON | None, bool]:
    """What people saw of the target (None: nothing, or nobody looked), and whether it could not be read again before."""
    approval = Approval.objects.filter(id=approval_id).first()
    if approval is None or approval.grant_id is not None:
        return None, False
    earlier = Approval.objects.filter(run_id=approval.run_id, step=approval.step, ord=approval.ord, state=Approval.State.VOID)
    return (approval.preview or {}).get("before"), earlier.filter(void_reason=UNREADABLE).exists()


def drift(before: JSON, now: JSON) -> Moved | None:
    """What the approver saw against what is there. Pure."""
    names = [name for name in now if name not in before or canonical.dumps(before[name]) != canonical.dumps(now[name])]
    if not names:
        return None
    said = ", ".join(f"{name} {brief(before.get(name))} -> {brief(now[name])}" for name in names)
    return Moved(f"The target changed: {said}."[:200], f"target ({', '.join(names)})"[:200])


def brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}\N{HORIZONTAL ELLIPSIS}"
