"""Acting on the runs of a bulk: one after the other in the order of their ids, each with its outcome in one transaction.

A worker that is killed leaves its item waiting; who comes next goes on there. Two at once take different items. Each act asks
again who the person is and what they may do now.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from uuid import UUID

from django.db import OperationalError, transaction
from django.db.models.functions import Now

from runs import lifecycle
from runs.models import Run
from runs.states import TERMINAL
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode
from tenants.models import User

from . import bulks
from .api.identity import actor_for
from .bulks import Act, Outcome, State
from .models import Bulk, BulkItem

log = logging.getLogger(__name__)
LATER = 429  # a quota is used up: what cannot be started now is started later
TASK_S, ROUND_S = 40.0, 5.0  # of the minute that a task may take, and of a watchman's round
Enough = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a run; `made`: the run that a retry started."""

    outcome: str
    words: str = ""
    made: UUID | None = None


class HeldUp(Exception):
    """Not now: this item and the rest wait."""


def advance(bulk: Bulk, enough: Enough = lambda: False) -> bool:
    """Go on until all is done, or `enough`. -> whether more is to be done now. Safe to repeat, and for several at once."""
    while not enough():
        try:
            went_on = step(bulk)
        except HeldUp as why:
            Bulk.objects.filter(pk=bulk.pk, state=State.RUNNING).exclude(held_up=str(why)).update(held_up=str(why))
            return False
        if not went_on:
            bulks.finish(bulk)
            return False
        Bulk.objects.filter(pk=bulk.pk).exclude(held_up="").update(held_up="")
    return True


@transaction.atomic
def step(bulk: Bulk) -> bool:
    """Take the next item and act. False: nothing waits that nobody else has in hand. HeldUp: it waits on."""
    waiting = bulks.left(bulk).filter(bulk__state=State.RUNNING).select_related("bulk__tenant").order_by("run_id")
    item = waiting.select_for_update(skip_locked=True, no_key=True, of=("self",)).first()
    if item is None:
        return False
    became = act(item)
    BulkItem.objects.filter(pk=item.pk).update(outcome=became.outcome, words=became.words[:300], made_id=became.made, at=Now())
    return True


def act(item: BulkItem) -> Became:
    try:
        with transaction.atomic():
            actor = person(item.bulk)
            return cancelled(actor, item.run_id) if item.bulk.act == Act.CANCEL else tried_again(actor, item.run_id)
    except Refused as refused:
        if refused.status == LATER:
            raise HeldUp(refused.message[:300]) from None
        return Became(Outcome.COULD_NOT, refused.message)
    except OperationalError:
        raise  # the database's trouble, not this run's: the item waits
    except Exception:
        log.exception("run %s of bulk %s failed", item, item.bulk)
        return Became(Outcome.COULD_NOT, "It failed, and was logged under the run's id.")


def person(bulk: Bulk) -> Actor:
    """Whoever asked for it, with the rights of now. Refuses no_longer_allowed 403."""
    refused = Refused("no_longer_allowed", "Whoever asked for this may not act on runs here any more.", 403)
    try:
        user = User.objects.get(pk=bulk.by_id)
        actor = actor_for(user, bulk.tenant.slug if bulk.tenant else None)
    except Refused:
        raise refused from None
    if bulk.scopes is not None:
        actor = replace(actor, scopes=frozenset(bulk.scopes))
    here = actor.platform_admin or actor.tenant.pk == bulk.tenant_id
    if not here or not actor.can("runs:write"):
        raise refused
    return actor


def cancelled(actor: Actor, run_id: UUID) -> Became:
    before = Run.objects.select_for_update(no_key=True).filter(pk=run_id).values_list("state", flat=True).first()
    after = lifecycle.cancel(actor, run_id)
    if before in TERMINAL:
        return Became(Outcome.ALREADY, "It had ended by itself.")
    words = "" if after.state in TERMINAL else "Asked to stop: it ends after the call in progress."
    return Became(Outcome.DONE, words)


def tried_again(actor: Actor, run_id: UUID) -> Became:
    made = lifecycle.retry(actor, run_id)
    return Became(Outcome.DONE, f"Started again as {encode('agt', made.pk)}.", made.pk)


def work(bulk_id: str) -> None:
    """A task's turn at one bulk; what is left is another task's."""
    found, until = Bulk.objects.filter(pk=bulk_id, state=State.RUNNING).first(), monotonic() + TASK_S
    if found is not None and advance(found, lambda: monotonic() > until):
        bulks.enqueue(found)


def round() -> int:
    """The watchman's turn: whatever no task goes on with. How many are left. A fault in one must not keep the others."""
    open_ = list(Bulk.objects.filter(state=State.RUNNING).order_by("id"))
    for row in open_:
        until = monotonic() + ROUND_S / len(open_)
        try:
            advance(row, lambda until=until: monotonic() > until)  # type: ignore[misc]
        except Exception:
            log.exception("bulk %s is tried again on the next round", row)
    return Bulk.objects.filter(state=State.RUNNING).count()
