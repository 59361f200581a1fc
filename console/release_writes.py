"""The writes that the runs of a release made, and undoing the chosen ones of them."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from runs import undo
from runs.models import Call, Event, Release, ReleaseMove, Run, RunInput
from runs.states import CallState
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode

from . import records, release_records
from .undoing import SENT, says, tag_of
from .undoing import record as undo_record

JSON = dict[str, Any]
MOST = 200  # calls in one go
RUNS = 5000  # of a release, the newest: those before are not looked through
AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Write:
    """`undoing` None: its tool does not say how it is undone."""

    call: Call
    undoing: undo.Undoing | None

    @property
    def key(self) -> str:
        return key_of(self.call)

    @property
    def run_id(self) -> str:
        return encode("agt", self.call.run_id)

    @property
    def says(self) -> str:
        return says(self.call)

    @property
    def tag(self) -> tuple[str, str]:
        """(word, tone)"""
        if self.undoing is not None:
            return tag_of(self.undoing)
        return ("Not known", "fail") if self.call.state == CallState.UNKNOWN else ("Applied", "")

    @property
    def can(self) -> bool:
        return self.undoing is not None and self.undoing.available

    @property
    def why_not(self) -> str:
        return self.undoing.why if self.undoing else "Its tool does not say how it is undone."


def key_of(call: Call) -> str:
    return records.call_id(encode("agt", call.run_id), call.step, call.ord)


def of_release(actor: Actor, release: Release, *, before: str = "", limit: int = AT_ONCE) -> tuple[list[Write], str]:
    """Newest runs first -> (writes, where the next page begins or ""). Also of runs that have gone on with another release since.

    Refuses bad_cursor 400.
    """
    runs = release_records.runs_of(actor, release).filter(writes__gt=0).order_by("-id").values_list("id", flat=True)[:RUNS]
    mine, left = list(runs), moved(actor, release)
    calls = Call.objects.filter(ord__gt=0, state__in=SENT, attempt__gt=0, run_id__in=[*mine, *left]).exclude(effect="read")
    calls = calls.filter(after(before)) if before else calls
    found = list(calls.order_by("-run_id", "-step", "-ord")[: limit + 1])
    rows = judged([call for call in found[:limit] if call.step <= left.get(call.run_id, call.step)])
    return rows, key_of(found[limit - 1]) if len(found) > limit else ""


def moved(actor: Actor, release: Release) -> dict[UUID, int]:
    """Runs that left the release -> the last step that they made with it."""
    move = ReleaseMove.objects.filter(release=release).first()
    if move is None:
        return {}
    rows = Event.objects.filter(at__gte=move.at, kind="release_changed", payload__data__from=release.release_id)
    rows = rows if actor.platform_admin else rows.filter(tenant_id=actor.tenant.pk)
    return {run: int(payload.get("step_id") or 0) for run, payload in rows.values_list("run_id", "payload")[:RUNS]}


def after(cursor: str) -> Q:
    run, step, ord_ = parsed(cursor) or (None, 0, 0)
    if run is None:
        raise Refused("bad_cursor", "cursor must look like agt_….2.1", 400)
    return Q(run_id__lt=run) | Q(run_id=run, step__lt=step) | Q(run_id=run, step=step, ord__lt=ord_)


def parsed(key: str) -> tuple[UUID, int, int] | None:
    """agt_….2.1 -> (run, step, ord)"""
    run, *place = key.split(".")
    try:
        step, ord_ = (int(part) for part in place if part.isascii() and part.isdigit() and len(part) < 6)
        return decode("agt", run), step, ord_
    except ValueError:
        return None


def judged(calls: list[Call]) -> list[Write]:
    now, undoers = timezone.now(), undo_runs({call.run_id for call in calls})
    found = undo.of([call for call in calls if call.run_id not in undoers], now)
    found |= undo.of([call for call in calls if call.run_id in undoers], now, of_undo=True)
    return [Write(call, found.get(undo.key(call))) for call in calls]


def undo_runs(run_ids: set[UUID]) -> set[UUID]:
    return set(RunInput.objects.filter(run_id__in=run_ids, action__kind=undo.KIND).values_list("run_id", flat=True))


def record(write: Write) -> JSON:
    call = write.call
    return {
        "call_id": write.key, "run_id": write.run_id, "step_id": call.step, "ord": call.ord, "tool": call.name, "effect": call.effect,
        "state": call.state,
        "args_sha256": sha256(bytes(call.args or b"")).hexdigest(), "applied_at": records.time(call.ended_at or call.dispatched_at),
        "compensation": undo_record(write.undoing) if write.undoing else None,
    }  # fmt: skip


# undoing ----------------------------------------------------------------------------------------------------------------------


def undo_chosen(actor: Actor, release: Release, chosen: list[str], reason: str) -> list[JSON]:
    """Each in a transaction of its own -> what came of each: {call_id, run_id, code, message}. Nothing else of the release is touched.

    Refuses: scope_missing 403; reason_missing, nothing_chosen, too_many 422.
    """
    actor.need("runs:write")
    if not reason.strip():
        raise Refused("reason_missing", "Say why they are undone: the reason is kept.", 422, field="reason")
    if not chosen:
        raise Refused("nothing_chosen", "Choose the writes to undo.", 422, field="calls")
    if len(chosen) > MOST:
        raise Refused("too_many", f"At most {MOST} writes are undone at once.", 422, field="calls")
    return [one(actor, release, key, reason) for key in dict.fromkeys(chosen)]


def one(actor: Actor, release: Release, key: str, reason: str) -> JSON:
    try:
        place = parsed(key)
        if place is None or not belongs(actor, release, place[0]):
            raise NotFound("call")
        with transaction.atomic():
            made: Run = undo.undo(actor, *place, reason)
    except Refused as refused:
        return {"call_id": key, "run_id": None, "code": refused.code, "message": refused.message}
    return {"call_id": key, "run_id": made.run_id, "code": None, "message": None}


def belongs(actor: Actor, release: Release, run: UUID) -> bool:
    return release_records.runs_of(actor, release).filter(pk=run).exists() or run in moved(actor, release)
