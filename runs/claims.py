"""Who makes an effect that has a name: one call in a window, whoever asks."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from .models import Call, EffectClaim
from .states import CallState
from .undo import undone

NOT_MADE = (CallState.BLOCKED, CallState.FAILED_NOT_APPLIED, CallState.ABANDONED)


@transaction.atomic
def claim(tenant_id: UUID, tool: str, key: str, place: tuple[UUID, int, int], window_s: float, *, take: bool) -> dict[str, Any] | None:
    """None: the effect is this call's to make (and claimed, if `take`). Else the call that made or is making it.

    A claim whose call was never applied or was undone, or that is older than the window, passes on.
    """
    run_id, step, ord_ = place
    mine = {"run_id": run_id, "step": step, "ord": ord_}
    if take:
        EffectClaim.objects.bulk_create([EffectClaim(tenant_id=tenant_id, tool=tool, effect_key=key, **mine)], ignore_conflicts=True)
    rows = EffectClaim.objects.filter(tenant_id=tenant_id, tool=tool, effect_key=key)
    held = rows.select_for_update(no_key=True).first()
    if held is None or (held.run_id, held.step, held.ord) == place:
        return None
    call = Call.objects.filter(~undone(), run_id=held.run_id, step=held.step, ord=held.ord).first()
    old = rows.filter(at__lt=Now() - timedelta(seconds=window_s)).exists()
    if old or call is None or (call.state in NOT_MADE and call.result is not None):
        if take:
            rows.update(at=Now(), **mine)
        return None
    return {"run_id": held.run_id, "step": held.step, "ord": held.ord, "state": call.state, "result": call.result}
