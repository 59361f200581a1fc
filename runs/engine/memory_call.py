"""A call of the runtime's own memory tools: no request leaves, the rows are written here. Ruled on before like every other call."""

import asyncio
import json
import logging
import time
from typing import Any, Final

from django.db import Error as DatabaseError

from runs import memory
from tenants.errors import Refused
from tools import memory as tools
from tools import past
from tools.definitions import ErrorClass, ToolDefinition, ToolResult

from . import facts
from .flight import Flight, ToolCall, Turn
from .services import Services

log = logging.getLogger(__name__)
KIND: Final = tools.KIND


async def carry_out(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition, timeout: float) -> ToolResult:
    """The same call twice changes something once: an ambiguous end may be sent again."""
    began = time.monotonic()
    told = await answer(f, e, turn, call, definition, timeout)
    latency = round((time.monotonic() - began) * 1000)
    ambiguous = told.error in (ErrorClass.TIMEOUT, ErrorClass.TRANSIENT_UPSTREAM)
    applied = None if ambiguous or not definition.mutating else told.error is None
    return ToolResult(told.error is None, told.data, told.error, applied, latency, kept=told.kept)


async def answer(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition, timeout: float) -> memory.Told:
    spec = f.release.spec.memory
    if spec is None:
        return memory.refused("policy", "This release has no memory.", ErrorClass.POLICY)
    if timeout <= 0:
        return memory.refused("not_sent", "No time is left for this call.", ErrorClass.NOT_SENT)
    f.lease.check()
    args: Any = f.snapshot.redactor.value(json.loads(call.args or b"{}"))[0]
    place = memory.Place(f.id, turn.step, call.ord, f.fence)
    work = e.orm(memory.carry_out, f.tenant, place, definition.adapter["does"], args, spec, taint(f))
    try:
        told: memory.Told = await asyncio.wait_for(work, timeout)
    except TimeoutError:
        return memory.refused("timeout", "The memory did not answer in time.", ErrorClass.TIMEOUT)
    except Refused as unreadable:
        return memory.refused("authorization", unreadable.message, ErrorClass.AUTHORIZATION)
    except DatabaseError as error:
        log.warning("run %s: memory: %s", f.run_id, str(error).strip().splitlines()[0])
        return memory.refused("transient_upstream", "The memory could not be reached.", ErrorClass.TRANSIENT_UPSTREAM)
    return told


def taint(f: Flight) -> frozenset[str]:
    """What the run has taken in goes with what it writes."""
    return frozenset(past.labels(facts.made(f)) | f.labels) - {KIND}
