"""Asking a tool's verify adapter whether a write was applied. A read, bounded; whatever is strange about it cannot tell."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from runs import reconcile
from runs.models import Call, RunInput, UnknownWrite
from runs.tracing import trace_of
from tenants.ids import encode
from tools import canonical, catalog, conditions
from tools.definitions import CallContext, Effect, RetryPolicy, ToolDefinition
from tools.models import ToolVersion

from .effects import effect_key
from .services import Services

AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Probe:
    definition: ToolDefinition
    args: bytes
    spec: dict[str, Any]
    run_id: str
    step: int
    credential: str
    tenant: UUID
    traceparent: str


async def probe_due(e: Services) -> None:
    """Probe what is due, a few at a time."""
    for _ in range(AT_ONCE):
        case_id: UUID | None = await e.orm(reconcile.claim_probe)
        if case_id is None:
            return
        verdict, detail = await ask(e, case_id)
        await e.orm(reconcile.record_probe, case_id, verdict, detail)


async def ask(e: Services, case_id: UUID) -> tuple[str, str]:
    """-> (`applied`, `not_applied` or `cannot_tell`, what was seen)."""
    try:
        probe: Probe = await e.orm(prepare, case_id)
    except Exception as error:
        return "cannot_tell", f"the probe could not be made: {type(error).__name__}"
    snapshot = await e.definitions.snapshot(probe.tenant)
    if probe.credential and probe.credential not in snapshot.credentials:
        return "cannot_tell", f"not asked: this tenant has no credential {probe.credential}, or it cannot be opened"
    context = CallContext(
        run_id=probe.run_id, step=probe.step, idem_key=None, timeout_s=float(probe.spec["timeout_s"]), allow=snapshot.allow,
        credential=snapshot.credentials.get(probe.credential), traceparent=probe.traceparent, redactor=snapshot.redactor,
    )  # fmt: skip
    result = await e.tools.invoke(probe.definition, probe.args, context)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    if not result.ok:
        return "cannot_tell", f"{at}: {result.data.get('error_type')}: {str(result.data.get('message'))[:200]}"
    return judge(probe.spec, result.data), f"{at}: {json.dumps(result.data)[:250]}"


def judge(spec: dict[str, Any], data: dict[str, Any]) -> str:
    """Both conditions true is a contradiction: it cannot tell."""
    says = {}
    for name in ("applied", "not_applied"):
        expression = str(spec.get(f"{name}_when") or "")
        try:
            says[name] = bool(expression) and conditions.holds(expression, {"result": data})
        except conditions.ConditionError:
            says[name] = False
    if says["applied"] == says["not_applied"]:
        return "cannot_tell"
    return "applied" if says["applied"] else "not_applied"


def prepare(case_id: UUID) -> Probe:
    case = UnknownWrite.objects.get(id=case_id)
    call = Call.objects.get(run_id=case.run_id, step=case.step, ord=case.ord)
    version = ToolVersion.objects.get(pk=call.tool_version_id or UUID(int=0))
    write, spec = catalog.definition(version), dict(version.verify or {})
    args = json.loads(bytes(call.args or b"{}"))
    facts = {"args": args, "idem_key": call.idem_key or "", "effect_key": effect_key(write, args)}
    asked = {name: conditions.value(expression, facts) for name, expression in spec["args"].items()}
    definition = ToolDefinition(
        version_id=uuid5(version.id, "verify"), name=f"{version.tool_id}.verify", description="", effect=Effect.READ, idempotency="none",
        adapter=spec["adapter"], input_schema={"type": "object"}, output_schema=None, timeout_s=float(spec["timeout_s"]),
        retry=RetryPolicy(max_attempts=1), labels=frozenset(),
    )  # fmt: skip
    run = encode("agt", case.run_id)
    given = RunInput.objects.filter(run_id=case.run_id).values_list("traceparent", flat=True).first()
    trace = trace_of(run, given).root_header
    return Probe(definition, canonical.dumps(asked), spec, run, case.step, version.credential, case.tenant_id, trace)
