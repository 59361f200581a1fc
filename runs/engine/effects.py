"""The same effect asked for twice: answered `already_applied` instead of sent, for tools that name their effects."""

import json
from typing import Any
from uuid import UUID

from runs.models import Call, RunInput
from runs.states import CallState
from runs.undo import undone
from tenants.ids import encode
from tools.definitions import ToolDefinition
from tools.spec import PLACES

from .. import claims
from .flight import JSON, Flight, ToolCall, Turn
from .rulings import Ruling, digest_of
from .services import Services


def effect_key(definition: ToolDefinition, args: JSON) -> str:
    """`ticket:{account_id}` filled from the arguments; empty when the tool has none or an argument is missing."""
    if not definition.effect_key or any(name not in args for name in PLACES.findall(definition.effect_key)):
        return ""
    return PLACES.sub(lambda place: str(args[place[1]]), definition.effect_key)[:300]


def recorded_writes(run_id: UUID) -> dict[tuple[str, str], JSON]:
    """(tool, sha256 of its arguments) -> result, for the applied writes of a run (and of those it retried in turn), not undone."""
    found: dict[tuple[str, str], JSON] = {}
    following: UUID | None = run_id
    while following is not None:
        done = Call.objects.filter(~undone(), run_id=following, ord__gt=0, state=CallState.DONE).exclude(effect="read")
        for call in done:
            # the model asks again for what it proposed, also where a person sent something else
            for asked in {bytes(call.args or b""), bytes(call.proposed or call.args or b"")}:
                found.setdefault((call.name, digest_of(asked)), call.result or {})
        following = RunInput.objects.filter(run_id=following).values_list("retry_of", flat=True).first()
    return found


async def claimed(f: Flight, e: Services, turn: Turn, rulings: list[Ruling]) -> list[Ruling]:
    """The rulings, those that would make an effect a second time turned into an answer."""
    for r in rulings:
        definition = f.release.tools.get(r.call.name)
        if definition is None or not definition.effect_key or r.call.attempt > 0 or r.result is not None:
            continue
        take = r.timeout is not None
        if held := await claim(f, e, turn, r.call, definition, take=take):
            r.state, r.timeout, r.result = CallState.BLOCKED, None, held
    return rulings


async def claim(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition, *, take: bool = True) -> JSON | None:
    """None: this call may make the effect. Else what the model is told instead. `take` False only looks."""
    key = effect_key(definition, json.loads(call.args or b"{}"))
    if not key:
        return None
    place = (f.id, turn.step, call.ord)
    first: dict[str, Any] | None = await e.orm(claims.claim, f.tenant, call.name, key, place, definition.effect_window_s, take=take)
    if first is None:
        return None
    name = f"{encode('agt', first['run_id'])}.{first['step']}.{first['ord']}"
    if first["state"] == CallState.DONE:
        return {"ok": True, "status": "already_applied", "first_call": name, "result": first["result"]}
    message = f"The same effect is being made by {name}, and its outcome is not known yet. It was not sent again."
    return {"ok": False, "error_type": "conflict", "message": message, "first_call": name}
