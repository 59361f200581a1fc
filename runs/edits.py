"""A person approves other arguments than the model proposed: validated like the model's own, bound to a digest of their own."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from approvals import gate
from approvals.digest import digest
from approvals.models import Approval
from tenants.actors import Actor
from tenants.errors import Refused
from tools import canonical, schemas
from tools.models import ToolVersion

from .models import Call, Run
from .states import CallState


def change(actor: Actor, run: Run | None, approval: Approval, *, verdict: str, shown: str, args: Any, reason: str) -> Approval | None:
    """Under the run's lock. None: the arguments are the same, so this is an ordinary approval.

    Refuses: args_refused, args_invalid (`errors`: path and message of each) 422, and as `gate.edit`.
    """
    if approval.kind != Approval.Kind.CALL or verdict != gate.Verdict.APPROVE:
        raise Refused("args_refused", "Only the arguments of a call can be edited, and only to approve them.", 422, field="args")
    if not isinstance(args, dict):
        raise Refused("args_invalid", "The arguments must be an object.", 422, field="args", errors=["/: not an object"])
    written = canonical.dumps(canonical.clean(args)[0])
    if written == bytes(approval.args):
        return None
    version = ToolVersion.objects.filter(pk=approval.tool_version_id or UUID(int=0)).first()
    if version is None:
        raise Refused("args_refused", "The tool of this call is gone, so other arguments cannot be checked.", 422, field="args")
    if locked := locked_fields(version.input_schema, json.loads(bytes(approval.args)), args):
        raise Refused(
            "args_invalid", f"{', '.join(locked)} cannot be changed.", 422, field="args", errors=[f"/{n}: locked" for n in locked]
        )
    if found := schemas.compile(dict(version.input_schema)).errors(json.loads(written)):
        raise Refused("args_invalid", f"The arguments do not fit the tool: {'; '.join(found)}.", 422, field="args", errors=found)
    fields = {**approval.sealed, "args_sha256": hashlib.sha256(written).hexdigest()}
    edited = gate.edit(actor, approval, args=written, sealed=fields, digest=digest(fields), shown=shown, reason=reason)
    if run is not None:
        rows = Call.objects.filter(run_id=run.id, step=approval.step, ord=approval.ord, state=CallState.WAITING_APPROVAL)
        rows.update(args=written, proposed=edited.proposed)
    return edited


def locked_fields(schema: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The arguments that the schema says are read-only and that differ all the same."""
    parts = schema.get("properties")
    read_only = [n for n, part in parts.items() if isinstance(part, dict) and part.get("readOnly")] if isinstance(parts, dict) else []
    return [name for name in read_only if was.get(name) != now.get(name)]


def changed_fields(edited: Approval) -> list[str]:
    """The names of the arguments that differ from what the model proposed."""
    was, now = json.loads(bytes(edited.proposed or b"{}")), json.loads(bytes(edited.args))
    return sorted(name for name in {*was, *now} if was.get(name) != now.get(name))[:50]
