"""What the rows of runs still say of an item: the arguments that wrote it, and what was read of it. Taken out when it is deleted.

Events hold hashes and stay as they are. What a model said of an item in its own words is not found here.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db.models import Q

from approvals import forgetting
from tenants.ids import encode
from tools import canonical, memory

from .models import Call, MemoryUse, Run, RunInput
from .states import TERMINAL

JSON = dict[str, Any]
READS = (memory.READ, memory.READ_SENSITIVE)
DELETED = "deleted"


def clear(item_ids: set[UUID]) -> tuple[int, set[UUID]]:
    """-> (calls that said something of these items and do so no more, runs that had to do with them). Locks those runs."""
    uses = list(MemoryUse.objects.filter(item_id__in=item_ids))
    runs = {row.run_id for row in uses} | relatives({row.run_id for row in uses})
    list(Run.objects.select_for_update(no_key=True).filter(id__in=runs).order_by("id").values_list("id"))
    calls = list(Call.objects.filter(run_id__in=runs, ord__gt=0, name__in=memory.SPECS).order_by("run_id", "step", "ord"))
    wrote = {(row.run_id, row.step, row.ord) for row in uses if row.did != MemoryUse.Did.READ}
    asked = {bytes(call.args or b"") for call in calls if place(call) in wrote}
    names = {encode("mem", item_id) for item_id in item_ids}
    return sum(clear_call(call, names, asked) for call in calls), runs


def relatives(runs: set[UUID]) -> set[UUID]:
    """Forks and rehearsals that were given what these runs had, and theirs in turn."""
    found: set[UUID] = set()
    following = runs
    while following:
        given = RunInput.objects.filter(Q(retry_of__in=following) | Q(rehearsal__of__in=[str(run) for run in following]))
        following = set(given.values_list("run_id", flat=True)) - found - runs
        found |= following
    return found


def place(call: Call) -> tuple[UUID, int, int]:
    return call.run_id, call.step, call.ord


def clear_call(call: Call, names: set[str], asked: set[bytes]) -> bool:
    """`asked`: the arguments that wrote or forgot one of the items, also where they were copied or rehearsed."""
    if call.name not in READS:
        args = bytes(call.args or b"")
        return args in asked and not left_out(args) and mask(call, {DELETED: True})
    result = without(call.result or {}, names)
    if result == call.result or call.result is None:
        return False
    Call.objects.filter(run_id=call.run_id, step=call.step, ord=call.ord).update(result=result)
    return mask(call, {DELETED: True})


def without(result: JSON, names: set[str]) -> JSON:
    """The answer of a read without these items. Its labels stay: the run took them in."""
    items = result.get("items") or []
    return (
        {**result, "items": [{"item": each["item"], DELETED: True} if each["item"] in names else each for each in items]}
        if items
        else result
    )


def left_out(args: bytes) -> bool:
    return bool(json.loads(args or b"{}").get(DELETED))


def mask(call: Call, said: JSON) -> bool:
    """Put `said` and the hash in place of a call's arguments: in its row, in the model's reply that asked for it, in requests."""
    instead = canonical.dumps({**said, "sha256": sha256(bytes(call.args or b"")).hexdigest()})
    row = Call.objects.filter(run_id=call.run_id, step=call.step, ord=call.ord)
    row.update(args=instead)
    row.filter(proposed__isnull=False).update(proposed=instead)
    forgetting.arguments(call.run_id, call.step, call.ord, instead)
    asking = Call.objects.filter(run_id=call.run_id, step=call.step, ord=0).first()
    reply = (asking.result or {}) if asking else {}
    if asking and len(asks := reply.get("calls") or []) >= call.ord:
        asks[call.ord - 1]["arguments"] = instead.decode()
        Call.objects.filter(run_id=call.run_id, step=call.step, ord=0).update(result=reply)
    return True


def running(runs: Iterable[UUID]) -> int:
    """How many of them go on: what they have read they keep in mind until they end."""
    return Run.objects.filter(id__in=list(runs)).exclude(state__in=TERMINAL).count()
